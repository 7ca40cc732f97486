"""`@step` and `@pipeline`: plain functions that run unchanged without the platform, and can be planned with it.

    @step
    def fit(table, rounds: int = 50): ...

    @pipeline
    def train(flights, rounds: int = 50):
        parts = split(flights)
        return {"model": fit(parts["train"], rounds)}

Called normally, both do what the functions do. `Pipeline.plan` calls the pipeline's body with its steps recording
instead of running: each call gives an `Output` that can be handed to other steps, indexed, or returned.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_origin, overload

from mainspring.core.graph import topological_order
from mainspring.core.shown import Shown
from mainspring.errors import InvalidInput, nearest
from mainspring.pipelines.fingerprint import code_fingerprint
from mainspring.pipelines.model import Argument, DataRef, Plan, PlannedStep, Ref

P = ParamSpec("P")
R = TypeVar("R")


class Output:
    """What a planned step will give; stands for the value while a pipeline is planned."""

    def __init__(self, ref: Ref, parts: int = 0) -> None:
        self.ref = ref
        self._parts = parts

    def __getitem__(self, part: str | int) -> Output:
        """A part of the result: a key of a dict or an index of a tuple."""
        if self.ref.part:
            raise InvalidInput(
                f"a part of a part of `{self.ref.step}` cannot be passed on", hint="let the step return it by itself"
            )
        return Output(Ref(step=self.ref.step, part=str(part)))

    def __iter__(self) -> Iterator[Output]:
        if not self._parts:
            raise InvalidInput(
                f"the result of `{self.ref.step}` cannot be unpacked",
                hint="annotate what it returns as tuple[A, B], or return a dict and use result['name']",
            )
        return (self[index] for index in range(self._parts))


class _Recorder:
    """Collects the steps that a pipeline's body calls."""

    def __init__(self) -> None:
        self.steps: dict[str, PlannedStep] = {}

    def add(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Output:
        try:
            bound = inspect.signature(step.function).bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidInput(f"step `{step.name}`: {error}") from None
        bound.apply_defaults()
        name, number = step.name, 1
        while name in self.steps:
            number += 1
            name = f"{step.name}-{number}"
        arguments = {key: _argument(name, key, value) for key, value in bound.arguments.items()}
        module = step.function.__module__
        self.steps[name] = PlannedStep(
            name=name,
            function=f"{module}:{step.function.__qualname__}",
            arguments=arguments,
            cache=step.cache,
            retries=step.retries,
            code=code_fingerprint(step.function),
        )
        return Output(Ref(step=name), parts=_tuple_length(step.function))


_recorder: ContextVar[_Recorder | None] = ContextVar("mainspring_recorder", default=None)


def _argument(step: str, name: str, value: Any) -> Argument:
    if isinstance(value, Output):
        return Argument(ref=value.ref)
    if isinstance(value, DataRef):
        return Argument(data=value)
    if value is None or isinstance(value, (str, int, float, bool, list, dict)):
        return Argument(value=value)
    raise InvalidInput(
        f"argument `{name}` of step `{step}` is a {type(value).__name__}",
        hint="pass text, numbers, lists, dicts, or what another step returned",
    )


def _tuple_length(function: Callable[..., Any]) -> int:
    try:
        result = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return 0
    arguments = get_args(result)
    return len(arguments) if get_origin(result) is tuple and Ellipsis not in arguments else 0


class Step(Generic[P, R]):
    """A function that is a step; call it like the function."""

    def __init__(self, function: Callable[P, R], *, cache: bool = True, retries: int = 3) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = function.__name__
        self.cache = cache
        self.retries = retries

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the function, or notes the call while a pipeline is planned."""
        recorder = _recorder.get()
        if recorder is None:
            return self.function(*args, **kwargs)
        return typing.cast("R", recorder.add(self, args, kwargs))

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def _repr_html_(self) -> str:
        return Shown("step", self.name, {"does": inspect.getdoc(self.function) or ""}).html()


@overload
def step(function: Callable[P, R]) -> Step[P, R]: ...
@overload
def step(*, cache: bool = True, retries: int = 3) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(function: Callable[P, R] | None = None, *, cache: bool = True, retries: int = 3) -> Any:
    """Makes a function a step of pipelines.

    Args:
        function: The function; it must stand at the top level of a module.
        cache: Whether a result with the same inputs, code and parameters may be used instead of running it.
        retries: How often it is started again when its process dies (not when it raises).
    """
    if function is None:
        return lambda given: Step(given, cache=cache, retries=retries)
    return Step(function, cache=cache, retries=retries)


class Pipeline(Generic[P, R]):
    """A function that calls steps; call it like the function, or `plan` it."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the steps one after the other in this process, recording nothing."""
        return self.function(*args, **kwargs)

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The function's parameters."""
        return dict(inspect.signature(self.function).parameters)

    def plan(self, path: str = "", **arguments: Any) -> Plan:
        """The steps that a run with these arguments consists of.

        Args:
            path: Folder that must be importable for the steps' functions.
            **arguments: Arguments of the pipeline; `DataRef` for dataset versions.

        Raises:
            InvalidInput: An argument is unknown or missing, or the body does something that cannot be planned.
        """
        for name in arguments:
            if name not in self.parameters:
                close = nearest(name, self.parameters)
                hint = f"did you mean `{close[0]}`?" if close else "parameters: " + ", ".join(self.parameters)
                raise InvalidInput(f"pipeline `{self.name}` has no parameter `{name}`", hint=hint)
        recorder = _Recorder()
        token = _recorder.set(recorder)
        try:
            inspect.signature(self.function).bind(**arguments)
            returned = self.function(**arguments)  # type: ignore[call-arg]
        except TypeError as error:
            raise InvalidInput(
                f"pipeline `{self.name}` cannot be planned: {error}",
                hint="its body may only call steps and pass on what they return",
            ) from error
        finally:
            _recorder.reset(token)
        needs = {
            item.name: [argument.ref.step for argument in item.arguments.values() if argument.ref]
            for item in recorder.steps.values()
        }
        steps = [recorder.steps[name] for name in topological_order(needs)]
        return Plan(pipeline=self.name, steps=steps, outputs=_outputs(self.name, returned), path=path)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"

    def _repr_html_(self) -> str:
        return Shown("pipeline", self.name, {"does": inspect.getdoc(self.function) or ""}).html()


def pipeline(function: Callable[P, R]) -> Pipeline[P, R]:
    """Makes a function a pipeline: its body calls steps and returns a dict of their results (or one result)."""
    return Pipeline(function)


def _outputs(name: str, returned: Any) -> dict[str, Ref]:
    if returned is None:
        return {}
    if isinstance(returned, Output):
        return {"result": returned.ref}
    if isinstance(returned, dict) and all(isinstance(value, Output) for value in returned.values()):
        return {str(key): value.ref for key, value in returned.items()}
    raise InvalidInput(
        f"pipeline `{name}` returns something that no step gave", hint="return a step's result or a dict of them"
    )
