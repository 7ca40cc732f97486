from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from mainspring.delivery.projectfile import line_of, read_project
from mainspring.errors import InvalidProject

GOOD = """\
[use_case]
name = "tips"
[[use_case.kpis]]
name = "gain"
target = 0.1
[[use_case.kpis]]
name = "loss"
target = 0.2
direction = "minimize"

[[data]]
name = "tips"
[data.columns]
bill = "float"
size = "int"
[[data.expectations]]
rule = "unique"
column = "bill"

[[data]]
name = "rates"
description = \"\"\"
[model]
name = "not a table"
\"\"\"
[[data.expectations]]
rule = "unique"
column = "day"

[model]
name = "tips"
[pipeline]
name = "train"
entry = "pipeline:train"
[pipeline.inputs.table]
dataset = "tips"
[pipeline.inputs.rates]
dataset = "rates"
last = 3

[[gates]]
name = "good"
require = "candidate.auc > 0.7"
[approval]
by = "person"
[[environments]]
name = "local"
[deployment]
name = "tips"
strategy.steps = [
  10,
  50,
]
strategy.bake_hours = 2
[[monitors]]
name = "auc"
kind = "performance"
measure = "roc_auc"
[[monitors]]
name = "inputs"
kind = "drift"
measure = "psi"
max = 0.2
[[rules]]
name = "new-data"
[[rules.when]]
on = "data"
"""


def line(text: str) -> int:
    """The only line of `GOOD` that starts like this."""
    found = [number for number, content in enumerate(GOOD.splitlines(), 1) if content.startswith(text)]
    assert len(found) == 1, (text, found)
    return found[0]


def test_reads_everything_and_fills_in_names() -> None:
    project = read_project(GOOD, "/project")
    assert project.model is not None
    assert project.pipeline is not None
    assert project.deployment is not None
    assert project.model.use_case == project.pipeline.use_case == project.deployment.use_case == "tips"
    assert (project.pipeline.model, project.pipeline.path) == ("tips", "/project")
    assert project.deployment.model == "tips"
    assert project.deployment.strategy.steps == (10.0, 50.0)
    assert [monitor.deployment for monitor in project.monitors] == ["tips", "tips"]
    assert (project.rules[0].pipeline, project.rules[0].use_case, project.rules[0].deployment) == (
        "train",
        "tips",
        "tips",
    )
    assert read_project("").model is None


# What is written instead of what; the line of the mistake (of the changed text); what is said of it; the hint.
MISTAKES = {
    "unknown section": ("[approval]", "[aproval]", "[approval]", "unknown key `aproval`", "`approval`"),
    "unknown key": ('entry = "pipeline:train"', 'entri = "x"', "entry =", "unknown key `entri`", "`entry`"),
    "unknown key in a table of a table": (
        "strategy.bake_hours = 2", "strategy.bake_hour = 2", "strategy.bake_hours",
        "unknown key `bake_hour`", "`bake_hours`",
    ),
    "unknown key in the second item": (
        'measure = "psi"', 'mesure = "psi"', 'measure = "psi"', "unknown key `mesure`", "`measure`",
    ),
    "unknown key in an item of a table": (
        'direction = "minimize"', 'dirction = "minimize"', "direction", "unknown key `dirction`", "`direction`",
    ),
    "unknown key in a free table": ("last = 3", "lst = 3", "last", "unknown key `lst`", "`last`"),
    "wrong type": ("max = 0.2", 'max = "0.2"', "max", "Expected `float | null`, got `str`", ""),
    "wrong type in a free table": ("last = 3", 'last = "3"', "last", "Expected `int`, got `str`", ""),
    "wrong value in a free table": ('size = "int"', 'size = "integer"', "size", "Invalid enum value 'integer'", ""),
    "wrong choice": ('on = "data"', 'on = "dta"', "on =", "Invalid enum value 'dta'", ""),
    "wrong type in a list": ("  50,\n", '  "x",\n', "strategy.steps", "Expected `float`, got `str`", ""),
    "missing key": ('[[monitors]]\nname = "auc"\n', "[[monitors]]\n", "", "`name` is missing", "add name = …"),
    "missing key in a free table": (
        'dataset = "rates"\n', "", "[pipeline.inputs.rates]", "`dataset` is missing", "add dataset",
    ),
    "unknown key in a guard": (
        "strategy.bake_hours = 2", 'strategy.guards = [{ metric = "loss", limt = 1 }]', "strategy.bake_hours",
        "unknown key `limt`", "`limit`",
    ),
    "a guard without a limit": (
        "strategy.bake_hours = 2", 'strategy.guards = [{ metric = "loss" }]', "strategy.bake_hours",
        "needs either a `limit` or a `tolerance`", "",
    ),
    "unknown strategy": (
        "strategy.bake_hours = 2", 'strategy.kind = "blue"', "strategy.bake_hours", "Invalid enum value 'blue'", "",
    ),
    "a field of another strategy": (
        "strategy.bake_hours = 2", "strategy.keep_minutes = 2", "strategy.bake_hours",
        "`keep_minutes` means nothing to canary: it belongs to blue-green", "",
    ),
    "unknown key of the checks": (
        "strategy.bake_hours = 2", "checks.memory = 2", "strategy.bake_hours",
        "unknown key `memory`", "`memory_limit_mb`",
    ),
    "no name": (
        'name = "new-data"', 'name = "New Data"', 'name = "new-data"', "this cannot be a name", "lower-case letters",
    ),
    "refused value": (
        "strategy.bake_hours = 2", "strategy.bake_hours = -2", "strategy.bake_hours", "no negative numbers", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_with_their_line(mistake: str) -> None:
    old, new, where, message, hint = MISTAKES[mistake]
    assert GOOD.count(old) == 1
    with pytest.raises(InvalidProject) as told:
        read_project(GOOD.replace(old, new))
    expected = line(where) if where else line('measure = "roc_auc"') - 3
    assert message in told.value.message
    if mistake == "refused value":  # a rule about the whole table: its first line is the best place there is
        assert told.value.facts["line"] >= line("[deployment]")
        return
    assert f"line {expected}:" in told.value.message
    assert hint in told.value.hint
    assert told.value.facts["line"] == expected


def test_what_is_not_toml_is_told_with_its_line() -> None:
    with pytest.raises(InvalidProject, match=r"not TOML.*line 2"):
        read_project("[model]\nname = = 3")


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (["model", "name"], None),
        (["use_case", "kpis", 1, "target"], "target = 0.2"),
        (["data", 0, "columns", "size"], "size"),
        (["data", 1, "expectations", 0, "column"], 'column = "day"'),
        (["deployment", "strategy", "steps", 1], "strategy.steps"),
        (["deployment", "strategy"], "[deployment]"),
        (["monitors", 1, "max"], "max"),
        (["monitors", 1, "min"], None),
        (["approval", "by"], "by"),
    ],
)
def test_line_of(steps: list[str | int], text: str | None) -> None:
    found = line_of(GOOD, steps)
    if text:
        assert found == line(text)
    elif steps[-1] == "name":  # not the one inside the text of several lines
        assert GOOD.splitlines()[found - 2 : found] == ["[model]", 'name = "tips"']
    else:
        assert GOOD.splitlines()[found - 1] == "[[monitors]]"
        assert found > line('measure = "roc_auc"')


def test_line_of_nothing() -> None:
    assert line_of(GOOD, ["nothing"]) == 0


@pytest.mark.parametrize("template", ["tabular", "empty"])
def test_templates_are_valid_and_every_section_is_explained(template: str) -> None:
    from mainspring.cli import init

    text = init.read_template(template)["mainspring.toml"]
    read_project(text)
    lines = text.splitlines()
    seen = set()
    for above, content in itertools.pairwise(lines):
        if content.startswith("[") and "." not in content and content not in seen:
            seen.add(content)
            assert above.startswith("# "), content


def test_the_project_of_the_tests_is_valid() -> None:
    read_project((Path(__file__).parents[2] / "projects" / "tips" / "mainspring.toml").read_text())
