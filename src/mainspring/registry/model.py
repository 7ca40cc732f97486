"""What a model and its versions are."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from mainspring.core.address import AliasName, ModelName
from mainspring.core.entity import Entity, Fixed, Server
from mainspring.core.signature import Signature
from mainspring.errors import InvalidInput

VersionStatus = Literal["candidate", "approved", "refused", "retired"]
Stage = Literal["None", "Staging", "Production", "Archived"]
PROMPT_TAG = "mlflow.prompt.is_prompt"
PROMPT_TEXT = "mlflow.prompt.text"
"""Templates of prompts are kept as models by other systems' clients; this tag, ``true``, marks them."""
SOURCE, PICKLE = "source", "pickle"
"""Words among trusted types: models may bring Python files, or anything that runs when it is read."""
_LEVELS: dict[str, tuple[str, ...]] = {"none": (), "source": (SOURCE,), "pickle": (SOURCE, PICKLE)}


def allowed_code(setting: str) -> tuple[str, ...]:
    """The words among `SOURCE` and `PICKLE` that the setting ``model_code`` stands for.

    Raises:
        InvalidInput: It is not one of its values.
    """
    if setting not in _LEVELS:
        raise InvalidInput(f"`model_code` is one of {', '.join(_LEVELS)}, not `{setting}`", hint="mainspring settings")
    return _LEVELS[setting]


class Model(Entity):
    """A model that comes in versions.

    Attributes:
        name: Unique name; without ``/``, ``:`` and ``@``.
        changed: When it, or which versions it has, last changed.
        use_case: The use case it works for.
        description: What it predicts.
        protected: Slices on which a new version must not lose against the live one: ``column`` (each of its values) or
            ``column = value``.
        tags: Free labels.
    """

    __table__: ClassVar[str] = "model"
    __unique__ = (("name",),)
    __index__ = (("changed",),)
    name: Fixed[ModelName]
    changed: Server[datetime]
    use_case: str = ""
    description: str = ""
    protected: list[str] = []
    tags: dict[str, str] = {}


class ModelVersion(Entity):
    """One version of a model; what it is made of never changes.

    Attributes:
        address: ``name@number``, unique.
        model: Name of the model.
        number: 1, 2, 3 …; the number of a deleted version is not given again.
        changed: When what is said about it last changed.
        run: Run that made it, or empty.
        flavor: What made it, such as ``sklearn``; empty when its files are elsewhere.
        files: Path -> content address; none when they are elsewhere.
        source: Where it was registered from: ``runs:/…``, ``models:/…`` or another address; empty for an output of a
            pipeline.
        logged_model: Id of the logged model it was registered from, or empty.
        signature: Inputs, outputs, decision threshold.
        metrics: Measured in training.
        datasets: Dataset versions it was trained on.
        holdout: Content address of labelled rows it was not trained on, or empty.
        reference: Content address of the reference that drift is measured against, or empty.
        twin_difference: Largest difference between the original and the ONNX file that serving runs.
        description: What is special about it.
        tags: Free labels.
        run_link: Address of a page about the run, for runs that other systems keep.
        stage: Where it stands, for users of stages; aliases say more.
        status: ``candidate`` until the gates and an approver have decided.
        lifecycle: Whether it is deleted.
        actor: Who proposed it.
        cause: Id of the causing event, or empty.
    """

    __table__: ClassVar[str] = "model_version"
    __unique__ = (("model", "number"), ("address",))
    __index__ = (("run",), ("changed",), ("logged_model",))
    address: Server[str]
    model: Fixed[str]
    number: Server[int]
    changed: Server[datetime]
    run: Fixed[str] = ""
    flavor: Fixed[str] = ""
    files: Fixed[dict[str, str]] = {}
    source: Fixed[str] = ""
    logged_model: Fixed[str] = ""
    signature: Fixed[Signature] = Signature()
    metrics: Fixed[dict[str, float]] = {}
    datasets: Fixed[list[str]] = []
    holdout: Fixed[str] = ""
    reference: Fixed[str] = ""
    twin_difference: Fixed[float | None] = None
    description: str = ""
    tags: dict[str, str] = {}
    run_link: Fixed[str] = ""
    stage: Server[Stage] = "None"
    status: Server[VersionStatus] = "candidate"
    lifecycle: Server[Literal["active", "deleted"]] = "active"
    actor: Server[str] = ""
    cause: Server[str] = ""


class Alias(Entity):
    """A name that points at one version of a model, such as ``live``.

    Attributes:
        model: Name of the model.
        alias: The name.
        number: Number of the version.
    """

    __table__: ClassVar[str] = "alias"
    __unique__ = (("model", "alias"),)
    model: str
    alias: AliasName
    number: int
