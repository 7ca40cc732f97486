"""What the workers of one deployment tell each other: a slot for each in shared memory, and two counters of changes.

Nothing is locked: each field has one writer, and what a slot says is checked by its sum before it is believed.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator

import msgspec

from mainspring.serving.metrics import Snapshot

_HEAD = struct.Struct("<QQ")  # changes asked for; changes in force everywhere
_FACTS = struct.Struct("<QQQII")  # process id once ready; change in force; revision; length and sum of the snapshot
_SLOT = 1 << 18
_decoder = msgspec.msgpack.Decoder(Snapshot)


class Board:
    """Made by the parent before it forks.

    Args:
        workers: How many slots.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, _HEAD.size + workers * _SLOT)

    @property
    def asked(self) -> int:
        """How many changes of the configuration were asked for; the parent counts."""
        return int(_HEAD.unpack_from(self._memory)[0])

    @property
    def done(self) -> int:
        """The last change that every worker has dealt with; the parent says so."""
        return int(_HEAD.unpack_from(self._memory)[1])

    def count(self, asked: int, done: int) -> None:
        """Writes both counters."""
        _HEAD.pack_into(self._memory, 0, asked, done)

    def tell(self, slot: int, pid: int, change: int, revision: int, snapshot: Snapshot | None) -> None:
        """Writes a slot; a snapshot that is left out stays as it was."""
        place = _HEAD.size + slot * _SLOT
        _, _, _, length, check = _FACTS.unpack_from(self._memory, place)
        if snapshot is not None:
            told = msgspec.msgpack.encode(snapshot)
            if len(told) <= _SLOT - _FACTS.size:
                start = place + _FACTS.size
                self._memory[start : start + len(told)] = told
                length, check = len(told), zlib.crc32(told)
        _FACTS.pack_into(self._memory, place, pid, change, revision, length, check)

    def facts(self, slot: int) -> tuple[int, int, int]:
        """Process id of a worker (0 until it answers), the change that it has dealt with, the revision in force."""
        pid, change, revision, _, _ = _FACTS.unpack_from(self._memory, _HEAD.size + slot * _SLOT)
        return int(pid), int(change), int(revision)

    def ready(self) -> bool:
        """Whether every worker answers."""
        return all(self.facts(slot)[0] for slot in range(self.workers))

    def snapshot(self, slot: int) -> Snapshot | None:
        """What a worker counted; of one that died, what it had told. None when it has told nothing."""
        place = _HEAD.size + slot * _SLOT
        for _ in range(100):  # it may just be writing
            _, _, _, length, check = _FACTS.unpack_from(self._memory, place)
            told = self._memory[place + _FACTS.size : place + _FACTS.size + length]
            if length and zlib.crc32(told) == check:
                return _decoder.decode(told)
        return None

    def others(self, slot: int) -> Iterator[Snapshot]:
        """What all but one have counted."""
        for other in range(self.workers):
            if other != slot and (told := self.snapshot(other)):
                yield told
