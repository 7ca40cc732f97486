"""A worker process: takes tasks from standard input, writes results to the file descriptor it was given.

It ends with the process that started it, also in the middle of a task, so that no two do the same work.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from typing import IO

import msgspec

from mainspring.ports.executor import Result, Task

_LOOK_SECONDS = 0.2


def carry_out(task: Task) -> Result:
    """Runs a task's function in this process."""
    if task.path and task.path not in sys.path:
        sys.path.insert(0, task.path)
    module, _, name = task.entry.partition(":")
    try:
        return Result(id=task.id, status="done", payload=getattr(import_module(module), name)(task.payload))
    except Exception:  # noqa: BLE001 - the entry reports its own failures; whatever comes here is told, not swallowed
        return Result(id=task.id, status="broken", error=traceback.format_exc())


def write_message(stream: IO[bytes], content: bytes) -> None:
    """Writes a length (8 bytes) and the content."""
    stream.write(len(content).to_bytes(8) + content)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """The next message, None at the end of the stream."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head)
    content = stream.read(size)
    return content if len(content) == size else None


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def main() -> None:
    """Serves tasks until the input ends."""
    threading.Thread(target=_end_with, args=[int(sys.argv[2])], daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides what ends
    os.dup2(2, 1)  # what programs called by a step print must not mix with the output of the command that runs it
    answers = os.fdopen(int(sys.argv[1]), "wb")
    os.set_inheritable(answers.fileno(), False)
    tasks = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # a step that reads standard input must not eat tasks
    while (message := read_message(tasks)) is not None:
        result = carry_out(msgspec.msgpack.decode(message, type=Task))
        write_message(answers, msgspec.msgpack.encode(result))


if __name__ == "__main__":
    main()
