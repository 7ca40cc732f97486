"""Several workers behind one port: the parent holds the sockets, starts the workers, replaces those that die.

Each worker has a listening socket of its own on the same port, and the kernel deals connections out between them. The
parent keeps all of them open, so connections to a worker that died wait for the one that takes its place.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mainspring.errors import MainspringError
from mainspring.serving.board import Board

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_LOOK_SECONDS = 0.5
_SOON_SECONDS = 0.01
_SHORT_LIFE = 1.0
_LONGEST_PAUSE = 5.0
_END_SECONDS = 12.0


class Workers:
    """The parent; nothing of the model or its libraries is in it.

    Args:
        path: The configuration.
        nonce: What every worker answers as its own.
        listeners: One socket for each worker.
        announce: Told of the revision in force once every worker has it.
    """

    def __init__(
        self, path: Path, nonce: str, listeners: Sequence[socket.socket], announce: Callable[[int], None]
    ) -> None:
        self._path, self._nonce, self._listeners, self._announce = path, nonce, list(listeners), announce
        self._board = Board(len(self._listeners))
        self._pids: dict[int, int] = {}
        self._born: dict[int, float] = {}
        self._due = dict.fromkeys(range(len(self._listeners)), 0.0)
        self._failures = 0
        self._answered = False
        self._asked = self._done = 0

    def run(self) -> int:
        """Runs until SIGTERM.

        Returns:
            The exit code: 0, or that of a worker that could not start.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        code = 0
        while not code:
            self._start_due()
            self._settle()
            quiet = self._answered and not self._due and self._asked == self._done
            got = signal.sigtimedwait(_SIGNALS, _LOOK_SECONDS if quiet else _SOON_SECONDS)
            number = got.si_signo if got else 0
            if number in (signal.SIGTERM, signal.SIGINT):
                break
            if number == signal.SIGHUP:
                self._asked += 1
                self._board.count(self._asked, self._done)
                self._send(signal.SIGHUP)
            code = self._bury()
        self._end()
        return code

    def _start_due(self) -> None:
        for slot in [slot for slot, due in self._due.items() if due <= time.monotonic()]:
            del self._due[slot]
            self._born[slot] = time.monotonic()
            pid = os.fork()
            if not pid:
                os._exit(self._child(slot))
            self._pids[pid] = slot

    def _child(self, slot: int) -> int:
        try:
            for other, listener in enumerate(self._listeners):
                if other != slot:
                    listener.close()
            # Only here: what the model needs is loaded by who needs it.
            from mainspring.serving.worker import Place, run  # noqa: PLC0415

            run(self._path, self._nonce, self._listeners[slot], lambda _: None, Place(self._board, slot, os.getppid()))
        except MainspringError as error:
            sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
            return error.exit_code
        except BaseException as error:  # noqa: BLE001 - a fork must not run its parent's code on
            sys.excepthook(type(error), error, error.__traceback__)
            return 1
        finally:
            sys.stderr.flush()
        return 0

    def _settle(self) -> None:
        """Tells what is in force as soon as every worker says so."""
        if not self._board.ready():
            return
        facts = [self._board.facts(slot) for slot in range(self._board.workers)]
        done = min(change for _, change, _ in facts)
        if not self._answered or (self._done < self._asked <= done):
            self._answered = True
            self._announce(min(revision for _, _, revision in facts))
            self._done = self._asked
            self._board.count(self._asked, self._done)

    def _bury(self) -> int:
        """Sees to workers that have ended; the code of one that could not start at all."""
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            slot = self._pids.pop(pid)
            _, change, revision = self._board.facts(slot)
            self._board.tell(slot, 0, change, revision, None)
            code = os.waitstatus_to_exitcode(status)
            if not self._answered and code > 0:
                return code
            short = time.monotonic() - self._born[slot] < _SHORT_LIFE
            self._failures = self._failures + 1 if short else 0
            pause = min(_LONGEST_PAUSE, 0.1 * 2**self._failures) if short else 0.0
            self._due[slot] = time.monotonic() + pause
            sys.stderr.write(f"worker {pid} ended with code {code}; another takes its place\n")
        return 0

    def _send(self, number: int) -> None:
        for pid in self._pids:
            os.kill(pid, number)  # a child that has ended is ours until it is buried: its id is nobody else's

    def _end(self) -> None:
        """Lets every worker end in order; no connection is made to a socket that nobody reads any more."""
        for listener in self._listeners:
            listener.close()
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while self._pids:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._pids.pop(pid, None)
            elif time.monotonic() > deadline:
                self._send(signal.SIGKILL)
                deadline = float("inf")
            else:
                time.sleep(_SOON_SECONDS)
