"""Argument before environment before project file before default, and what does not fit is refused where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mainspring.errors import InvalidInput
from mainspring.settings import SETTINGS, find_project, load_settings


def write(folder: Path, text: str) -> Path:
    (folder / "mainspring.toml").write_text(text, encoding="utf-8")
    return folder


def test_the_nearer_word_counts(tmp_path: Path) -> None:
    write(tmp_path, "[settings]\nport = 1\nhost = 'file'\ntick = 3\n")
    found = load_settings(tmp_path, {"MAINSPRING_PORT": "2", "MAINSPRING_HOST": "env", "OTHER": "x"}, port=3)
    assert (found["port"], found["host"], found["tick"], found["home"]) == (3, "env", 3.0, ".mainspring")
    assert {name: found.origins[name] for name in ("port", "host", "tick", "home")} == {
        "port": "argument", "host": "environment", "tick": "mainspring.toml", "home": "default",
    }  # fmt: skip


def test_an_argument_of_none_is_no_argument(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {"MAINSPRING_PORT": "2"}, port=None)["port"] == 2


def test_an_empty_value_in_the_environment_is_a_value(tmp_path: Path) -> None:
    write(tmp_path, "[settings]\nserver = 'http://x'\n")
    assert load_settings(tmp_path, {"MAINSPRING_SERVER": ""})["server"] == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[settings]\nprot = 1", "unknown setting `prot`"),
        ("[settings]\nport = '7x'", "`port` must be a whole number"),
        ("[settings]\nport = 2.5", "`port` must be a whole number"),
        ("[settings]\nport = true", "`port` must be a whole number"),
        ("[settings]\nhost = 1", "`host` must be text"),
        ("[settings]\ntick = nan", "`tick` must be a number"),
        ("[settings]\ntick = 'inf'", "`tick` must be a number"),
        ("settings = 1", "must be a table"),
        ("[settings", "is not TOML"),
    ],
)
def test_what_does_not_fit_in_the_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    write(tmp_path, text)
    with pytest.raises(InvalidInput, match=told) as refused:
        load_settings(tmp_path, {})
    assert "mainspring.toml" in refused.value.message
    assert refused.value.hint


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_bytes(b"[settings]\nhost = '\xff'\n")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load_settings(tmp_path, {})


def test_an_unknown_setting_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"`databse` \(argument\)") as refused:
        load_settings(tmp_path, {}, databse="x")
    assert "`database`" in refused.value.hint


@pytest.mark.parametrize("environment", [{"MAINSPRING_PORT": "x"}, {"MAINSPRING_TICK": ""}])
def test_what_does_not_fit_in_the_environment_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="environment"):
        load_settings(tmp_path, environment)


def test_a_token_is_never_told(tmp_path: Path) -> None:
    write(tmp_path, "[settings]\ntoken = 12345\n")
    with pytest.raises(InvalidInput) as refused:
        load_settings(tmp_path, {})
    assert "12345" not in str(refused.value.body())


def test_the_project_is_found_from_below(tmp_path: Path) -> None:
    below = write(tmp_path, "") / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == tmp_path
    assert load_settings(below, {}).home == tmp_path / ".mainspring"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "sqlite:///{root}/.mainspring/mainspring.db"),
        ("sqlite:///data/x.db", "sqlite:///{root}/data/x.db"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("postgresql://u@h/n", "postgresql://u@h/n"),
        ("postgresql:///n?host=/tmp", "postgresql:///n?host=/tmp"),
    ],
)
def test_relative_paths_start_at_the_project(tmp_path: Path, given: str, expected: str) -> None:
    assert load_settings(tmp_path, {}, database=given).database_url == expected.format(root=tmp_path)


def test_settings_are_a_mapping_of_every_setting(tmp_path: Path) -> None:
    found: Any = load_settings(tmp_path, {})
    assert list(found) == [setting.name for setting in SETTINGS]
    assert len(found) == len(SETTINGS)
    assert all(setting.help for setting in SETTINGS)
