"""Content codings of bodies: gzip and deflate, unpacked within bounds, packed where it pays."""

from __future__ import annotations

import zlib

from mainspring.errors import InvalidInput
from mainspring.serving.message import too_large
from mainspring.serving.request import Malformed

COMPRESS_FROM = 16 << 10
"""Answers of at least so many bytes are compressed for clients that ask; for less it does not pay."""

_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's names for them: wbits
_FAST = 1


class UnknownCoding(InvalidInput):
    """The body is compressed in a way that the server does not read."""

    code = "unknown_coding"
    status = 415


def decompress(body: bytes, coding: bytes, limit: int) -> bytes:
    """The body behind a Content-Encoding; never more than ``limit`` bytes of it are made.

    Raises:
        UnknownCoding: It is neither gzip nor deflate.
        Malformed: The bytes are not what the coding says, or end early.
        TooLarge: It expands beyond the limit.
    """
    name = coding.strip().lower()
    if name == b"identity":
        return body
    if name in (b"gzip", b"x-gzip"):
        bits = _GZIP
    elif name == b"deflate":
        # The standard's deflate has a zlib header; many clients send none.
        bits = _ZLIB if len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0 else _RAW
    else:
        raise UnknownCoding(
            f"the body's Content-Encoding is `{name.decode('latin-1')[:40]}`", hint="send it as gzip, deflate or as is"
        )
    unpacker = zlib.decompressobj(bits)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise Malformed(f"the body is not {name.decode()}: {error}", hint="send what Content-Encoding says") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed(f"the {name.decode()} body does not end where it should", hint="send it whole")
    return plain


def compress(body: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    """The body in the first coding that the client takes, and the header line that says so; as it is for others."""
    for item in accepted.lower().split(b","):
        name, _, quality = item.strip().partition(b";")
        if name.strip() not in (b"gzip", b"deflate") or _is_zero(quality):
            continue
        packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP if name.strip() == b"gzip" else _ZLIB)
        packed = packer.compress(body) + packer.flush()
        return packed, b"content-encoding: %b\r\nvary: accept-encoding\r\n" % name.strip()
    return body, b""


def _is_zero(quality: bytes) -> bool:
    return quality.replace(b" ", b"").rstrip(b"0") in (b"q=", b"q=0.")
