"""The load of a machine and of one process on it, out of what the kernel tells; of GPUs, where NVML is installed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SECTOR = 512
_DISKS = ("sd", "vd", "nvme", "xvd", "mmcblk")


class Load:
    """Looks at the machine again and again; rates are those since the look before.

    Args:
        pid: The process that is watched along with the machine.
        name: Begins the name of every metric.
    """

    def __init__(self, pid: int, name: str = "system") -> None:
        self._pid = pid
        self._name = name
        self._gpus = _gpus()
        self._before: dict[str, float] = {}
        self._time = 0.0
        self.look()

    def look(self) -> dict[str, float]:
        """Metric -> value: per cent, megabytes, megabytes per second; what this machine does not tell is left out."""
        now, counted = time.monotonic(), self._counters()
        passed = now - self._time
        rates = {key: (value - self._before.get(key, value)) / passed for key, value in counted.items()}
        first, self._before, self._time = not self._before, counted, now
        told = {} if first else self._rates(rates)
        return {f"{self._name}/{key}": value for key, value in (told | _memory(self._pid) | self._of_gpus()).items()}

    def _rates(self, rates: dict[str, float]) -> dict[str, float]:
        told = {key: value / 1e6 for key, value in rates.items() if key.endswith("_mb_per_s")}
        if "busy" in rates and rates["busy"] + rates["idle"] > 0:
            # Rounding may lift the share above one, and the kernel's time of waiting may count backwards.
            told["cpu_percent"] = 100 * min(1.0, rates["busy"] / (rates["busy"] + rates["idle"]))
        if "process" in rates:
            told["process_cpu_percent"] = 100 * rates["process"]
        return told

    def _counters(self) -> dict[str, float]:
        found: dict[str, float] = {}
        if machine := _lines("/proc/stat"):
            ticks = [int(item) for item in machine[0].split()[1:9]]
            found["idle"] = float(ticks[3] + ticks[4])
            found["busy"] = float(sum(ticks)) - found["idle"]
        if lines := _lines(f"/proc/{self._pid}/stat"):
            fields = lines[0].rpartition(")")[2].split()
            found["process"] = (int(fields[11]) + int(fields[12])) / _TICK
        for line in _lines("/proc/diskstats"):
            fields = line.split()
            # Whole disks only: partitions count the same bytes again.
            if fields[2].startswith(_DISKS) and Path(f"/sys/block/{fields[2]}").exists():
                _add(found, "disk_read_mb_per_s", int(fields[5]) * _SECTOR)
                _add(found, "disk_write_mb_per_s", int(fields[9]) * _SECTOR)
        for line in _lines("/proc/net/dev")[2:]:
            name, _, rest = line.partition(":")
            if name.strip() != "lo":
                _add(found, "network_in_mb_per_s", int(rest.split()[0]))
                _add(found, "network_out_mb_per_s", int(rest.split()[8]))
        return found

    def _of_gpus(self) -> dict[str, float]:
        told: dict[str, float] = {}
        for index, (nvml, handle) in enumerate(self._gpus):
            try:
                used, memory = nvml.nvmlDeviceGetUtilizationRates(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
                told[f"gpu{index}_percent"] = float(used.gpu)
                told[f"gpu{index}_memory_mb"] = memory.used / 1e6
                told[f"gpu{index}_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
            except nvml.NVMLError:
                continue
        return told


def _gpus() -> list[tuple[Any, Any]]:
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        return []
    try:
        pynvml.nvmlInit()
        return [(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:  # the library without a driver
        return []


def _memory(pid: int) -> dict[str, float]:
    told = {}
    facts = {line.partition(":")[0]: line.split()[1] for line in _lines("/proc/meminfo") if ":" in line}
    if "MemTotal" in facts and "MemAvailable" in facts:
        told["memory_mb"] = (int(facts["MemTotal"]) - int(facts["MemAvailable"])) / 1e3
    for line in _lines(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            told["process_memory_mb"] = int(line.split()[1]) / 1e3
    return told


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _add(found: dict[str, float], key: str, value: float) -> None:
    found[key] = found.get(key, 0.0) + value
