"""Every notifier with a real receiver."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from mainspring.errors import InvalidInput, Refused
from mainspring.ports.notifier import Notifier
from mainspring.ports.plugins import resolve
from mainspring.testing.notifiers import NotifierContract, notification


def nowhere() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class _Web(NotifierContract):
    scheme = ""

    @pytest.fixture
    def notifier(self, receiver: Any) -> Notifier:
        return resolve("notifiers", f"{self.scheme}:{receiver.url}", private="1")

    @pytest.fixture
    def received(self, receiver: Any) -> Callable[[], list[str]]:
        return lambda: [json.dumps(body, ensure_ascii=False) for body in receiver.bodies()]

    @pytest.fixture
    def failing(self, receiver: Any) -> Callable[[str], Notifier]:
        def make(how: str) -> Notifier:
            receiver.status = {"later": 503, "never": 404}.get(how, 200)
            url = f"http://127.0.0.1:{nowhere()}/" if how == "away" else receiver.url
            return resolve("notifiers", f"{self.scheme}:{url}", private="1")

        return make

    def test_redirects_are_not_followed(self, notifier: Notifier, receiver: Any) -> None:
        receiver.status = 307
        with pytest.raises(Refused, match="answers 307"):
            notifier.send(notification())
        assert receiver.requests == []

    def test_private_addresses_want_leave(self, receiver: Any) -> None:
        port = receiver.server.server_port
        for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"):
            with pytest.raises(Refused, match="private address"):
                resolve("notifiers", f"{self.scheme}:http://{host}:{port}/").send(notification())
        assert receiver.requests == []

    def test_only_the_web(self) -> None:
        for url in ("file:///etc/passwd", "gopher://example.org", "example.org", ""):
            with pytest.raises(InvalidInput, match="web address"):
                resolve("notifiers", f"{self.scheme}:{url}")


class TestWebhook(_Web):
    scheme = "webhook"

    def test_it_is_a_signed_cloudevent(self, receiver: Any) -> None:
        told = notification()
        resolve("notifiers", f"webhook:{receiver.url}", private="1", secret="key").send(told)
        (path, headers, body), event = receiver.requests[0], receiver.bodies()[0]
        assert path == "/hook?a=1"
        assert headers["content-type"].startswith("application/cloudevents+json")
        assert (event["specversion"], event["id"], event["type"], event["subject"], event["time"]) == (
            "1.0", told.id, "io.mainspring.monitoring.incident.opened", "mill-1", "2026-01-05T12:00:00Z",
        )  # fmt: skip
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(b"key", signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["webhook-id"] == told.id


class TestSlack(_Web):
    scheme = "slack"

    def test_markup_is_escaped(self, notifier: Notifier, receiver: Any) -> None:
        notifier.send(notification(text="<!channel> & <https://evil.example|here>"))
        section = next(block for block in receiver.bodies()[0]["blocks"] if block["type"] == "section")
        assert section["text"]["text"] == "&lt;!channel&gt; &amp; &lt;https://evil.example|here&gt;"


class TestTeams(_Web):
    scheme = "teams"

    def test_it_is_an_adaptive_card(self, notifier: Notifier, receiver: Any) -> None:
        notifier.send(notification())
        (card,) = receiver.bodies()[0]["attachments"]
        assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
        assert card["content"]["actions"][0]["url"] == notification().link


class TestLog(NotifierContract):
    @pytest.fixture
    def notifier(self) -> Notifier:
        return resolve("notifiers", "log:")

    @pytest.fixture
    def received(self, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
        caplog.set_level(logging.INFO, "mainspring.notifications")
        return lambda: [record.getMessage() for record in caplog.records]


class _Mails:
    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - its name for aiosmtpd
        if self.answer.startswith("250"):
            self.mails.append(envelope.content)
        return self.answer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


class TestMail(NotifierContract):
    @pytest.fixture
    def mails(self, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        handler = _Mails()

        def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            return AuthResult(handled=False, success=(data.login, data.password) == (b"us", b"p@ss"))

        server = Controller(
            handler, hostname="localhost", port=nowhere(), tls_context=context, require_starttls=True,
            authenticator=known, auth_required=True,
        )  # fmt: skip
        server.start()
        handler.url = f"smtp://us:p%40ss@localhost:{server.port}?from=ml@example.org&to=a@example.org&to=b@example.org"
        yield handler
        server.stop()

    @pytest.fixture
    def notifier(self, mails: Any) -> Notifier:
        return resolve("notifiers", mails.url, private="1")

    @pytest.fixture
    def received(self, mails: Any) -> Callable[[], list[str]]:
        from email import message_from_bytes, policy

        def read() -> list[str]:
            found = [message_from_bytes(mail, policy=policy.default) for mail in mails.mails]
            return ["\n".join(f"{k}: {v}" for k, v in m.items()) + "\n\n" + m.get_content() for m in found]

        return read

    @pytest.fixture
    def failing(self, mails: Any) -> Callable[[str], Notifier]:
        def make(how: str) -> Notifier:
            mails.answer = {"later": "451 later", "never": "550 never"}.get(how, "250 OK")
            away = f"smtp://localhost:{nowhere()}?from=a@example.org&to=b@example.org"
            return resolve("notifiers", away if how == "away" else mails.url, private="1")

        return make

    def test_a_wrong_password_is_not_tried_again(self, mails: Any) -> None:
        with pytest.raises(Refused, match="does not let us in"):
            resolve("notifiers", mails.url.replace("p%40ss", "wrong"), private="1").send(notification())

    def test_a_certificate_of_somebody_else_is_refused(self, mails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(Refused, match="certificate"):
            resolve("notifiers", mails.url, private="1").send(notification())

    @pytest.mark.parametrize(
        "url",
        ["smtp://h", "smtp://h?from=a@b.c", "smtp://?from=a@b.c&to=d@e.f", "smtp://h?from=a@b.c&to=d&starttls=no"],
    )
    def test_addresses_that_cannot_be(self, url: str) -> None:
        with pytest.raises(InvalidInput):
            resolve("notifiers", url)

    def test_private_servers_want_leave(self, mails: Any) -> None:
        with pytest.raises(Refused, match="private address"):
            resolve("notifiers", mails.url).send(notification())
