from __future__ import annotations

from typing import Any

import pytest

from mainspring.errors import Conflict, InvalidInput, InvalidProject, MainspringError


def actions(changes: Any) -> dict[str, str]:
    return {f"{item.kind} {item.name}": item.action for item in changes}


def text(mill: Any) -> str:
    return str((mill.folder / "mainspring.toml").read_text())


def test_planning_changes_nothing_and_says_what_applying_does(open_mill: Any) -> None:
    mill = open_mill()
    projects = mill.workspace.projects
    planned = projects.plan(text(mill), str(mill.folder))
    assert set(actions(planned).values()) == {"create"}
    assert mill.events() == []
    assert mill.workspace.models.find() == []
    assert projects.apply(text(mill), str(mill.folder)) == planned


def test_applying_again_changes_nothing(mill: Any) -> None:
    events = mill.events()
    again = mill.workspace.projects.apply(text(mill), str(mill.folder))
    assert set(actions(again).values()) == {"unchanged"}
    assert mill.events() == events


def test_one_change_updates_one_thing(mill: Any) -> None:
    changed = text(mill).replace("min = 0.65", "min = 0.6").replace("roc_auc > 0.7", "roc_auc > 0.6")
    done = {item.kind + " " + item.name: item for item in mill.workspace.projects.apply(changed, str(mill.folder))}
    assert {name for name, item in done.items() if item.action == "update"} == {"monitor auc", "policy mill"}
    assert done["monitor auc"].fields == {"min": [0.65, 0.6]}
    assert mill.workspace.monitors.show("auc").min == 0.6
    assert mill.workspace.approvals.policy("mill").version == 2


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('source = "auc"', 'sorce = "auc"', InvalidProject),
        ('on = "incident", source = "auc"', 'on = "schedule", source = "day"', InvalidInput),
        ("candidate.roc_auc > 0.7", "candidate.", InvalidInput),
        ('measure = "roc_auc"', 'measure = "roc_acu"', InvalidInput),
        ('measure = "gain"', 'measure = "gian"', InvalidInput),
        ('rule = "in_set"', 'rule = "in_sett"', InvalidInput),
        ('kind = "kpi"', 'kind = "volume"', Conflict),
    ],
)
def test_a_mistake_anywhere_changes_nothing(mill: Any, old: str, new: str, error: type[MainspringError]) -> None:
    before = mill.events()
    changed = text(mill).replace("[use_case]\n", '[use_case]\nowner = "ann"\n').replace(old, new)
    for operation in (mill.workspace.projects.plan, mill.workspace.projects.apply):
        with pytest.raises(error) as told:
            operation(changed, str(mill.folder))
        assert told.value.hint
        assert mill.events() == before
        assert mill.workspace.usecases.show("mill").owner == ""


def test_what_the_file_does_not_name_stays(mill: Any) -> None:
    mill.workspace.projects.apply('[model]\nname = "other"\n', str(mill.folder))
    assert [model.name for model in mill.workspace.models.find()] == ["mill", "other"]
    assert len(mill.workspace.monitors.find()) == 2
