"""One story, told on both transports: what the SDK promises holds in this process and over HTTP."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mainspring.client.client import Client
from mainspring.core.entity import change, draft
from mainspring.core.ids import to_hex
from mainspring.errors import Conflict, CorruptArtifact, InvalidInput, NotFound
from mainspring.tracking.evaluations import Merged, Question
from mainspring.tracking.model import EvaluationDataset, Point, Run
from mainspring.usecases.model import Kpi, KpiValue, UseCase
from mainspring.workspace import Workspace


def use_case(client: Client, name: str, **fields: object) -> UseCase:
    return client.usecases.create(draft(UseCase, name=name, **fields))


def test_a_use_case_is_created_changed_shown_and_listed(client: Client) -> None:
    kpi = Kpi(name="gain", target=0.5, unit="USD", value={"tp": 1.0})
    made = use_case(client, "churn", problem="Who leaves?", kpis=[kpi], stakeholders=["Łucja"])
    assert (made.name, made.kpis, made.risk_class) == ("churn", [kpi], "minimal")
    assert made.created == datetime(2026, 1, 5, 9, tzinfo=UTC)
    changed = client.usecases.update("churn", change(UseCase, owner="maria"))
    assert (changed.owner, changed.problem, changed.id) == ("maria", "Who leaves?", made.id)
    assert client.usecases.show("churn") == changed
    use_case(client, "anomaly")
    assert [item.name for item in client.usecases.find()] == ["anomaly", "churn"]
    assert [item.name for item in client.usecases.find(limit=1)] == ["anomaly"]


def test_an_empty_value_is_a_value_and_not_sending_one_is_not(client: Client) -> None:
    use_case(client, "churn", owner="maria", stakeholders=["a"])
    changed = client.usecases.update("churn", change(UseCase, owner="", stakeholders=[]))
    assert (changed.owner, changed.stakeholders) == ("", [])


def test_a_kpi_is_recorded_and_read(client: Client) -> None:
    use_case(client, "churn", kpis=[Kpi(name="gain", target=0.5)])
    window = {"start": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime(2026, 1, 2, tzinfo=UTC)}
    for value in (0.25, 0.75):
        client.usecases.record_kpi(draft(KpiValue, use_case="churn", kpi="gain", value=value, rows=9, **window))
    [found] = client.usecases.kpi_values("churn", "gain")
    assert (found.value, found.met, found.start) == (0.75, True, window["start"])


def test_what_is_not_there_is_told_with_the_nearest_names(client: Client) -> None:
    use_case(client, "churn")
    with pytest.raises(NotFound, match="no use case named `chrun`") as missing:
        client.usecases.show("chrun")
    assert "`churn`" in missing.value.hint
    assert missing.value.facts["name"] == "chrun"


def test_a_name_that_is_taken_is_a_conflict(client: Client) -> None:
    use_case(client, "churn")
    with pytest.raises(Conflict, match="exists already") as taken:
        use_case(client, "churn")
    assert taken.value.facts == {"kind": "use case"}


def test_a_limit_out_of_bounds_is_refused(client: Client) -> None:
    with pytest.raises(InvalidInput, match="limit must be 1 to 10000, not 0"):
        client.usecases.find(limit=0)


def test_a_call_with_an_unknown_argument_is_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError):
        client.usecases.find(nonsense=1)  # type: ignore[call-arg]


def test_a_run_is_logged_finished_and_found(client: Client) -> None:
    run = client.runs.start(draft(Run, experiment="baseline", params={"depth": 3, "rate": 0.1}, tags={"team": "a"}))
    assert client.runs.log(run.name, [Point(key="train/loss", value=1 / step, step=step) for step in (1, 2, 3)]) == 3
    assert [point.value for point in client.runs.history(run.name, "train/loss")] == [1.0, 1 / 2, 1 / 3]
    ended = client.runs.finish(run.name)
    assert (ended.status, ended.metrics, ended.params) == ("ok", {"train/loss": 1 / 3}, {"depth": 3, "rate": 0.1})
    assert client.runs.finish(run.name).ended == ended.ended
    with pytest.raises(Conflict):
        client.runs.finish(run.name, "failed")
    client.runs.start(draft(Run, experiment="another"))
    assert [item.name for item in client.runs.find(experiment="baseline", status="ok")] == [run.name]


def test_a_metric_that_is_no_number_is_refused_and_nothing_of_the_call_is_kept(client: Client) -> None:
    run = client.runs.start(draft(Run))
    with pytest.raises(InvalidInput):
        client.runs.log(run.name, [Point(key="a", value=1.0), Point(key="a", value=float("inf"))])
    assert client.runs.history(run.name, "a") == []


def test_questions_are_kept_by_what_they_ask(client: Client) -> None:
    made = client.evaluations.create(draft(EvaluationDataset, name="support", tags={"team": "a"}))
    told = [Question(inputs={"q": "a"}, outputs="b"), Question(inputs={"q": "c"}, expectations={"answer": 1})]
    assert client.evaluations.merge("support", told) == Merged(inserted=2, updated=0)
    assert client.evaluations.merge("support", [Question(inputs={"q": "a"})]) == Merged(inserted=0, updated=1)
    first, second = client.evaluations.records(f"d-{to_hex(made.id)}")
    assert (first.outputs, second.expectations) == ("b", {"answer": 1})
    assert client.evaluations.forget("support", [f"dr-{to_hex(first.id)}"]) == 1
    assert client.evaluations.show("support").records == 1
    with pytest.raises(NotFound):
        client.evaluations.update("support", change(EvaluationDataset, experiments=[77]))
    client.evaluations.delete("support")
    assert client.evaluations.find() == []


@pytest.mark.parametrize("size", [0, 1, 30_000_000])
@pytest.mark.parametrize("form", ["bytes", "path", "stream"])
def test_artifacts_come_back_as_they_were(client: Client, size: int, form: str, tmp_path: Path) -> None:
    content = bytes(range(251)) * (size // 251) + b"x" * (size % 251)
    path = tmp_path / "content"
    path.write_bytes(content)
    given = {"bytes": content, "path": path, "stream": io.BytesIO(content)}[form]
    digest, stored = client.put_artifact(given)  # type: ignore[arg-type]
    assert stored == size
    assert client.artifact(digest) == content


def test_an_artifact_that_is_not_there_is_told(client: Client) -> None:
    with pytest.raises(NotFound, match="no artifact"):
        client.artifact("blake3:" + "0" * 64)
    with pytest.raises(InvalidInput, match="not a digest"):
        client.artifact("../../etc/passwd")


@pytest.mark.parametrize("damage", [b"other bytes!", b"short", b"longer than it was before"])
def test_a_damaged_artifact_is_never_handed_out(client: Client, sqlite_workspace: Workspace, damage: bytes) -> None:
    digest, _ = client.put_artifact(b"right bytes!")
    path = sqlite_workspace.artifacts.local_path(digest)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(damage)
    with pytest.raises(CorruptArtifact, match="damaged"):
        client.artifact(digest)
