"""E-mail through an SMTP server."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote, urlsplit

from mainspring.errors import InvalidInput, Refused, Unreachable
from mainspring.ports.notifier import PRIVATE_HINT, Notification
from mainspring.ports.outbound import TIMEOUT, address_of


class MailNotifier:
    """Sends each notification as a mail.

    Args:
        url: ``smtp://user:${SECRET}@host:587?from=a@example.org&to=b@example.org``; ``smtps://`` begins with TLS,
            ``smtp://`` asks for STARTTLS, which only ``starttls=no`` leaves out (private addresses alone).
        private: Whether private addresses are allowed.
    """

    def __init__(self, url: str, private: bool) -> None:
        parts = urlsplit(url)
        asked = parse_qs(parts.query)
        self._sender = asked.get("from", [""])[0]
        self._to = asked.get("to", [])
        self._host = parts.hostname or ""
        if not self._host or not self._sender or not self._to:
            raise InvalidInput(
                "a mail channel names a host, `from` and `to`",
                hint="smtp://user:${SECRET}@host:587?from=a@example.org&to=b@example.org",
            )
        self._tls = parts.scheme == "smtps"
        self._starttls = not self._tls and asked.get("starttls", ["yes"])[0] != "no"
        if not (self._tls or self._starttls or private):
            raise InvalidInput("mails without TLS go to private addresses only", hint="leave `starttls=no` out")
        self._port = parts.port or (465 if self._tls else 587)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._private = private

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, str]) -> MailNotifier:
        """See the class."""
        return cls(url, options.get("private") == "1")

    def send(self, notification: Notification) -> None:
        """See `Notifier.send`; the mail's Message-ID is made of the notification's id."""
        mail = self._mail(notification)
        place = address_of(self._host, self._port, self._private, PRIVATE_HINT)
        try:
            with self._connected(place) as server:
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(mail)
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError) as error:
            raise Refused(f"{self._host} does not let us in: {error}", hint="check user and secret") from None
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(self._host, max(code for code, _ in error.recipients.values()), "recipients") from None
        except smtplib.SMTPResponseException as error:
            raise _refused(self._host, error.smtp_code, error.smtp_error) from None
        except ssl.SSLCertVerificationError as error:
            raise Refused(f"the certificate of {self._host} is not valid: {error.verify_message}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise Unreachable(f"{self._host} does not answer: {error}", hint="it is tried again") from None

    def _connected(self, place: tuple[str, int]) -> smtplib.SMTP:
        """A session with the address that was checked, whose certificate is that of the name."""
        context = ssl.create_default_context()
        server = smtplib.SMTP_SSL(timeout=TIMEOUT, context=context) if self._tls else smtplib.SMTP(timeout=TIMEOUT)
        server._host = self._host  # type: ignore[attr-defined]  # the name that a certificate is held against
        server.connect(*place)
        if self._starttls:
            server.starttls(context=context)
        return server

    def _mail(self, notification: Notification) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        subject = " ".join(f"[{notification.severity}] {notification.subject}".split())
        mail["Subject"] = subject[:300]
        mail["Date"] = format_datetime(notification.time)
        mail["Message-ID"] = f"<{notification.id}@{self._sender.rpartition('@')[2] or 'mainspring'}>"
        mail["Auto-Submitted"] = "auto-generated"
        buttons = [f"{label}: {url}" for label, url in notification.buttons.items()]
        mail.set_content("\n".join(filter(None, (notification.text, notification.link, *buttons))) or subject)
        return mail


def _refused(host: str, code: int, told: object) -> Refused | Unreachable:
    """4xx asks to come again, 5xx never will."""
    text = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
    kind = Unreachable if 400 <= code < 500 else Refused
    return kind(f"{host} answered {code}: {text}")
