"""The contract suite of notifiers: subclass it, give a notifier and its receiver, run pytest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from mainspring.errors import Refused, Unreachable
from mainspring.ports.notifier import Notification, Notifier

HOSTILE = 'a <b> & "c"\r\nBcc: eve@example.org\n*d* é 漢'


def notification(**facts: Any) -> Notification:
    """A notification to try with."""
    given: dict[str, Any] = {
        "id": "01hv0000000000000000000001",
        "time": datetime(2026, 1, 5, 12, tzinfo=UTC),
        "type": "monitoring.incident.opened",
        "severity": "page",
        "subject": "mill (performance): roc_auc 0.5, at least 0.65",
        "text": "Since 2026-01-05.\nWhat changed: x",
        "facts": {"incident": "mill-1", "value": 0.5},
        "link": "https://ml.example.org/incidents/mill-1",
    }
    return Notification(**given | facts)


class NotifierContract:
    """What every notifier must do.

    A subclass overrides the fixtures ``notifier`` and ``received``, and, where the receiver can, ``failing``.
    """

    @pytest.fixture
    def notifier(self) -> Notifier:
        """The notifier under test, with a receiver that takes everything."""
        raise NotImplementedError

    @pytest.fixture
    def received(self) -> Callable[[], list[str]]:
        """What the receiver has taken so far, each as text."""
        raise NotImplementedError

    @pytest.fixture
    def failing(self) -> Callable[[str], Notifier]:
        """A notifier whose receiver says ``later``, says ``never``, or is ``away``."""
        pytest.skip("this receiver cannot fail")

    def test_what_is_sent_arrives_once(self, notifier: Notifier, received: Callable[[], list[str]]) -> None:
        """With its id, subject, text and link."""
        told = notification()
        notifier.send(told)
        (text,) = received()
        for part in (told.id, told.subject, "What changed: x", told.link):
            assert part in text

    def test_strange_text_is_only_text(self, notifier: Notifier, received: Callable[[], list[str]]) -> None:
        """Markup and line ends of a subject change nothing but what is read."""
        notifier.send(notification(subject=HOSTILE, text=HOSTILE))
        assert len(received()) == 1
        assert not any(line.startswith("Bcc:") for line in received()[0].partition("\n\n")[0].splitlines())

    def test_sending_again_sends_the_same_id(self, notifier: Notifier, received: Callable[[], list[str]]) -> None:
        """So that a receiver can tell a repetition."""
        told = notification()
        notifier.send(told)
        notifier.send(msgspec.structs.replace(told, text="later"))
        assert all(told.id in text for text in received())

    @pytest.mark.parametrize(("how", "error"), [("later", Unreachable), ("away", Unreachable), ("never", Refused)])
    def test_failures_say_whether_to_try_again(
        self, failing: Callable[[str], Notifier], how: str, error: type[Exception]
    ) -> None:
        """`Unreachable` for what may go well later, `Refused` for what will not."""
        with pytest.raises(error):
            failing(how).send(notification())
