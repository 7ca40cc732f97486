"""Many models in one process: loaded when they are first asked for, put out when memory is short, told why they fail.

All methods run in the event loop, but `Host.prepare`; only loading happens in threads.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from mainspring.errors import Conflict, InvalidInput, MainspringError, NotFound, Unreachable, unknown_name
from mainspring.ports.target import HostedModel, Route
from mainspring.registry.tensor_runtime import TensorModel
from mainspring.serving.lineup import Lineup
from mainspring.serving.log import Frame

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MODEL_FILES = ("model.onnx", "model.skops", "MLmodel")
_GROWTH = {"model.skops": 1.25}
_OTHER_GROWTH = 7.0
_LEAST = 256 << 10
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

Served = Lineup | TensorModel


class ModelState(msgspec.Struct, frozen=True):
    """What the index says of a model: ``READY``, ``LOADING``, or ``UNAVAILABLE`` and why."""

    name: str
    version: str
    state: str
    reason: str


class _Entry:
    """A model that is known, loaded or not.

    Attributes:
        spec: What it is.
        version: The only version it has; empty when its specification says.
        served: The model, when it is loaded.
        cost: Bytes it is expected to take.
        task: The load in progress, or waiting for room.
        busy: Whether it is in progress.
        reason: Why it is not loaded.
        refused: Whether somebody unloaded it: then it is not loaded by being asked.
        failures: In a row.
        retry: Time before which it is not tried again.
        used: When it was last asked, as a count.
    """

    def __init__(self, spec: HostedModel, version: str = "") -> None:
        self.spec = spec
        self.version = version
        self.served: Served | None = None
        self.cost = 0
        self.task: asyncio.Task[Served] | None = None
        self.busy = False
        self.reason = "not asked for yet"
        self.refused = False
        self.failures = 0
        self.retry = 0.0
        self.used = 0


class Host:
    """The models of a process.

    Args:
        budget: Bytes that loaded models may take together, as `model_cost` counts them.
        folder: A folder of models, each a sub-folder as in `HostedModel.path`; looked at when a name is asked for.
        trusted: Types that original models may be made of beyond scikit-learn's own.
        clock: Seconds, for the pauses after failures.

    Attributes:
        on_failure: Hears of rows that a version of a model failed to score.
    """

    def __init__(
        self,
        *,
        budget: int,
        folder: Path | None = None,
        trusted: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self.on_failure: Callable[[str, Frame], None] = lambda name, frame: None
        self.folder = folder
        self.trusted = tuple(trusted)
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._uses = 0

    # The configuration

    def prepare(self, revision: int, models: Iterable[HostedModel]) -> dict[str, Served]:
        """Loads the pinned models of a configuration, for `commit`; may run in a thread.

        Raises:
            InvalidInput: A model cannot be loaded, has no name of its own, or they need more than the budget.
        """
        pinned: dict[str, Served] = {}
        names: set[str] = set()
        total = 0
        for spec in models:
            if not _NAME.fullmatch(spec.name) or spec.name in names:
                raise InvalidInput(
                    f"`{spec.name}` cannot name a model, or names two", hint="give each a name of its own"
                )
            names.add(spec.name)
            if bool(spec.path) == bool(spec.routes):
                raise InvalidInput(f"model `{spec.name}` needs either `path` or `routes`", hint="give one of them")
            if spec.pinned:
                total += spec_cost(spec, "")
                entry = self._entries.get((spec.name, ""))
                pinned[spec.name] = self._load(spec, "", revision, entry.served if entry else None)
        if total > self.budget:
            raise InvalidInput(f"the pinned models take {total} bytes, the budget is {self.budget}", hint="raise it")
        return pinned

    def commit(self, models: Iterable[HostedModel], pinned: Mapping[str, Served]) -> None:
        """Puts a configuration into force: others than its models, and those of the folder, are forgotten."""
        before, self._entries = self._entries, {}
        for spec in models:
            key = (spec.name, "")
            known = before.get(key)
            entry = known if known and known.spec == spec else _Entry(spec)
            self._entries[key] = entry
            if spec.name in pinned:
                self._loaded(entry, pinned[spec.name])
        if self.folder:
            for key, entry in before.items():
                if (key[0], "") not in self._entries and Path(entry.spec.path) == self.folder / key[0]:
                    self._entries[key] = entry
        self._make_room(0)

    # Being asked

    def ready(self, name: str, version: str = "") -> tuple[Served, str] | None:
        """The model and the version meant, if they are loaded; the quick way."""
        entry = self._entries.get((name, ""))
        if entry is None or entry.served is None:
            return None
        self._uses += 1
        entry.used = self._uses
        if not version:
            return entry.served, ""
        found = _version(entry, version)
        return (entry.served, found) if found is not None else None

    async def get(self, name: str, version: str = "") -> tuple[Served, str]:
        """The model and the version meant, loaded if need be; all who ask meanwhile wait for the same load.

        Raises:
            NotFound: There is no such model or version.
            Unreachable: It was unloaded, cannot be loaded, or failed a moment ago; the message says why.
        """
        entry = self._find(name)
        if version and entry.spec.path and (older := self._older(entry, version)):
            return await self._served(older), ""
        served = await self._served(entry)
        found = _version(entry, version) if version else ""
        if found is None:
            known = served.models if isinstance(served, Lineup) else [address(entry)]
            raise unknown_name("version", version, known, listing=f"GET /v2/models/{name}")
        return served, found

    def answers(self, name: str, version: str = "") -> bool:
        """Whether a request would be answered: it is loaded, or nothing is known that would keep it from being."""
        try:
            entry = self._find(name)
            if version and entry.spec.path:
                entry = self._older(entry, version) or entry
        except NotFound:
            return False
        if entry.served is not None:
            return not version or bool(entry.version) or _version(entry, version) is not None
        return not entry.refused and not entry.failures and (not version or bool(entry.version))

    def index(self) -> list[ModelState]:
        """All models: those of the configuration and of the folder."""
        for path in sorted(self.folder.iterdir()) if self.folder and self.folder.is_dir() else ():
            if _NAME.fullmatch(path.name) and (path.name, "") not in self._entries and _is_model(path):
                self._entries[path.name, ""] = _Entry(HostedModel(name=path.name, path=str(path)))
        states = []
        for entry in self._entries.values():
            state = "READY" if entry.served is not None else "LOADING" if entry.task else "UNAVAILABLE"
            reason = "" if state != "UNAVAILABLE" else entry.reason
            versions = list(entry.served.models) if isinstance(entry.served, Lineup) else [entry.version]
            states += [ModelState(entry.spec.name, version, state, reason) for version in versions]
        return states

    @property
    def used(self) -> int:
        """Bytes that the loaded models, and those being loaded, are expected to take."""
        return sum(entry.cost for entry in self._entries.values())

    # Being told

    async def load(self, name: str) -> None:
        """Loads a model, anew if it is loaded: its folder may have changed. What was there answers until then.

        Raises:
            NotFound: There is no such model.
            MainspringError: It cannot be loaded; what was there stays.
        """
        entry = self._find(name)
        for key in [key for key in self._entries if key[0] == name and key[1]]:
            del self._entries[key]
        entry.retry, entry.refused = 0.0, False
        await self._begin(entry, fresh=True)

    def unload(self, name: str) -> None:
        """Takes a model out of memory; it is loaded again when somebody says so, not when it is asked.

        Raises:
            NotFound: There is no such model.
            Conflict: It is pinned.
        """
        entry = self._find(name)
        if entry.spec.pinned:
            raise Conflict(f"model `{name}` is pinned", hint="change the configuration and reload it")
        for (other, _), one in self._entries.items():
            if other == name:
                self._put_out(one, "it was unloaded")
                one.refused = True

    def _find(self, name: str) -> _Entry:
        entry = self._entries.get((name, ""))
        if entry is None:
            path = self.folder / name if self.folder and _NAME.fullmatch(name) else None
            if path is None or not _is_model(path):
                raise unknown_name(
                    "model", name, [one for one, _ in self._entries], listing="POST /v2/repository/index"
                )
            entry = self._entries[name, ""] = _Entry(HostedModel(name=name, path=str(path)))
        return entry

    def _older(self, entry: _Entry, version: str) -> _Entry | None:
        """The entry of a version of a folder that is not the one which answers."""
        number = version.rpartition("@")[2]
        folder = Path(entry.spec.path)
        numbers = _numbers(folder)
        if not number.isdigit() or int(number) not in numbers or number == str(numbers[-1]):
            return None
        key = (entry.spec.name, number)
        older = self._entries.get(key)
        if older is None:
            older = self._entries[key] = _Entry(entry.spec, number)
            older.refused = entry.refused
        return older

    async def _served(self, entry: _Entry) -> Served:
        self._uses += 1
        entry.used = self._uses
        if entry.served is not None:
            return entry.served
        name = entry.spec.name
        if entry.refused:
            raise Unreachable(f"model `{name}` was unloaded", hint=f"POST /v2/repository/models/{name}/load")
        if entry.task is None and entry.failures and self._clock() < entry.retry:
            raise Unreachable(
                f"model `{name}` cannot be loaded: {entry.reason}",
                hint=f"it is tried again in {entry.retry - self._clock():.0f} s",
            )
        try:
            return await self._begin(entry)
        except MainspringError as error:
            raise Unreachable(f"model `{name}` cannot be loaded: {error.message}", hint=error.hint) from None

    async def _begin(self, entry: _Entry, *, fresh: bool = False) -> Served:
        """Joins the load in progress, or begins one; whoever goes away meanwhile does not end it for the others."""
        if entry.task is None or fresh:
            entry.task = asyncio.get_running_loop().create_task(self._loading(entry))
            entry.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # told to whoever asked
        return await asyncio.shield(entry.task)

    async def _loading(self, entry: _Entry) -> Served:
        task = asyncio.current_task()
        before = entry.cost
        try:
            cost = spec_cost(entry.spec, entry.version)
            await self._reserve(entry, cost, before)
            entry.busy = True
            served = await asyncio.to_thread(self._load, entry.spec, entry.version, 0, None)
        except Exception as error:
            entry.cost = before if entry.served is not None else 0
            entry.reason = error.message if isinstance(error, MainspringError) else f"{type(error).__name__}: {error}"
            entry.failures += 1
            entry.retry = self._clock() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (entry.failures - 1))
            raise
        finally:
            entry.busy = False
            if entry.task is task:
                entry.task = None
        if entry.refused:  # unloaded while it was loading
            self._put_out(entry, "it was unloaded")
        else:
            self._loaded(entry, served)
        return served

    async def _reserve(self, entry: _Entry, cost: int, before: int) -> None:
        """Makes room, or waits for loads that hold it: what they load can be put out as soon as it has answered."""
        while True:
            try:
                self._make_room(cost - before, entry)
            except Unreachable:
                busy = [one.task for one in self._entries.values() if one.task and one.busy]
                if not busy:
                    raise
                await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
            else:
                entry.cost = cost
                return

    def _load(self, spec: HostedModel, version: str, revision: int, before: Served | None) -> Served:
        routes = routes_of(spec, version)
        live = Path(routes[0].path)
        if len(routes) == 1 and not (live / "signature.json").exists() and (live / "model.onnx").exists():
            return TensorModel(live)
        same = before if isinstance(before, Lineup) else None
        return Lineup(
            revision,
            routes,
            same,
            trusted=self.trusted,
            key=spec.key,
            humility=spec.humility,
            outcome_key=spec.outcome_key,
            on_failure=lambda frame: self.on_failure(spec.name, frame),
        )

    def _loaded(self, entry: _Entry, served: Served) -> None:
        entry.served, entry.reason, entry.failures, entry.refused = served, "", 0, False
        entry.cost = entry.cost or spec_cost(entry.spec, entry.version)

    def _make_room(self, size: int, keep: _Entry | None = None) -> None:
        """Puts out what was asked for longest ago until there is room."""
        idle = [one for one in self._entries.values() if one.served is not None and not one.spec.pinned]
        for entry in sorted((one for one in idle if one is not keep), key=lambda one: one.used):
            if self.used + size <= self.budget:
                return
            self._put_out(entry, "it made room for others")
        if self.used + size > self.budget and size > 0:
            raise Unreachable(
                f"there is no room for {size} bytes within the budget of {self.budget}",
                hint="raise `memory_budget`, or pin fewer models",
            )

    @staticmethod
    def _put_out(entry: _Entry, reason: str) -> None:
        # Requests in progress hold it until they are answered.
        entry.served, entry.cost, entry.reason = None, 0, reason


def routes_of(spec: HostedModel, version: str = "") -> tuple[Route, ...]:
    """The versions of a model and their roles.

    Raises:
        NotFound: There is no package where it should be.
    """
    if spec.routes:
        return spec.routes
    folder = Path(spec.path)
    if any((folder / name).exists() for name in _MODEL_FILES):
        return (Route(version=f"{spec.name}@1", path=str(folder)),)
    numbers = _numbers(folder)
    if not numbers:
        raise NotFound(f"no model in {folder}", hint="put model.onnx there, or folders named 1, 2, 3 … with one each")
    number = version or str(numbers[-1])
    return (Route(version=f"{spec.name}@{number}", path=str(folder / number)),)


def spec_cost(spec: HostedModel, version: str) -> int:
    """Bytes that a model is expected to take, all its versions together.

    Raises:
        NotFound: As `routes_of`.
    """
    return sum(model_cost(Path(path)) for path in {route.path for route in routes_of(spec, version)})


def model_cost(folder: Path) -> int:
    """Bytes that a package is expected to take in memory.

    Its files' sizes times the most that was measured: ONNX Runtime needs 1.7 to 6.3 bytes per byte of an ensemble of
    trees, scikit-learn 0.7 to 1.04 per byte of the skops file. Known before it is loaded, unlike the growth of the
    process, in which other threads allocate meanwhile and freed memory hides what is taken.
    """
    if not folder.is_dir():
        return _LEAST
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    if "model.onnx" in sizes:
        sizes.pop("model.skops", None)
    return _LEAST + int(sum(size * _GROWTH.get(name, _OTHER_GROWTH) for name, size in sizes.items()))


def address(entry: _Entry) -> str:
    """The version that an entry of one version has."""
    return routes_of(entry.spec, entry.version)[0].version


def _version(entry: _Entry, version: str) -> str | None:
    """The version meant, "" where there is but one; None when the model has no such version."""
    if isinstance(entry.served, Lineup):
        try:
            return entry.served.version(version)
        except NotFound:
            return None
    known = address(entry)
    return "" if version in (known, known.rpartition("@")[2]) else None


def _numbers(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if name.isdigit() and name == str(int(name)))


def _is_model(folder: Path) -> bool:
    return any((folder / name).exists() for name in _MODEL_FILES) or bool(_numbers(folder))
