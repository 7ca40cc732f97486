"""Checks Ed25519 signatures with Python alone, for devices that have no cryptography library (RFC 8032, section 5.1).

Only public values are worked with, so it does not matter that the time it takes depends on them. Signing, which does
need care, is left to a library: see `signing`.
"""

from __future__ import annotations

import hashlib

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, x y = T/Z."""
_NEUTRAL: _Point = (0, 1, 1, 0)


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is that of ``message`` by the owner of the public ``key`` (32 bytes)."""
    if len(key) != 32 or len(signature) != 64:
        return False
    owner, point = _unpacked(key), _unpacked(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if owner is None or point is None or scalar >= _ORDER:
        return False
    if _same(_times(8, owner), _NEUTRAL):  # a key of small order, for which anybody can make signatures
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    left = _times(scalar, _BASE)
    right = _sum(point, _times(int.from_bytes(digest, "little") % _ORDER, owner))
    return _same(left, right)


def _sum(p: _Point, q: _Point) -> _Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * p[3] * q[3] * _D % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    total = _NEUTRAL
    while scalar:
        if scalar & 1:
            total = _sum(total, point)
        point = _sum(point, point)
        scalar >>= 1
    return total


def _same(p: _Point, q: _Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % _P == 0 and (p[1] * q[2] - q[1] * p[2]) % _P == 0


def _unpacked(packed: bytes) -> _Point | None:
    """The point whose y and sign of x are packed into 32 bytes; None when there is none."""
    y = int.from_bytes(packed, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


_base = _unpacked((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
assert _base is not None
_BASE = _base
