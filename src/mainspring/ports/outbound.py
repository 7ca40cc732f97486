"""The way out: a POST that goes where it was told to and nowhere else, and the signature that receivers know it by.

No redirects. A name is resolved once, every address it has must be public unless private ones are allowed, and the
connection goes to that very address, so that a name cannot change its mind in between (DNS rebinding). Signatures are
those of the Standard Webhooks specification: ``v1,<base64 of HMAC-SHA256 over "id.timestamp.body">``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from mainspring.errors import InvalidInput, Refused, Unreachable

TIMEOUT = 10.0
_AGAIN = (408, 425, 429)
_MOST_READ = 4096
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HINT = "only public addresses are called"


def check(url: str) -> SplitResult:
    """The parts of an address that can be called.

    Raises:
        InvalidInput: It is no address of the web, or holds a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises when it is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise InvalidInput(
            f"`{url[:100]}` is not a web address that can be called", hint="https://host/path, without a password"
        )
    return parts


def address_of(host: str, port: int, private: bool, hint: str = _HINT) -> tuple[str, int]:
    """The address to connect to, looked up once, so that what was checked is what is called.

    Raises:
        Refused: The name leads to a private, loopback or other local address, and that was not allowed.
        Unreachable: The name is not known.
    """
    try:
        found = [str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"`{host}` is not known: {error}", hint="it is tried again") from None
    if not private and any(not _public(address) for address in found):
        raise Refused(f"`{host}` is at a private address, a machine of this network", hint=hint)
    return found[0], port


def _public(address: str) -> bool:
    known = ipaddress.ip_address(address.partition("%")[0])
    meant: ipaddress.IPv4Address | ipaddress.IPv6Address = known
    if isinstance(known, ipaddress.IPv6Address):  # several ways to write an address of the older kind
        translated = ipaddress.IPv4Address(int(known) & 0xFFFFFFFF) if known in _NAT64 else None
        meant = known.ipv4_mapped or known.sixtofour or (known.teredo or [None])[-1] or translated or known
    return all(item.is_global and not item.is_multicast for item in (known, meant))


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool, hint: str = _HINT) -> int:
    """Sends bytes; the status of the answer, 200 to 299.

    Args:
        url: Where to.
        body: What.
        headers: Beside those of HTTP.
        private: Whether the receiver may be within one's own network.
        hint: How that is allowed.

    Raises:
        Refused: The answer says that it will not be taken, or leads elsewhere, or the address is forbidden.
        Unreachable: There was no answer, or one that asks to come again.
    """
    parts = check(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    place = address_of(host, parts.port or (443 if secure else 80), private, hint)
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
        return status
    said = f"{host} answers {status}" + (f": {told}" if told else "")
    if status >= 500 or status in _AGAIN:
        raise Unreachable(said, hint="it is tried again")
    raise Refused(said, hint="look at the receiver's log")


def signed(secret: str, identity: str, stamp: str, body: bytes) -> str:
    """A body's signature, with its version."""
    digest = hmac.new(secret.encode(), f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
