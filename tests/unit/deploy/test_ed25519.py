"""The pure check of signatures agrees with the library that makes them."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.deploy.edge.ed25519 import is_signed

SEED = st.binary(min_size=32, max_size=32)


@given(SEED, st.binary(max_size=200))
@settings(max_examples=30, deadline=None)
def test_what_the_owner_signed_is_signed(seed: bytes, message: bytes) -> None:
    owner = Ed25519PrivateKey.from_private_bytes(seed)
    assert is_signed(owner.public_key().public_bytes_raw(), message, owner.sign(message))


@given(SEED, st.binary(max_size=50), st.integers(0, 63), st.integers(1, 255), st.sampled_from(["key", "text", "sign"]))
@settings(max_examples=60, deadline=None)
def test_whatever_is_changed_is_found(seed: bytes, message: bytes, place: int, change: int, what: str) -> None:
    owner = Ed25519PrivateKey.from_private_bytes(seed)
    parts = {"key": owner.public_key().public_bytes_raw(), "text": message + b"!", "sign": owner.sign(message + b"!")}
    changed = bytearray(parts[what])
    changed[place % len(changed)] ^= change
    parts[what] = bytes(changed)
    assert is_signed(parts["key"], parts["text"], parts["sign"]) is _known(parts) is False


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=20), st.binary(min_size=64, max_size=64))
@settings(max_examples=60, deadline=None)
def test_noise_is_never_a_signature(key: bytes, message: bytes, signature: bytes) -> None:
    assert not is_signed(key, message, signature)


def test_wrong_lengths_are_no_signature() -> None:
    assert not is_signed(b"", b"", b"")
    assert not is_signed(bytes(31), b"", bytes(64))
    assert not is_signed(bytes(32), b"", bytes(63))


def _known(parts: dict[str, bytes]) -> bool:
    """The library's opinion."""
    try:
        Ed25519PublicKey.from_public_bytes(parts["key"]).verify(parts["sign"], parts["text"])
    except (InvalidSignature, ValueError):
        return False
    return True
