"""The load of GPUs. There is none where these tests run: a module stands in for the library, with its functions."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mainspring.client.load import Load


class FakeNvml(ModuleType):
    """Two GPUs, of which the second is lost after the start."""

    class NVMLError(Exception):
        """As the library's own."""

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the library's name
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 - the library's name
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802 - the library's name
        if handle == 1:
            raise self.NVMLError("the GPU is lost")
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802 - the library's name
        return SimpleNamespace(used=2_500_000_000)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802 - the library's name
        return 310_500


def test_gpus_are_told_and_a_lost_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("pynvml"))
    told = Load(os.getpid()).look()
    assert {key: value for key, value in told.items() if "gpu" in key} == {
        "system/gpu0_percent": 37.0, "system/gpu0_memory_mb": 2500.0, "system/gpu0_watts": 310.5,
    }  # fmt: skip


def test_a_library_without_a_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml("pynvml")

    def fails() -> None:
        raise nvml.NVMLError("no driver")

    monkeypatch.setattr(nvml, "nvmlInit", fails, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert not [key for key in Load(os.getpid()).look() if "gpu" in key]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the load of a machine is read from /proc")
def test_the_load_of_this_machine_is_told_in_numbers_that_can_be() -> None:
    load = Load(os.getpid())
    load.look()
    busy = time.process_time() + 0.05  # the machine counts in hundredths of a second
    while time.process_time() < busy:
        pass
    told = load.look()
    assert 0 < told["system/process_cpu_percent"] <= 100 * (os.cpu_count() or 1) + 50
    assert 0 <= told["system/cpu_percent"] <= 100
    assert any("memory" in key and value > 1 for key, value in told.items())
    assert all(value >= 0 for value in told.values())
