"""The executors, by the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from mainspring.adapters.executors.inline import InlineExecutor
from mainspring.adapters.executors.process import ProcessExecutor
from mainspring.testing.executors import ExecutorContract


class TestInline(ExecutorContract):
    isolated = False

    @pytest.fixture
    def executor(self) -> InlineExecutor:
        return InlineExecutor()


class TestProcess(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[ProcessExecutor]:
        with contextlib.closing(ProcessExecutor(2)) as executor:
            yield executor


# Ray's own sockets and processes are its own affair.
@pytest.mark.filterwarnings("ignore")
class TestRay(ExecutorContract):
    @pytest.fixture
    def executor(self, local_ray: Any) -> Iterator[Any]:
        from mainspring.adapters.executors.ray import RayExecutor

        with contextlib.closing(RayExecutor()) as executor:
            yield executor
