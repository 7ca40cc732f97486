"""Identities: time-ordered ids for machines, names that people can say."""

from __future__ import annotations

import hashlib
import os
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u

ALPHABET = frozenset(_ALPHABET)
ID_LENGTH = 26
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_DIGITS = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # as Python spells numbers of base 32
_HEX = frozenset("0123456789abcdef")

_ADJECTIVES = (  # noqa: SIM905 - words read best as words
    "able amber bold brave brief bright brisk calm candid civil clear clever cosy crisp daring deft eager early even "
    "fair firm fond frank free fresh gentle glad grand handy happy hardy ideal jolly keen kind lively lucid lucky "
    "merry mild modest neat noble open patient plain plucky polite proud quick quiet ready sharp sleek smart snug "
    "solid spry steady stout sunny swift tidy trusty vivid warm wise witty young zesty"
).split()
_ANIMALS = (  # noqa: SIM905
    "badger bear beaver bison bream condor crane crow deer dove duck eagle egret elk falcon ferret finch fox gecko "
    "goose gull hare hawk heron ibex ibis jackal jay kite koala lark lemur lion llama lynx marten mole moose moth "
    "mouse newt ocelot orca otter owl panda perch pike plover puffin quail rabbit raven robin salmon seal shrew "
    "skua snipe stoat stork swan swift tapir tern tiger toad trout turtle viper walrus weasel whale wolf wren yak zebra"
).split()


_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A 26-character id that sorts by creation time: 48 bits of milliseconds, then 80 random ones.

    Within a process each id is greater than the one before, also in the same millisecond.
    """
    global _last
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    with _lock:
        _last = number = number if number >> 80 > _last >> 80 else _last + 1
    return _spelled(number)


def to_hex(name: str) -> str:
    """An id of `new_id` as the 32 hexadecimal digits that other systems know a run by: the same 128 bits."""
    return f"{int(name.translate(_DIGITS), 32):032x}"


def from_hex(digits: str) -> str:
    """The id whose 128 bits are these 32 hexadecimal digits; empty when they are no such digits."""
    if len(digits) != 32 or not _HEX.issuperset(digits):
        return ""
    return _spelled(int(digits, 16))


def _spelled(number: int) -> str:
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def spoken_name(seed: str) -> str:
    """A name that can be said aloud, such as ``calm-otter-12``; the same seed gives the same name.

    There are about 400,000 of them, so the caller must still check that a name is free.
    """
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    number, animal = divmod(number, len(_ANIMALS))
    number, adjective = divmod(number, len(_ADJECTIVES))
    return f"{_ADJECTIVES[adjective]}-{_ANIMALS[animal]}-{number % 100}"


def point(name: str) -> int:
    """The place of a name on the line from 0 to 2**64, uniform over names and the same everywhere."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
