"""What is deleted can be restored until the trash is emptied; then nothing of it is left, and the rest is untouched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mainspring.client.client import Client
from mainspring.core.clock import ManualClock
from mainspring.core.entity import draft
from mainspring.core.ids import to_hex
from mainspring.errors import Conflict, InvalidInput, NotFound
from mainspring.store.tables import metadata
from mainspring.tracking.model import Experiment, LoggedModel, Point, Run
from mainspring.tracking.store import Input
from mainspring.workspace import Workspace


def logged(workspace: Workspace, experiment: str, content: bytes) -> Run:
    """A run with parameters, tags, a curve, a dataset, and a file of its own."""
    made = workspace.runs.start(draft(Run, experiment=experiment, params={"depth": 3}, tags={"team": "a"}))
    workspace.runs.log(made.name, [Point(key="auc", value=step / 10, step=step) for step in range(5)])
    read = Input("rows", "d1", "local", "{}", None, None, "training", {})
    workspace.runs.journal.add_inputs(made.id, [read], [])
    blob = workspace.artifacts.put(content)
    workspace.runs.add_artifact(made.name, "notes/a.txt", blob.digest, blob.size)
    return workspace.runs.show(made.name)


def mentions(workspace: Workspace, *values: Any) -> set[str]:
    """Tables but the log of events in which a value stands."""
    found = set()
    with workspace.store.engine.connect() as connection:
        for table in metadata.tables.values():
            if table.name == "event":
                continue
            for row in connection.execute(sa.select(table)):
                if any(str(value) == str(cell) or f"run:{value}" == cell for value in values for cell in row):
                    found.add(table.name)
    return found


def test_what_is_emptied_is_gone_with_its_bytes(workspace: Workspace, clock: ManualClock) -> None:
    kept, gone = logged(workspace, "a", b"both"), logged(workspace, "a", b"both")
    alone = workspace.artifacts.put(b"only of the one that goes")
    workspace.runs.add_artifact(gone.name, "big.bin", alone.digest, alone.size)
    before = mentions(workspace, kept.id, kept.name)
    workspace.runs.delete(gone.name)
    assert workspace.trash.empty(days=30) == []
    clock.advance(timedelta(days=31))
    assert [(item.kind, item.name, item.kept) for item in workspace.trash.find()] == [("run", gone.name, "")]
    assert [item.name for item in workspace.trash.empty(days=30, dry_run=True)] == [gone.name]
    assert workspace.runs.show(gone.name).lifecycle == "deleted"
    workspace.runs.restore(gone.name)
    assert workspace.trash.find() == []
    workspace.runs.delete(gone.name)
    assert workspace.trash.find(days=30) == [], "it counts from the last time it was deleted"
    assert [item.name for item in workspace.trash.empty(days=0)] == [gone.name]
    with pytest.raises(NotFound):
        workspace.runs.show(gone.name)
    assert mentions(workspace, gone.id, gone.name) == set()
    with workspace.store.engine.connect() as connection:
        for name in ("metric", "run_metric", "run_param", "run_tag", "dataset_input"):
            numbers = set(connection.execute(sa.select(metadata.tables[name].c.run)).scalars())
            assert numbers == {kept.number}, name
    assert mentions(workspace, kept.id, kept.name) == before
    assert [point.value for point in workspace.runs.history(kept.name, "auc")] == [0.0, 0.1, 0.2, 0.3, 0.4]
    workspace.controller.sweep(older_than=timedelta(days=-1))
    digests = {blob.digest for blob in workspace.artifacts.list()}
    assert alone.digest not in digests
    assert {item.digest for item in workspace.runs.artifacts(kept.name)} <= digests
    assert workspace.store.events(prefix="tracking.run.removed")[-1].subject == gone.name
    workspace.store.verify_events()


def test_an_experiment_goes_with_what_was_in_it(workspace: Workspace) -> None:
    run = logged(workspace, "old", b"x")
    model = workspace.logged.create(draft(LoggedModel, name="net", experiment=run.experiment_number, run=run.id))
    blob = workspace.artifacts.put(b"weights")
    workspace.logged.attach(f"m-{to_hex(model.id)}", "w.bin", blob.digest, blob.size)
    lone = workspace.logged.create(draft(LoggedModel, name="lone"))
    workspace.logged.delete(f"m-{to_hex(lone.id)}")
    workspace.experiments.delete("old")
    told = [(item.kind, item.name) for item in workspace.trash.empty(days=0)]
    assert told == [("run", run.name), ("logged model", f"m-{to_hex(lone.id)}"), ("experiment", "old")]
    assert mentions(workspace, run.id, run.name, model.id, lone.id, blob.digest, "old") == set()
    with pytest.raises(Conflict):
        workspace.experiments.delete("Default")
    workspace.experiments.create(draft(Experiment, name="old"))
    assert workspace.runs.find(experiment="old") == []


def test_what_others_rest_on_stays_and_says_why(mill: Any) -> None:
    mill.register()
    run = mill.train()
    version = mill.workspace.models.propose("mill", run.name)
    source = logged(mill.workspace, "a", b"x")
    mill.workspace.runs.delete(run.name)
    mill.workspace.runs.delete(source.name)
    mill.workspace.models.register("mill", f"runs:/{source.name}/notes")
    told = {item.name: item.kept for item in mill.workspace.trash.empty(days=0)}
    assert "pipeline train made it" in told[run.name]
    assert "mill@2 came from it" in told[source.name]
    assert mill.workspace.runs.show(run.name).lifecycle == "deleted"
    assert mill.workspace.models.version(version.address).run == run.name


def test_over_both_transports(client: Client) -> None:
    run = client.runs.start(draft(Run))
    client.runs.delete(run.name)
    assert [item.name for item in client.trash.find()] == [run.name]
    assert [item.name for item in client.trash.empty(days=0)] == [run.name]
    assert client.trash.find() == []
    for wrong in (-1, 1e9):
        with pytest.raises(InvalidInput, match="days must be"):
            client.trash.empty(days=wrong)
