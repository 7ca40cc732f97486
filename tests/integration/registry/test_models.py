from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mainspring.errors import Conflict, CorruptArtifact, InvalidInput, NotFound
from mainspring.registry.compatibility import Compatibility


def test_a_run_becomes_one_candidate(mill: Any) -> None:
    mill.register()
    version = mill.candidate()
    assert (version.address, version.status, version.datasets) == ("mill@1", "candidate", ["readings@1"])
    assert sorted(version.files) == ["model.onnx", "signature.json"]
    assert version.metrics["accuracy"] > 0.7
    assert version.holdout
    assert version.reference
    assert mill.workspace.models.propose("mill", version.run) == version
    assert mill.events("registry.version") == ["registry.version.proposed"]
    owned = mill.workspace.store.artifact_owners()
    assert {version.holdout, version.reference, *version.files.values()} <= owned


def test_addresses(mill: Any) -> None:
    mill.register()
    first, second = mill.candidate(), mill.candidate(weight=2.0)
    models = mill.workspace.models
    assert models.version("mill") == models.version("mill@2") == second
    models.set_alias("mill", "best", 1)
    models.set_alias("mill", "best", 1)
    assert models.version("mill@best") == first
    models.set_alias("mill", "best", 2)
    assert models.aliases("mill") == {"best": 2}
    assert mill.events("registry.alias") == ["registry.alias.set", "registry.alias.set"]
    for address, nearest in (("mill@bst", "`best`"), ("mil", "`mill`"), ("mill@3", "`mill@2`")):
        with pytest.raises(NotFound) as told:
            models.version(address)
        assert nearest in told.value.hint
    with pytest.raises(NotFound):
        models.set_alias("mill", "best", 9)
    with pytest.raises(InvalidInput):
        models.version("a/b@1")


def test_who_calls_an_earlier_version_is_told_what_would_break(mill: Any) -> None:
    models = mill.workspace.models
    mill.register()
    first, second = mill.candidate(), mill.candidate(weight=2.0)
    assert models.compare("mill@1") == Compatibility()
    assert models.compare("mill") == Compatibility("mill@1", [])
    field = msgspec.structs.replace(first.signature.inputs[0], name="y", nullable=False)
    narrower = msgspec.structs.replace(first.signature, inputs=(*second.signature.inputs, field))
    with mill.workspace.store.transaction() as tx:
        tx.update(msgspec.structs.replace(second, signature=narrower))
    told = models.compare("mill@2", before="mill@1")
    assert told.breaks == ["callers do not send `y`, which it cannot do without"]
    assert models.compare("mill@1", before="mill@2").breaks == ["callers send `y`, which it does not know"]
    with pytest.raises(NotFound):
        models.compare("mill@2", before="mill@9")


def test_a_model_without_versions(mill: Any) -> None:
    with pytest.raises(NotFound, match="`mill` has no version"):
        mill.workspace.models.version("mill")


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('"model": model, ', "", NotFound, "no output named `model`"),
        ('"model": model,', '"model": evaluate(holdout, weight),', InvalidInput, "no packed model"),
    ],
)
def test_what_cannot_be_proposed(mill: Any, old: str, new: str, error: type[Exception], message: str) -> None:
    mill.register()
    mill.edit("pipeline.py", old, new)
    run = mill.train()
    with pytest.raises(error, match=message):
        mill.workspace.models.propose("mill", run.name)
    assert mill.workspace.models.versions("mill") == []


@pytest.mark.parametrize("path", ["../model.onnx", "/tmp/model.onnx", "a/../../b"])
def test_a_model_cannot_write_outside_its_folder(mill: Any, path: str) -> None:
    mill.register()
    mill.edit("parts.py", '"model.onnx"', f'"{path}"')
    with pytest.raises(InvalidInput, match="not a path within the model"):
        mill.candidate()


def test_unpacking_verifies(mill: Any, tmp_path: Path) -> None:
    mill.register()
    version = mill.candidate()
    folder = mill.workspace.models.unpack("mill", tmp_path / "models")
    assert folder.name == "mill@1"
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "signature.json"]
    assert mill.workspace.models.unpack("mill@1", tmp_path / "models") == folder
    stored = mill.workspace.artifacts.local_path(version.files["model.onnx"])
    os.chmod(stored, 0o600)
    stored.write_bytes(b"damaged")
    with pytest.raises(CorruptArtifact):
        mill.workspace.models.unpack("mill@1", tmp_path / "other")
    assert not (tmp_path / "other" / "mill@1" / "model.onnx").exists()


def test_a_failed_run_is_not_proposed(mill: Any) -> None:
    mill.register()
    run = mill.workspace.pipelines.start("train")
    with pytest.raises(Conflict, match="has not succeeded: running"):
        mill.workspace.models.propose("mill", run.name)
