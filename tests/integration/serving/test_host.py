from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mainspring.errors import Conflict, InvalidInput, NotFound, Unreachable
from mainspring.registry.tensor_runtime import TensorModel
from mainspring.serving import host as module
from mainspring.serving.host import Host, HostedModel, model_cost
from mainspring.serving.lineup import Lineup
from mainspring.serving.request import Batch
from mainspring.testing.models import write_identity, write_product

MIB = 1 << 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_product(tmp_path / "one", factor=1)
    for version in (1, 2, 10):
        write_product(tmp_path / "many" / str(version), factor=version)
    write_identity(tmp_path / "identity")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.onnx").write_bytes(b"no model")
    (tmp_path / "nothing").mkdir()
    return tmp_path


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


def score(served: Any, version: str = "") -> float:
    batch = Batch({f"c{place}": [1.0] for place in range(3)}, 1)
    return float(served.score(batch, version).scores[0])


def test_models_are_loaded_when_asked_for(folder: Path) -> None:
    host = Host(budget=64 * MIB, folder=folder)

    async def work() -> None:
        assert host.ready("one") is None
        assert host.answers("one")
        served, version = await host.get("one")
        assert (host.ready("one"), version) == ((served, ""), "")
        assert score(served) == 3
        assert isinstance((await host.get("identity", "1"))[0], TensorModel)
        with pytest.raises(NotFound):
            await host.get("identity", "2")
        for name in ("nobody", "nothing", "..", "../one", ""):
            with pytest.raises(NotFound):
                await host.get(name)
            assert not host.answers(name)

    run(work)


def test_highest_version_answers_and_older_ones_can_be_asked(folder: Path) -> None:
    host = Host(budget=64 * MIB, folder=folder)

    async def work() -> None:
        assert score((await host.get("many"))[0]) == 30
        for version in ("2", "many@2"):
            served, inner = await host.get("many", version)
            assert score(served, inner) == 6
        assert score(*await host.get("many", "10")) == 30
        with pytest.raises(NotFound):
            await host.get("many", "3")
        assert {(one.version, one.state) for one in host.index() if one.name == "many"} == {
            ("many@10", "READY"),
            ("many@2", "READY"),
        }

    run(work)


def test_who_asks_at_once_waits_for_one_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    lineup = Lineup

    def counted(*args: Any, **facts: Any) -> Lineup:
        loads.append(args)
        return lineup(*args, **facts)

    monkeypatch.setattr(
        module, "Lineup", type("Counted", (Lineup,), {"__new__": lambda cls, *a, **f: counted(*a, **f)})
    )
    host = Host(budget=64 * MIB, folder=folder)

    async def work() -> None:
        gone = asyncio.ensure_future(host.get("one"))
        asked = [asyncio.ensure_future(host.get("one")) for _ in range(20)]
        await asyncio.sleep(0)
        gone.cancel()
        assert len({id((await one)[0]) for one in asked}) == 1

    run(work)
    assert len(loads) == 1


def test_budget_puts_out_what_was_asked_longest_ago(folder: Path) -> None:
    cost = model_cost(folder / "one")
    host = Host(budget=2 * cost + cost // 2, folder=folder)
    pinned = [HostedModel(name="pinned", path=str(folder / "one"), pinned=True)]
    host.commit(pinned, host.prepare(1, pinned))

    async def work() -> None:
        held, _ = await host.get("one")
        await host.get("many")
        assert host.ready("one") is None
        assert host.used <= host.budget
        assert score(held) == 3  # who holds it goes on
        assert host.ready("pinned") is not None
        await host.get("one")
        assert (host.ready("many"), host.used <= host.budget) == (None, True)
        reasons = {one.name: one.reason for one in host.index()}
        assert reasons["many"] == "it made room for others"

    run(work)


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    cost = model_cost(folder / "one")
    host = Host(budget=cost + cost // 2, folder=folder)
    pinned = [HostedModel(name="pinned", path=str(folder / "one"), pinned=True)]
    host.commit(pinned, host.prepare(1, pinned))

    async def work() -> None:
        with pytest.raises(Unreachable, match="no room"):
            await host.get("many")
        assert host.ready("pinned") is not None
        assert host.used == cost

    run(work)
    with pytest.raises(InvalidInput, match="budget"):
        host.prepare(2, [*pinned, HostedModel(name="more", path=str(folder / "one"), pinned=True)])


def test_failure_is_told_and_tried_again_after_a_pause(folder: Path) -> None:
    clock = Clock()
    host = Host(budget=64 * MIB, folder=folder, clock=clock)

    async def work() -> None:
        for said in ("is not loadable", "is not loadable"):
            with pytest.raises(Unreachable, match=said):
                await host.get("broken")
        assert not host.answers("broken")
        assert "not loadable" in next(one.reason for one in host.index() if one.name == "broken")
        write_product(folder / "broken")
        with pytest.raises(Unreachable):
            await host.get("broken")
        clock.now = 1.5
        assert score((await host.get("broken"))[0]) == 3
        assert host.answers("broken")

    run(work)


def test_load_and_unload(folder: Path) -> None:
    host = Host(budget=64 * MIB, folder=folder)

    async def work() -> None:
        await host.get("one")
        write_product(folder / "one", factor=5)
        assert score((await host.get("one"))[0]) == 3
        await host.load("one")
        assert score((await host.get("one"))[0]) == 15
        (folder / "one" / "model.onnx").write_bytes(b"")
        with pytest.raises(InvalidInput):
            await host.load("one")
        assert score((await host.get("one"))[0]) == 15
        host.unload("one")
        assert not host.answers("one")
        assert host.used == 0
        with pytest.raises(Unreachable, match="was unloaded"):
            await host.get("one")
        write_product(folder / "one", factor=2)
        await host.load("one")
        assert score((await host.get("one"))[0]) == 6
        with pytest.raises(NotFound):
            host.unload("nobody")

    run(work)


def test_unload_while_loading(folder: Path) -> None:
    host = Host(budget=64 * MIB, folder=folder)

    async def work() -> None:
        asked = asyncio.ensure_future(host.get("one"))
        await asyncio.sleep(0)
        host.unload("one")
        await asyncio.wait([asked])
        assert host.ready("one") is None
        assert host.used == 0

    run(work)


def test_pinned_models_stay(folder: Path) -> None:
    pinned = [HostedModel(name="pinned", path=str(folder / "one"), pinned=True)]
    host = Host(budget=64 * MIB)
    host.commit(pinned, host.prepare(1, pinned))
    with pytest.raises(Conflict):
        host.unload("pinned")
    for bad in (
        [HostedModel(name="../x", path="a")],
        [HostedModel(name="a")],
        [HostedModel(name="a", path="a"), HostedModel(name="a", path="b")],
        [HostedModel(name="a", path=str(folder / "broken"), pinned=True)],
    ):
        with pytest.raises(InvalidInput):
            host.prepare(2, bad)
    assert host.ready("pinned") is not None


def test_new_configuration_keeps_what_it_still_names(folder: Path) -> None:
    host = Host(budget=64 * MIB, folder=folder)
    one, two = HostedModel(name="a", path=str(folder / "one")), HostedModel(name="b", path=str(folder / "one"))

    async def work() -> None:
        host.commit([one, two], {})
        kept, _ = await host.get("a")
        await host.get("b")
        await host.get("many")
        host.commit([one], {})
        assert host.ready("a") == (kept, "")
        assert host.ready("many") is not None
        with pytest.raises(NotFound):
            await host.get("b")

    run(work)


def test_two_hundred_models_within_a_small_budget(tmp_path: Path) -> None:
    write_product(tmp_path / "m0")
    for number in range(1, 200):
        shutil.copytree(tmp_path / "m0", tmp_path / f"m{number}")
    cost = model_cost(tmp_path / "m0")
    host = Host(budget=20 * cost, folder=tmp_path)

    async def ask(number: int) -> None:
        served, _ = await host.get(f"m{number % 200}")
        assert score(served) == 3
        assert host.used <= host.budget

    async def work() -> None:
        for start in range(0, 400, 40):
            await asyncio.gather(*(ask(number) for number in range(start, start + 40)))
        states = [one.state for one in host.index()]
        assert len(states) == 200
        assert states.count("READY") == 20

    run(work)
