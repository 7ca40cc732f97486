"""What MLflow has kept comes here as it was, from each kind of store, and can be taken back."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import ViewType

from mainspring.core.ids import from_hex
from mainspring.errors import InvalidInput, MainspringError
from mainspring.interop.mlflow.moving.exporting import Exporting
from mainspring.interop.mlflow.moving.importing import Importing, survey
from mainspring.interop.mlflow.moving.local import WorkspaceSource
from mainspring.interop.mlflow.moving.opening import open_source
from mainspring.interop.mlflow.moving.report import Report
from mainspring.ports.artifacts import digest_of
from mainspring.settings import load_settings
from mainspring.tracking.carried import Carried
from mainspring.tracking.model import Run, RunArtifact
from mainspring.tracking.rules import finite
from mainspring.workspace import Workspace

from .conftest import Server
from .filled import POINTS, Filled, fill

COMMAND = [str(Path(sys.executable).with_name("mainspring")), "import", "mlflow"]
KINDS = ["sqlite", "folder", "server"]


def bring(workspace: Workspace, address: str, **options: Any) -> Report:
    source = open_source(address, options.pop("artifacts", None))
    try:
        report = Report(source.name, "")
        return Importing(workspace.rooms(), source, report, lambda _: None).all(**options)
    finally:
        source.close()


def counts(report: Report) -> dict[str, tuple[int, int, int]]:
    return {row["kind"]: (row["carried"], row["same"], row["left"]) for row in report.rows()}


def _database(server: str) -> str:
    """The address of an empty database for MLflow's own tables."""
    address = sa.make_url(server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE theirs")
    engine.dispose()
    return address.set(database="theirs").render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def stores(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Filled]]:
    """A filled store of each kind: databases, a folder, a server."""
    made: dict[str, Filled] = {}
    servers: list[Server] = []
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

    def store(kind: str) -> Filled:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            if kind == "server":
                servers.append(Server(folder / "project", f"sqlite:///{folder / 'ours.db'}"))
                made[kind] = fill(servers[-1].url, None)
            else:
                before = Path.cwd()
                os.chdir(folder)
                uri = f"sqlite:///{folder / 'mlflow.db'}" if kind == "sqlite" else str(folder / "mlruns")
                if kind == "postgresql":
                    uri = _database(request.getfixturevalue("postgres_server"))
                made[kind] = fill(uri, None if kind == "folder" else folder / "files")
                if kind == "postgresql":  # a server that is elsewhere has no folder beside it
                    made[kind] = made[kind]._replace(artifacts=str(folder / "files"))
                os.chdir(before)
        return made[kind]

    yield store
    del os.environ["MLFLOW_ALLOW_FILE_STORE"]
    for server in servers:
        server.close()


def _value(value: float) -> str:
    """A number; a folder has infinities, which a database has as the largest number."""
    return repr(finite(value))


def told(client: MlflowClient, filled: Filled, folder: Path) -> dict[str, Any]:
    """Everything that a client sees of a store, in a form that compares."""
    seen: dict[str, Any] = {}
    mlflow.set_tracking_uri(client.tracking_uri)
    names = {item.experiment_id: item.name for item in client.search_experiments(ViewType.ALL)}
    for item in client.search_experiments(ViewType.ALL):
        seen[item.name] = (item.lifecycle_stage, item.tags, item.creation_time if item.name != "Default" else 0)
    for found in client.search_runs(list(names), run_view_type=ViewType.ALL):
        run = client.get_run(found.info.run_id)  # a search on MLflow's database leaves models out that were read
        info, data, name = run.info, run.data, run.info.run_id
        curves = {
            key: sorted((p.timestamp, p.step, _value(p.value)) for p in client.get_metric_history(name, key))
            for key in data.metrics
        }
        place = Path(client.download_artifacts(name, "", str(folder)))
        files = {path.relative_to(place).as_posix(): path.read_text() for path in place.rglob("*") if path.is_file()}
        for path in place.rglob("*"):
            if path.is_file():
                path.unlink()
        read = [(i.dataset.to_dictionary(), [(t.key, t.value) for t in i.tags]) for i in run.inputs.dataset_inputs]
        seen[name] = {
            "experiment": names[info.experiment_id], "title": info.run_name, "status": info.status,
            "times": (info.start_time, info.end_time), "stage": info.lifecycle_stage, "params": data.params,
            "tags": data.tags, "curves": curves, "files": files, "read": read,
            "last": {key: _value(value) for key, value in data.metrics.items()},
            "models": ([m.model_id for m in run.inputs.model_inputs],
                       [(m.model_id, m.step) for m in run.outputs.model_outputs] if run.outputs else []),
        }  # fmt: skip
    model = client.get_logged_model(filled.model)
    seen["logged"] = (
        model.name, model.model_type, model.source_run_id, model.status, model.params, model.tags,
        [(m.key, m.value, m.timestamp, m.step, m.dataset_name, m.run_id) for m in model.metrics],
        model.creation_timestamp,
    )  # fmt: skip
    for item in client.search_registered_models():
        aliases = {alias: str(number) for alias, number in item.aliases.items()}
        seen[f"model {item.name}"] = (item.description or "", item.tags, aliases, item.creation_timestamp)
    for item in client.search_model_versions("name = 'churn'"):
        seen[f"churn/{item.version}"] = (
            item.current_stage, item.description or "", item.tags, item.run_id, item.creation_timestamp
        )  # fmt: skip
    trace = client.get_trace(filled.trace)
    spans = trace.data.spans
    assert len(spans) == 2
    seen["trace"] = (
        trace.info.state, trace.info.request_time, trace.info.execution_duration or 0, trace.info.request_preview,
        trace.info.response_preview, trace.info.tags["who"], trace.info.trace_metadata["mlflow.sourceRun"],
        [(span.name, span.start_time_ns, span.end_time_ns, span.attributes, span.parent_id) for span in spans],
        [(item.name, item.value, item.rationale, item.source) for item in trace.info.assessments],
    )  # fmt: skip
    mlflow.set_tracking_uri("")
    return seen


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("postgresql", marks=pytest.mark.storm)])
def test_a_client_sees_here_what_it_saw_there(kind: str, stores: Callable[[str], Filled], tmp_path: Path) -> None:
    filled = stores(kind)
    beside = ["--artifacts", filled.artifacts] if filled.artifacts else []
    lone = Server(tmp_path / "project", f"sqlite:///{tmp_path / 'new.db'}")
    try:
        done = subprocess.run(
            [*COMMAND, filled.uri, "--project", lone.folder, "--json", *beside],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        report = json.loads(done.stdout)
        assert [item for item in report["left"] if item["kind"] != "experiments"] == []
        assert report["counts"]["points"]["carried"] == 3 * (POINTS + 4) + 1
        there = told(MlflowClient(filled.uri), filled, tmp_path / "there")
        here = told(MlflowClient(lone.url), filled, tmp_path / "here")
        for name, thing in there.items():
            if kind == "folder" and isinstance(thing, dict):
                # MLflow loses sight of what it has moved to its trash, and NaN is greater than infinity to its folders.
                thing["files"] = thing["files"] or {"old.txt": "old"}
                thing["last"] = here[name]["last"]
                if "auc" in thing["curves"]:  # nor do they tell the step of a metric that belongs to a dataset
                    thing["curves"]["auc"] = [(1_700_000_000_009, 1, "0.9")]
            assert here[name] == thing, name
        assert here.keys() == there.keys()
        loaded = MlflowClient(lone.url).get_model_version_by_alias("churn", "live")
        assert loaded.version == "3"
        assert loaded.source == f"models:/{filled.model}"
    finally:
        lone.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_import_changes_nothing(kind: str, stores: Callable[[str], Filled], workspace: Workspace) -> None:
    filled = stores(kind)
    first = counts(bring(workspace, filled.uri))
    assert first["runs"] == (4, 0, 0)
    assert first["versions"] == (2, 0, 0)
    before = len(workspace.store.events(limit=10_000))
    again = counts(bring(workspace, filled.uri))
    assert {kind: (carried, left) for kind, (carried, _, left) in again.items()} == dict.fromkeys(again, (0, 0))
    assert again["files"] == (0, first["files"][0], 0)
    assert len(workspace.store.events(limit=10_000)) == before
    workspace.store.verify_events()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_counts_and_writes_nothing(kind: str, stores: Callable[[str], Filled]) -> None:
    source = open_source(stores(kind).uri)
    rows = {row["kind"]: row["found"] for row in survey(source, Report(source.name, "")).rows()}
    source.close()
    assert rows == {"experiments": 3, "runs": 4, "logged models": 1, "models": 2, "versions": 2, "traces": 1}


def test_some_experiments_bring_the_versions_of_their_runs(
    stores: Callable[[str], Filled], sqlite_workspace: Workspace
) -> None:
    found = counts(bring(sqlite_workspace, stores("folder").uri, experiments=["old"]))
    assert found["runs"] == (1, 0, 0)
    assert "versions" not in found
    found = counts(bring(sqlite_workspace, stores("folder").uri, experiments=["churn"]))
    assert (found["runs"], found["versions"], found["models"]) == ((3, 0, 0), (2, 0, 0), (1, 0, 0))


def test_what_was_logged_since_comes_with_the_next_import(tmp_path: Path, sqlite_workspace: Workspace) -> None:
    filled = fill(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "files", big=3)
    bring(sqlite_workspace, filled.uri)
    client = MlflowClient(filled.uri)
    client.log_metric(filled.runs["first"], "loss", 0.5, 1_800_000_000_000, 9)
    client.set_tag(filled.runs["first"], "k", "w")
    client.log_text(filled.runs["second"], "more", "more.txt")
    found = counts(bring(sqlite_workspace, filled.uri))
    assert found["runs"] == (2, 2, 0)
    run = sqlite_workspace.store.get(Run, id=from_hex(filled.runs["first"]))
    assert run.metrics["loss"] == 0.5
    assert run.tags["k"] == "w"
    other = sqlite_workspace.store.get(Run, id=from_hex(filled.runs["second"]))
    assert "more.txt" in [item.path for item in sqlite_workspace.runs.artifacts(other.name)]


def test_a_killed_import_goes_on_where_it_was(tmp_path: Path) -> None:
    filled = fill(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "files", big=1000)
    project = tmp_path / "project"
    project.mkdir()
    (project / "mainspring.toml").write_text(f'[settings]\ndatabase = "sqlite:///{tmp_path / "ours.db"}"\n')
    for delay in (0.9, 1.1, 1.3, 1.5, 60):
        process = subprocess.Popen([*COMMAND, filled.uri, "--project", project, "--quiet"])
        try:
            assert process.wait(delay) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:
            break
    with Workspace(load_settings(project, {})) as workspace:
        again = counts(bring(workspace, filled.uri))
        assert {kind: (carried, left) for kind, (carried, _, left) in again.items()} == dict.fromkeys(again, (0, 0))
        assert again["points"][1] == 3 * 1004 + 1
        workspace.store.verify_events()


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, sqlite_workspace: Workspace) -> None:
    filled = fill(f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}", tmp_path / "store" / "files", big=3)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.txt").write_text("secret")
    first = tmp_path / "store" / "files" / filled.runs["first"] / "artifacts"
    (first / "link.txt").symlink_to(tmp_path / "secret.txt")
    (first / "folder").symlink_to(tmp_path / "other")
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        away = "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?"
        database.execute(away, (f"file://{tmp_path / 'store' / '..' / 'other'}", filled.runs["second"]))
        database.execute("UPDATE model_versions SET source = ?, storage_location = ? WHERE version = 1",
                         (f"file://{tmp_path}/other", f"file://{tmp_path}/other"))  # fmt: skip
    database.close()
    report = bring(sqlite_workspace, filled.uri)
    paths = {item.path for item in sqlite_workspace.store.find(RunArtifact)}
    assert not any("secret" in path or "link" in path or path.startswith("folder") for path in paths)
    digests = {blob.digest for blob in sqlite_workspace.artifacts.list()}
    assert digest_of(b"secret") not in digests
    why = " ".join(item.why for item in report.left)
    assert "is outside of" in why
    assert sqlite_workspace.models.version("churn@1").files == {}
    assert {item.kind for item in report.left} >= {"files", "runs", "versions"}


def test_a_pickle_stays_a_file(tmp_path: Path, sqlite_workspace: Workspace) -> None:
    """What would run when it is unpickled, or when its YAML is loaded without care, does not."""
    filled = fill(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "files", big=3)
    mark = tmp_path / "ran"
    folder = tmp_path / "files" / "models" / filled.model / "artifacts"
    (folder / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl, serialization_format: pickle}}\n")
    (folder / "model.pkl").write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())
    report = bring(sqlite_workspace, filled.uri)
    assert report.left == []
    assert set(sqlite_workspace.models.version("churn@3").files) == {"MLmodel", "model.pkl"}
    assert not mark.exists()
    store = tmp_path / "mlruns"
    (store / "0").mkdir(parents=True)
    (store / "0" / "meta.yaml").write_text(f'name: !!python/object/apply:os.system ["touch {mark}"]\n')
    with pytest.raises(InvalidInput):
        bring(sqlite_workspace, str(store))
    assert not mark.exists()


class Hostile(BaseHTTPRequestHandler):
    """A server that names files as it likes."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        info = {"run_id": "a" * 32, "experiment_id": "7", "status": "FINISHED", "start_time": 1,
                "artifact_uri": "mlflow-artifacts:/7/x/artifacts"}  # fmt: skip
        experiment = {
            "experiment_id": "7",
            "name": "bad",
            "lifecycle_stage": "active",
            "artifact_location": "file:///etc",
        }
        self._answer({"experiments/search": {"experiments": [experiment]}, "runs/search": {"runs": [{"info": info}]}})

    def do_GET(self) -> None:
        names = ["../../etc/passwd", "/etc/passwd", "%2e%2e/x", "a\\b", "ok.txt"]
        files = [{"path": name, "is_dir": False, "file_size": 2} for name in names]
        loops = [{"path": name, "is_dir": True} for name in ("", ".", "..", "/", "../up")]
        self._answer({"artifacts?path=7": {"files": files + loops}, "ok.txt": {}})

    def _answer(self, known: dict[str, Any]) -> None:
        body = next((json.dumps(answer) for part, answer in known.items() if part in self.path), "{}").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def test_paths_of_a_hostile_server_are_refused(sqlite_workspace: Workspace) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        report = bring(sqlite_workspace, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [item.path for item in sqlite_workspace.store.find(RunArtifact)] == ["ok.txt"]
    assert counts(report)["files"][2] == 9
    assert sqlite_workspace.experiments.show("bad").location == ""


@pytest.mark.parametrize(
    "address",
    ["http://user:pw@host", "ftp://x", "mysql://u:secret@host/db", "sqlite:///nowhere.db", "nowhere", "http://"],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(MainspringError) as told:
        open_source(address)
    assert told.value.status < 500
    assert "secret" not in told.value.message


def export(workspace: Workspace, url: str) -> Report:
    source = WorkspaceSource(workspace.rooms())
    return Exporting(source, url, Report(source.name, url), lambda _: None).all()


def test_everything_can_be_taken_back(
    stores: Callable[[str], Filled], sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    """To a server that gives ids of its own; twice, which changes nothing; and from there, which loses nothing."""
    filled = stores("sqlite")
    bring(sqlite_workspace, filled.uri)
    lone = Server(tmp_path / "project", f"sqlite:///{tmp_path / 'new.db'}")
    try:
        report = export(sqlite_workspace, lone.url)
        found = counts(report)
        assert found["runs"] == (4, 0, 0)
        assert found["versions"] == (2, 0, 0)
        assert found["files"] == (7 + 1, 0, 0)
        assert found["traces"] == (1, 0, 0)
        again = counts(export(sqlite_workspace, lone.url))
        assert [name for name, (carried, _, left) in again.items() if carried or left] == []
        client = MlflowClient(lone.url)
        chosen = f"tags.`mainspring.run_id` = '{filled.runs['first']}'"
        churn = client.get_experiment_by_name("churn").experiment_id
        run = client.get_run(client.search_runs([churn], chosen)[0].info.run_id)
        assert run.data.params == {"lr": "0.1", "net/depth": "3", "note": "a\nb"}
        assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000, 1_700_000_900_000)
        assert len(client.get_metric_history(run.info.run_id, "loss")) == POINTS
        assert len(client.get_metric_history(run.info.run_id, "odd/one")) == 4
        assert run.inputs.dataset_inputs[0].dataset.digest == "d1"
        assert [item.step for item in run.outputs.model_outputs] == [2]
        assert (
            Path(client.download_artifacts(run.info.run_id, "notes/a.txt", str(tmp_path))).read_text() == "hello first"
        )
        trace = client.get_trace(filled.trace)
        assert [span.name for span in trace.data.spans] == ["answer", "look up"]
        assert trace.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
        assert [item.name for item in trace.info.assessments] == ["right"]
        assert client.get_model_version_by_alias("churn", "live").version == "3"
        assert client.get_experiment_by_name("old").lifecycle_stage == "deleted"
    finally:
        lone.close()


def test_points_that_do_not_arrive_as_told_are_told_and_brought_by_the_next_import(
    stores: Callable[[str], Filled], sqlite_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk or a database that loses something on the way is what the comparison is for."""
    filled = stores("sqlite")
    enter = Carried.points
    with monkeypatch.context() as patched:
        patched.setattr(Carried, "points", lambda self, run, points: enter(self, run, points[:-1]))
        report = bring(sqlite_workspace, filled.uri)
    assert {item.kind for item in report.left} == {"runs"}
    assert all("other points are here than were told" in item.why for item in report.left)
    assert counts(report)["runs"][0] + len(report.left) == 4
    again = bring(sqlite_workspace, filled.uri)
    assert again.left == []
    assert counts(again)["runs"] == (len(report.left), 4 - len(report.left), 0)
    first = sqlite_workspace.runs.journal.curve(from_hex(filled.runs["first"]), "loss")
    assert len(first) == POINTS
