"""Devices: a bundle runs where there is no Mainspring; a fleet is updated, and goes on for days without a network."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mainspring.core.entity import change
from mainspring.core.humility import HumilityRule
from mainspring.deploy.edge import rules
from mainspring.deploy.edge.bundle import build
from mainspring.deploy.edge.quantise import quantise
from mainspring.deploy.edge.runner import Refused, Spool, unpack
from mainspring.deploy.model import Deployment
from mainspring.errors import Conflict, InvalidInput, Unauthorized
from mainspring.registry.packaging import package
from mainspring.registry.runtime import OnnxModel
from mainspring.server.app import create_app

RULES = (
    HumilityRule(name="far", when="outlying_input", then="clamp", low=-2.0, high=2.0),
    HumilityRule(name="unsure", when="uncertain_score", low=0.45, high=0.55, then="abstain"),
    HumilityRule(name="absurd", when="outlying_input", low=-99.0, high=99.0, then="person"),
)


class Fleet:
    """A deployment on devices, its server, and devices of its own."""

    def __init__(self, mill: Any, url: str, folder: Path) -> None:
        self.mill, self.url, self.folder = mill, url, folder
        self.edge = mill.workspace.edge
        self.enrolment = self.edge.enrol("mill")
        # Nothing but numpy and onnxruntime can be imported on a device of ours.
        packages = folder / "packages"
        packages.mkdir(parents=True)
        site = Path(np.__file__).parents[1]
        for name in ("numpy", "numpy.libs", "onnxruntime", "google", "flatbuffers", "packaging"):
            if (site / name).exists():
                (packages / name).symlink_to(site / name)
        self.environment = {"PYTHONPATH": str(packages), "PATH": os.environ["PATH"]}

    def device(self, name: str, **change: str) -> Path:
        """A device's folder, with the runner that it was shipped with."""
        home = self.folder / name
        content = self.mill.workspace.artifacts.read(self.edge.export("mill@1", "mill").digest)
        unpack(content, home / "agent")
        facts = {"url": self.url, "deployment": "mill", "device": name, "token": self.enrolment.token}
        (home / "device.json").write_text(json.dumps(facts | {"key": self.enrolment.key} | change))
        return home

    def run(self, home: Path, *arguments: str, text: str = "") -> Any:
        """Runs the device's runner in the clean environment."""
        command = [sys.executable, "-S", "-s", str(home / "agent" / "run.py"), *arguments]
        return subprocess.run(
            command, check=False, input=text, capture_output=True, text=True, env=self.environment, cwd=home, timeout=60
        )

    def agent(self, home: Path) -> str:
        """One round of the agent; what it said."""
        done = self.run(home, "agent", "--home", str(home), "--every", "0")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def predict(self, home: Path, *values: float) -> list[dict[str, Any]]:
        """Predictions of a device."""
        lines = "".join(json.dumps({"x": value}) + "\n" for value in values)
        done = self.run(home, "predict", "--home", str(home), text=lines)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def states(self) -> dict[str, tuple[str, bool]]:
        """Device -> version, and whether it is well."""
        return {item.name: (item.version, item.healthy) for item in self.edge.devices("mill")}


@pytest.fixture
def fleet(open_mill: Callable[..., Any], serve: Callable[..., str], tmp_path: Path) -> Fleet:
    mill = open_mill().apply('name = "local"', 'name = "local"\ntarget = "edge"')
    mill.workspace.deployments.update("mill", change(Deployment, humility=RULES))
    mill.register()
    mill.workspace.deployments.release("mill", mill.approved().address)
    mill.workspace.deployments.reconcile("mill")
    return Fleet(mill, serve(create_app(mill.workspace, token="the server's own")), tmp_path / "devices")


def test_a_bundle_runs_where_there_is_no_mainspring(fleet: Fleet, tmp_path: Path) -> None:
    home = fleet.device("bare")
    code = "import sys; sys.path.insert(0, 'agent'); import run; import mainspring"
    command = [sys.executable, "-S", "-s", "-c", code]
    bare = subprocess.run(command, check=False, capture_output=True, text=True, env=fleet.environment, cwd=home)
    assert "No module named 'mainspring'" in bare.stderr
    assert fleet.run(home, "check", "--key", fleet.enrolment.key).returncode == 0
    (home / "device.json").unlink()
    done = fleet.run(home, "predict", text='{"x": 0.4}\n{"x": -1.5}\n')
    model = OnnxModel(fleet.mill.workspace.models.unpack("mill@1", tmp_path / "m"))
    told = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose([item["score"] for item in told], model.score({"x": [0.4, -1.5]}, 2), atol=1e-6)
    assert [item["label"] for item in told] == [True, False]
    assert {item["version"] for item in told} == {"mill@1"}


def test_the_device_obeys_signature_and_rules(fleet: Fleet) -> None:
    home = fleet.device("d1")
    fleet.agent(home)
    clamped, at_bound, unsure = fleet.predict(home, 40.0, 2.0, 0.0)
    assert (clamped["score"], clamped["rules"]) == (at_bound["score"], ["far"])
    assert (unsure["score"], unsure["label"], unsure["rules"]) == (None, None, ["unsure"])
    for line, said in [('{"x": "a"}', "is not a float"), ('{"x": 1, "y": 1}', "`y` is unknown"), ("[", "Expecting")]:
        done = fleet.run(home, "predict", "--home", str(home), text=line + "\n")
        assert done.returncode == 1
        assert said in done.stderr


def test_a_device_is_brought_up_to_date_and_told_of(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fleet.device("d1")
    assert "is in force" in fleet.agent(home)
    monkeypatch.setattr(fleet.mill.workspace.artifacts, "read", lambda digest: pytest.fail("the device has it"))
    assert fleet.agent(home) == "up to date"
    assert fleet.states() == {"d1": ("mill@1", True)}


def test_a_rollout_reaches_its_share_of_devices_and_goes_back_without_a_download(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = fleet.mill.workspace
    workspace.deployments.release("mill", fleet.mill.approved(weight=2.0).address)
    deployment = workspace.deployments.show("mill")
    names = [f"d{number}" for number in range(40)]
    first = next(name for name in names if rules.wanted(deployment, name) == "mill@2")
    other = next(name for name in names if rules.wanted(deployment, name) == "mill@1")
    homes = {name: fleet.device(name) for name in (first, other)}
    for home in homes.values():
        fleet.agent(home)
    assert fleet.states() == {first: ("mill@2", True), other: ("mill@1", True)}
    assert fleet.predict(homes[first], 1.0)[0]["version"] == "mill@2"
    workspace.deployments.rollback("mill", "worse")
    fleet.agent(homes[first])  # it never had the live version: that one is fetched
    read, fetched = workspace.artifacts.read, []
    monkeypatch.setattr(workspace.artifacts, "read", lambda digest: (fetched.append(digest), read(digest))[1])
    assert fleet.states()[first] == ("mill@1", True)
    workspace.deployments.release("mill", "mill@2")
    assert "is in force" in fleet.agent(homes[first])
    assert fleet.states()[first] == ("mill@2", True)
    assert fetched == []


def test_the_share_grows_without_taking_a_device_back(fleet: Fleet) -> None:
    deployment = fleet.mill.workspace.deployments.show("mill")
    names = [f"d{number}" for number in range(2000)]
    before: set[str] = set()
    for weight in (5.0, 20.0, 50.0, 100.0):
        grown = {
            name
            for name in names
            if rules.wanted(msgspec.structs.replace(deployment, canary="c", weight=weight), name) == "c"
        }
        assert before <= grown
        assert abs(len(grown) / len(names) * 100 - weight) < 5
        before = grown


def test_days_without_a_network(fleet: Fleet) -> None:
    home = fleet.device("d1")
    fleet.agent(home)
    facts = json.loads((home / "device.json").read_text())
    (home / "device.json").write_text(json.dumps(facts | {"url": "http://127.0.0.1:9"}))
    ids = [answer["id"] for answer in fleet.predict(home, 1.0, -1.0)]
    assert fleet.agent(home).startswith("offline")
    ids += [answer["id"] for answer in fleet.predict(home, 0.7)]
    (home / "device.json").write_text(json.dumps(facts))
    assert fleet.agent(home) == "up to date"
    workspace = fleet.mill.workspace
    assert sorted(item.id for item in workspace.predictions.find("mill")) == sorted(ids)
    assert workspace.edge.devices("mill")[0].predictions == 3
    assert list((home / "spool").glob("*.jsonl")) == []


def test_what_a_device_leaves_to_a_person_waits_in_the_queue_once_it_is_back(fleet: Fleet) -> None:
    home = fleet.device("d1")
    fleet.agent(home)
    sure, left = fleet.predict(home, 1.0, 100.0)
    assert (left["score"], left["label"], left["action"], left["rules"]) == (None, None, "person", ["absurd", "far"])
    kept = {part.name: part.read_text() for part in (home / "spool").glob("*.jsonl")}
    for _ in range(2):  # the second time the power went before the file was removed
        for name, text in kept.items():
            (home / "spool" / name).write_text(text)
        fleet.agent(home)
    workspace = fleet.mill.workspace
    (review,) = workspace.reviews.find("mill")
    assert (review.prediction, review.rules, review.inputs) == (left["id"], ["absurd", "far"], {"x": 100.0})
    assert review.score == left["model_score"] > 0.5
    workspace.reviews.decide(review.id, 1, "seen on site", outcome=True)
    told = {item.id: item for item in workspace.predictions.find("mill")}
    assert (told[left["id"]].outcome, told[left["id"]].score) == (1, None)
    assert (told[sure["id"]].outcome, told[sure["id"]].rules) == (None, [])


def test_predictions_that_are_sent_twice_count_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fleet.device("d1")
    fleet.agent(home)
    fleet.predict(home, 1.0, 0.5)
    kept = {part.name: part.read_text() for part in (home / "spool").glob("*.jsonl")}
    fleet.agent(home)
    for name, text in kept.items():  # the power went before the file was removed
        (home / "spool" / name).write_text(text)
    fleet.agent(home)
    assert len(fleet.mill.workspace.predictions.find("mill")) == 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda files: files.update({"model.onnx": files["model.onnx"][:-9] + bytes(9)}), "model.onnx is damaged"),
        (
            lambda files: files.update({"manifest.json": files["manifest.json"].replace(b"mill@2", b"mill@1")}),
            "signature",
        ),
        (lambda files: files.update({"manifest.sig": bytes(64)}), "signature"),
        (lambda files: files.update({"../out": b"x"}), "holds the path"),
        (lambda files: files.pop("judgement.py"), "judgement.py"),
        (lambda files: files.clear(), "manifest.json"),
    ],
)
def test_a_bundle_that_was_tampered_with_never_comes_into_force(
    fleet: Fleet, damage: Callable[[dict[str, bytes]], Any], said: str
) -> None:
    workspace = fleet.mill.workspace
    home = fleet.device("d1")
    fleet.agent(home)
    workspace.deployments.release("mill", fleet.mill.approved(weight=2.0).address)
    bundle = workspace.edge.export("mill@2", "mill")
    with zipfile.ZipFile(io.BytesIO(workspace.artifacts.read(bundle.digest))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    damage(files)
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    stored = workspace.artifacts.put(forged.getvalue())
    with workspace.store.transaction() as tx:
        tx.update(msgspec.structs.replace(bundle, digest=stored.digest))
    for number in range(60):
        if rules.wanted(workspace.deployments.show("mill"), f"d{number}") == "mill@2":
            break
    facts = json.loads((home / "device.json").read_text())
    (home / "device.json").write_text(json.dumps(facts | {"device": f"d{number}"}))
    told = fleet.agent(home)
    assert "is refused" in told
    assert said in told
    assert fleet.predict(home, 1.0)[0]["version"] == "mill@1"
    assert fleet.states()[f"d{number}"] == ("mill@2", False)
    assert not list(home.rglob("out"))
    # One refusal of a bundle is enough: nobody else gets it.
    assert workspace.deployments.show("mill").canary == ""
    assert "devices refused mill@2" in workspace.deployments.releases("mill")[0].reason


def test_a_stranger_is_not_let_in(fleet: Fleet) -> None:
    home = fleet.device("d1", token="guessed")
    assert fleet.agent(home) == "the server answers 401"
    fleet.edge.admit("mill", fleet.enrolment.token)
    assert fleet.edge.lock("mill") == 1
    with pytest.raises(Unauthorized):
        fleet.edge.admit("mill", fleet.enrolment.token)


def test_a_bundle_of_another_key_is_refused(fleet: Fleet) -> None:
    home = fleet.device("d1", key="00" * 32)
    assert "signature is not that of the key" in fleet.agent(home)


def test_killed_at_any_moment_a_device_still_answers(fleet: Fleet) -> None:
    """Whatever the agent was doing when the power went, the next round ends up to date."""
    home = fleet.device("d1")
    command = [sys.executable, "-S", "-s", str(home / "agent" / "run.py"), "agent", "--home", str(home), "--every", "0"]
    for moment in (0.05, 0.12, 0.2, 0.3, 0.45, 0.6):
        process = subprocess.Popen(command, env=fleet.environment, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (home / "current").exists():
            assert fleet.predict(home, 1.0)[0]["version"] == "mill@1"
    assert fleet.agent(home) in ("up to date", f"{fleet.edge.bundles()[0].tag} is in force")
    assert fleet.predict(home, 1.0)[0]["version"] == "mill@1"


def test_a_full_disk_drops_the_oldest_predictions_and_says_how_many(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=1 << 20)
    for number in range(60):
        spool.add([{"id": f"{number}-{row}", "inputs": "x" * 1000} for row in range(50)])
    kept = [line["id"] for _, lines in spool.parts() for line in lines]
    assert spool.dropped > 0
    assert len(kept) + spool.dropped == 3000
    assert kept[-1] == "59-49"


def test_a_zip_that_leads_out_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil", "x")
    with pytest.raises(Refused, match="holds the path"):
        unpack(buffer.getvalue(), tmp_path / "bundle")
    assert not (tmp_path / "evil").exists()


def test_only_deployments_on_devices_have_devices(open_mill: Callable[..., Any]) -> None:
    mill = open_mill().apply()
    with pytest.raises(Conflict, match="not on devices"):
        mill.workspace.edge.enrol("mill")


def test_trees_cannot_be_quantised_and_a_network_can(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be made smaller"):
        fleet.edge.export("mill@1", quantise=True)
    from sklearn.neural_network import MLPClassifier

    draw = np.random.default_rng(3)
    rows = pl.DataFrame({f"x{index}": draw.normal(size=600).astype(np.float32) for index in range(8)})
    label = (rows["x0"] + rows["x1"] > 0).to_numpy()
    packed = package(MLPClassifier((128, 128), tol=0.05, random_state=0).fit(rows, label), rows)
    for path, content in packed.files.items():
        (tmp_path / path).write_bytes(content)
    model = OnnxModel(tmp_path)
    smaller, cost = quantise(model, rows, 0.2)
    assert len(smaller) == cost.after < cost.before / 2
    assert 0 < cost.mean_difference <= cost.max_difference <= 0.2
    assert cost.changed_labels < 0.05
    with pytest.raises(InvalidInput, match="differs by"):
        quantise(model, rows, cost.max_difference / 2)


def test_a_device_tells_several_classes_apart(fleet: Fleet, tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    rows = pl.DataFrame({"x": draw.normal(size=200).astype(np.float32)})
    kinds = np.array(["cold", "mild", "hot"])
    fitted = LogisticRegression().fit(rows, kinds[np.digitize(rows["x"], [-0.5, 0.5])])
    packed = package(fitted, rows)
    for name in ("model.onnx", "signature.json"):
        (tmp_path / name).write_bytes(packed.files[name])
    _, content = build(OnnxModel(tmp_path), "mill@7", RULES, rows, lambda message: bytes(64))
    home = fleet.folder / "apart"
    unpack(content, home / "agent")
    assert fleet.run(home, "check").returncode == 0
    done = fleet.run(home, "predict", text='{"x": -1.9}\n{"x": 1.9}\n{"x": 100.0}\n')
    cold, hot, left = (json.loads(line) for line in done.stdout.splitlines())
    shares = fitted.predict_proba(pl.DataFrame({"x": [-1.9]}))[0]
    assert cold["probabilities"] == {
        str(kind): pytest.approx(share, abs=1e-5) for kind, share in zip(fitted.classes_, shares, strict=True)
    }
    assert (cold["label"], cold["score"]) == ("cold", max(cold["probabilities"].values()))
    assert (hot["label"], hot["rules"]) == ("hot", [])
    assert (left["label"], left["score"], left["action"]) == (None, None, "person")
    told = json.dumps([cold | {"id": "c", "time": 1.8e9, "inputs": {"x": -1.9}, "version": "mill@1"}]).encode()
    asked = urllib.request.Request(
        f"{fleet.url}/api/edge/mill/predictions?device=d1", told, {"Authorization": f"Bearer {fleet.enrolment.token}"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.status == 200
    assert fleet.mill.workspace.predictions.find("mill")[0].label == "cold"
