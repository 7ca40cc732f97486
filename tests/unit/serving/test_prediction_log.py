from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.errors import CorruptArtifact
from mainspring.serving.log import Frame, PredictionLog, log_files, read_frames, to_frame
from mainspring.serving.table import Table, decimals


def frame(number: int, rows: int = 2) -> Frame:
    return Frame(
        times=[1_356_998_400_000_000 + number] * rows,
        ids=[f"{number}-{row}" for row in range(rows)],
        versions=["flights@1"] * rows,
        roles=["live"] * rows,
        scores=[0.25] * rows,
        labels=[False] * rows,
        columns={"delay": [1.5, None, *[2.0] * rows][:rows], "carrier": ["UA"] * rows},
        latency_us=number,
    )


def written(folder: Path, frames: list[Frame]) -> Path:
    log = PredictionLog(folder, durable=True)
    for item in frames:
        log.append(item)
    log.close()
    (path,) = log_files(folder)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("log"), [frame(number) for number in range(4)]).read_bytes()


def test_frames_come_back(tmp_path: Path) -> None:
    frames = [frame(number, rows) for number, rows in enumerate((1, 0, 3))]
    assert read_frames(written(tmp_path, frames))[0] == frames


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, durable=True)
    log.append(frame(0))
    (path,) = log_files(tmp_path)
    first, offset = read_frames(path)
    log.append(frame(1))
    second, end = read_frames(path, offset)
    assert (first, second) == ([frame(0)], [frame(1)])
    assert read_frames(path, end) == ([], end)
    log.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_torn_tail_is_left_for_later(tmp_path: Path, whole: bytes, cut: float) -> None:
    place = int(cut * len(whole))
    path = tmp_path / "torn.frames"
    path.write_bytes(whole[:place])
    frames, offset = read_frames(path)
    assert frames == [frame(number) for number in range(len(frames))]
    assert offset <= place
    path.write_bytes(whole)
    rest, end = read_frames(path, offset)
    assert frames + rest == [frame(number) for number in range(4)]
    assert end == len(whole)


def read_to_the_end(path: Path, into: list[Frame]) -> None:
    offset, end = 0, -1
    while offset != end:
        end = offset
        frames, offset = read_frames(path, offset)
        into += frames


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_every_damaged_byte_is_noticed_and_costs_no_frame_before_it(
    tmp_path: Path, whole: bytes, where: float, flip: int
) -> None:
    place = int(where * len(whole))
    damaged = bytearray(whole)
    damaged[place] ^= flip
    path = tmp_path / "damaged.frames"
    path.write_bytes(damaged)
    good: list[Frame] = []
    with pytest.raises(CorruptArtifact) as caught:
        read_to_the_end(path, good)
    assert good == [frame(number) for number in range(len(good))]
    assert caught.value.facts["offset"] <= place


def test_table(tmp_path: Path) -> None:
    shadow = Frame([0], ["a"], ["flights@2"], ["shadow"], [math.nan], [None], {"extra": [7]}, 0)
    table = to_frame([frame(0), shadow])
    assert table.schema["time"] == pl.Datetime("us", "UTC")
    assert table.columns == [
        *("id", "time", "version", "role", "score", "label", "latency_us", "caller", "route", "request"),
        *("rules", "action", "model_score", "weight", "key", "class"),
        *("in_delay", "in_carrier", "in_extra"),
    ]
    assert table["time"][0] == datetime(2013, 1, 1, tzinfo=UTC)
    assert table["in_delay"].to_list() == [1.5, None, None]
    assert table["in_extra"].to_list() == [None, None, 7]
    assert table["label"].to_list() == [False, False, None]
    assert to_frame([]).height == 0


def test_files_are_rotated_and_read_in_order(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, durable=True, limit=1000)
    for number in range(50):
        log.append(frame(number))
    log.close()
    files = log_files(tmp_path)
    assert len(files) > 2
    assert [item.latency_us for path in files for item in read_frames(path)[0]] == list(range(50))


def test_buffered_frames_are_written_at_their_turn(tmp_path: Path) -> None:
    turns = []
    log = PredictionLog(tmp_path, durable=False, schedule=lambda seconds, call: turns.append((seconds, call)))
    log.append(frame(0))
    log.append(frame(1))
    assert log_files(tmp_path) == []
    ((seconds, call),) = turns
    assert seconds <= 0.05
    call()
    assert len(read_frames(log_files(tmp_path)[0])[0]) == 2
    log.append(frame(2))
    assert len(turns) == 2
    log.close()
    assert len(read_frames(log_files(tmp_path)[0])[0]) == 3


def test_serving_process_carries_no_table_library() -> None:
    code = "import sys, mainspring.serving.process; sys.exit('polars' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_in_single_precision_stay_themselves(values: list[float]) -> None:
    single = np.array(values, np.float32)
    assert decimals(single).astype(np.float32).tolist() == single.tolist()


@given(
    st.lists(st.builds(lambda digits, place: digits * 10.0**place, st.integers(-999_999, 999_999), st.integers(-9, 9)))
)
def test_decimals_are_read_as_they_were_sent(values: list[float]) -> None:
    sent = [float(f"{value:.6g}") for value in values]
    assert decimals(np.array(sent, np.float32)).tolist() == sent


def test_a_table_is_read_as_columns(tmp_path: Path) -> None:
    sent = np.array([[0.1, -2.5], [1e-3, 7.0]], np.float32)
    log = PredictionLog(tmp_path, durable=True)
    told: list[Any] = [[0, 0], ["a", "b"], ["m@1"] * 2, ["live"] * 2, [0.5] * 2, [True] * 2, {}]
    columns = Table(["x", "y"], sent.tobytes())
    log.append(Frame(*told, [3, 4], "ann", "infer", ["r", ""], table=columns))
    log.close()
    table = to_frame(read_frames(log_files(tmp_path)[0])[0])
    assert table.select("in_x", "in_y", "latency_us", "caller", "request").rows() == [
        (0.1, -2.5, 3, "ann", "r"), (0.001, 7.0, 4, "ann", ""),
    ]  # fmt: skip
