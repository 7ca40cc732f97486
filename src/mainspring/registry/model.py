"""What a model and its versions are."""

from __future__ import annotations

from typing import ClassVar, Literal

from mainspring.core.address import Name
from mainspring.core.entity import Entity, Fixed, Server
from mainspring.core.signature import Signature

VersionStatus = Literal["candidate", "approved", "refused", "retired"]


class Model(Entity):
    """A model that comes in versions.

    Attributes:
        name: Unique name.
        use_case: The use case it works for.
        description: What it predicts.
        protected: Slices on which a new version must not lose against the live one: ``column`` (each of its values) or
            ``column = value``.
    """

    __table__: ClassVar[str] = "model"
    __unique__ = (("name",),)
    name: Fixed[Name]
    use_case: str = ""
    description: str = ""
    protected: list[str] = []


class ModelVersion(Entity):
    """One immutable version of a model.

    Attributes:
        address: ``name@number``, unique.
        model: Name of the model.
        number: 1, 2, 3 …
        run: Run that made it.
        flavor: What made it, such as ``sklearn``.
        files: Path -> content address.
        signature: Inputs, outputs, decision threshold.
        metrics: Measured in training.
        datasets: Dataset versions it was trained on.
        holdout: Content address of labelled rows it was not trained on, or empty.
        reference: Content address of the reference that drift is measured against, or empty.
        twin_difference: Largest difference between the original and the ONNX file that serving runs.
        status: ``candidate`` until the gates and an approver have decided.
        actor: Who proposed it.
        cause: Id of the causing event, or empty.
    """

    __table__: ClassVar[str] = "model_version"
    __unique__ = (("model", "number"), ("run",), ("address",))
    address: Server[str]
    model: Fixed[str]
    number: Server[int]
    run: Fixed[str]
    flavor: Fixed[str]
    files: Fixed[dict[str, str]]
    signature: Fixed[Signature]
    metrics: Fixed[dict[str, float]] = {}
    datasets: Fixed[list[str]] = []
    holdout: Fixed[str] = ""
    reference: Fixed[str] = ""
    twin_difference: Fixed[float | None] = None
    status: Server[VersionStatus] = "candidate"
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
    alias: Name
    number: int
