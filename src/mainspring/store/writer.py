"""One writer connection per process, shared by its threads, so that many small writes make one commit.

A thread runs its block alone; every block but the first is a savepoint of the shared transaction. When other threads
are waiting for their turn, the block's thread leaves the commit to them and waits for it; the last one commits for all
(group commit). A block that raises loses only its own savepoint. A block opened inside another block of the same
thread joins it.

Writers of all processes take turns, on PostgreSQL too: what a block reads stays true until it ends, and sequence
numbers of events become visible in order, so that a cursor can never skip one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

import sqlalchemy as sa

from mainspring.core.clock import Clock
from mainspring.errors import StoreError
from mainspring.store.driver import Driver
from mainspring.store.transaction import Transaction

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: SQLite's own busy handler takes the turns
    fcntl = None  # type: ignore[assignment]

MAX_BATCH = 64
MAX_BATCH_SECONDS = 0.01
NAPS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.016)
"""Seconds between the first looks whether another process has ended its turn."""
TURN_LOCK = 0x6D61696E
"""Key of the advisory lock by which writers on PostgreSQL take turns; freed by the server when a writer dies."""


class _Batch:
    """One shared database transaction and the blocks that wait for its commit."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.committed = threading.Lock()  # held until it is
        self.committed.acquire()
        self.error: BaseException | None = None
        self.blocks = 0
        self.wrote = False
        self.lost = False
        self.last = False
        self.opened = time.monotonic()

    @property
    def complete(self) -> bool:
        """Whether it takes no further block."""
        return self.blocks >= MAX_BATCH or time.monotonic() - self.opened > MAX_BATCH_SECONDS


class Writer:
    """The process's one way to write.

    Args:
        connect: Opens the connection, in autocommit mode: this class says where transactions begin and end.
        clock: Tells the time of events.
        turn_file: The file whose lock gives a process its turn; None on PostgreSQL, where the server does.
    """

    def __init__(self, connect: Callable[[], sa.Connection], clock: Clock, turn_file: IO[bytes] | None) -> None:
        self._connect = connect
        self._clock = clock
        self._turn_file = turn_file if fcntl is not None else None
        self._connection: sa.Connection | None = None
        self._driver: Driver | None = None
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0
        self._batch: _Batch | None = None
        self._local = threading.local()

    @property
    def current(self) -> Transaction | None:
        """The transaction of the block this thread is in, if any: reads inside it see its changes."""
        return getattr(self._local, "transaction", None)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A block whose changes are all stored, durably, when it ends, or none of them when it raises."""
        if (outer := self.current) is not None:
            if getattr(self._local, "joined", False):
                yield outer
                return
            with _savepoint(outer):
                yield outer
            return
        self._take_turn()
        try:
            batch = self._batch or self._open()
            self._local.transaction = batch.transaction
            try:
                with self._block(batch):
                    yield batch.transaction
            finally:
                self._local.transaction = None
                if batch.last:
                    self._close(batch)
        finally:
            self._turn.release()
        with batch.committed:
            pass
        if batch.error is not None:
            raise batch.error

    @contextlib.contextmanager
    def together(self) -> Iterator[Transaction]:
        """A block that the blocks inside it become one with: when one of them fails, this one must, too."""
        with self.transaction() as transaction:
            self._local.joined = True
            try:
                yield transaction
            finally:
                self._local.joined = False

    def close(self) -> None:
        """Gives the connection back; the next transaction opens it anew."""
        with self._turn:
            self._drop_connection()

    def _take_turn(self) -> None:
        with self._count:
            self._waiting += 1
        try:
            self._turn.acquire()
        except BaseException:  # interrupted while others may count on this thread to commit for them
            with self._count:
                self._waiting -= 1
            with self._turn:
                if self._batch is not None and self._waiting == 0:
                    self._close(self._batch)
            raise
        with self._count:
            self._waiting -= 1

    @contextlib.contextmanager
    def _block(self, batch: _Batch) -> Iterator[None]:
        batch.blocks += 1
        try:
            if batch.blocks == 1:  # nothing to preserve: when it fails, the whole transaction is rolled back
                yield
                batch.last = self._waiting == 0 or batch.complete
                if not batch.last:  # what fails is this block's; otherwise it goes with the commit
                    batch.transaction.driver.settle()
            else:
                with _savepoint(batch.transaction):
                    yield
                batch.last = self._waiting == 0 or batch.complete
            batch.wrote = True
        except _TransactionLost as lost:
            batch.last = batch.lost = True
            raise lost.error from lost.error.__cause__
        except BaseException:
            batch.last = batch.blocks == 1 or self._waiting == 0 or batch.complete
            raise

    def _open(self) -> _Batch:
        self._await_turn()
        try:
            if self._connection is None or self._driver is None:
                self._connection = self._connect()
                self._driver = Driver.of(self._connection.connection, self._connection.dialect.name)
            self._driver.begin(TURN_LOCK)
        except BaseException:
            self._drop_connection()
            self._pass_turn()
            raise
        self._batch = _Batch(Transaction(self._connection, self._driver, self._clock))
        return self._batch

    def _close(self, batch: _Batch) -> None:
        self._batch = None
        try:
            if batch.lost:
                raise StoreError(
                    "the database ended the transaction and stored nothing of it", hint="repeat the command"
                )
            batch.transaction.driver.control("COMMIT" if batch.wrote else "ROLLBACK")
        except BaseException as error:  # noqa: BLE001 - every block of the batch must hear of it
            batch.error = error
            self._drop_connection()
        finally:
            self._pass_turn()
            batch.committed.release()

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.invalidate()
            with contextlib.suppress(Exception):
                self._connection.close()
            with contextlib.suppress(Exception):  # what cut this one cut those that wait in the pool, too
                self._connection.engine.dispose()
            self._connection = self._driver = None

    def _await_turn(self) -> None:
        """Waits until no other process writes; the kernel passes the turn on when a writer dies.

        Short naps come first, because waking every waiter for each write of another costs more than the write; then
        the kernel's queue, so that nobody starves.
        """
        if self._turn_file is None:
            return
        for nap in NAPS:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._turn_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(nap)
        fcntl.flock(self._turn_file, fcntl.LOCK_EX)

    def _pass_turn(self) -> None:
        if self._turn_file is not None:
            fcntl.flock(self._turn_file, fcntl.LOCK_UN)


class _TransactionLost(Exception):
    """The database ended the shared transaction on its own, with everything in it: disk full, connection lost."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def _savepoint(transaction: Transaction) -> Iterator[None]:
    control = transaction.driver.control
    try:
        control("SAVEPOINT block")
        yield
        control("RELEASE SAVEPOINT block")
    except _TransactionLost:
        raise
    except BaseException as error:
        transaction.forget_head()
        try:
            control("ROLLBACK TO SAVEPOINT block")
            control("RELEASE SAVEPOINT block")
        except Exception:  # noqa: BLE001 - however it says so, there is no savepoint any more
            raise _TransactionLost(error) from None
        raise
