"""A POST that goes where it was told to and nowhere else: no redirects, no private addresses unless allowed."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from mainspring.errors import InvalidInput, Refused, Unreachable

TIMEOUT = 10.0
_AGAIN = (408, 425, 429)
_MOST_READ = 4096


def address_of(host: str, port: int, private: bool) -> tuple[str, int]:
    """The address to connect to, looked up once, so that what was checked is what is called.

    Raises:
        Refused: The name leads to a private, loopback or other local address, and that was not allowed.
        Unreachable: The name is not known.
    """
    try:
        found = [str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"`{host}` is not known: {error}", hint="check the channel's address") from None
    if not private and any(not ipaddress.ip_address(item.partition("%")[0]).is_global for item in found):
        raise Refused(
            f"`{host}` is at a private address",
            hint="if that is meant: mainspring notifications update NAME --private true",
        )
    return found[0], port


def check(url: str) -> None:
    """Raises `InvalidInput` when an address is no address of the web."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("a web address begins with https:// and names a host", hint="https://example.org/hook")


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> None:
    """Sends bytes; anything but an answer of 200 to 299 is an error.

    Raises:
        Refused: The answer says that it will not be taken, or leads elsewhere, or the address is forbidden.
        Unreachable: There was no answer, or one that asks to come again.
    """
    check(url)
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    place = address_of(host, parts.port or (443 if secure else 80), private)
    connection = http.client.HTTPConnection(host, place[1], timeout=TIMEOUT)
    try:
        stream = socket.create_connection(place, timeout=TIMEOUT)
        # The certificate is that of the name, although the connection goes to the address that was checked.
        connection.sock = ssl.create_default_context().wrap_socket(stream, server_hostname=host) if secure else stream
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {"user-agent": "mainspring", **headers})
        answer = connection.getresponse()
        told = answer.read(_MOST_READ)[:200].decode(errors="replace").strip()
        status = answer.status
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"the certificate of {host} is not valid: {error.verify_message}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{host} does not answer: {error}", hint="it is tried again") from None
    finally:
        connection.close()
    if 200 <= status < 300:
        return
    if status >= 500 or status in _AGAIN:
        raise Unreachable(f"{host} answered {status}: {told}", hint="it is tried again")
    raise Refused(f"{host} answered {status}: {told}", hint="check the channel's address and secret")
