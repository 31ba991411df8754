"""What ``checkpoint.json`` holds, by type: a right checksum does not make its fields right."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Natural = Annotated[int, Field(ge=0, lt=1 << 63)]
Step = Natural


class _Table(BaseModel):
    """Tables that may have more keys than are named here."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class BestFacts(_Table):
    step: Step
    monitor: str
    mode: Literal["min", "max"]
    value: float


class MonitoredFacts(_Table):
    metric: str
    mode: Literal["min", "max"]
    value: float | None


class EvaluationFacts(_Table):
    step: Step
    valid_loss: float | None


class CallbackFacts(_Table):
    state: Any
    stop: str | None


class ScaleFacts(_Table):
    mean: list[float]
    deviation: list[Annotated[float, Field(gt=0)]]


class FileFacts(_Table):
    bytes: Natural
    sha256: str


class CheckpointFacts(_Table):
    """All fields that are read again; ``Checkpoint.fact`` says where one is missing."""

    format: int
    step: Step
    files: dict[str, FileFacts]
    sha256: str
    train_loss: float | None = None
    valid_loss: float | None = None
    evaluation: EvaluationFacts | None = None
    only_at_end: bool = False
    monitored: MonitoredFacts | None = None
    last_evaluation: EvaluationFacts | None = None
    best: BestFacts | None = None
    learned: Natural = 0
    updates: Natural = 0
    callbacks: list[CallbackFacts] = []
    loss: dict[str, Any] = {}
    scales: dict[str, ScaleFacts] = {}
    plugins: dict[str, str] = {}
    kernels: dict[str, str] = {}
    equations: dict[str, str] = {}
    parameters_sha256: str = ""
    job: dict[str, Any] = {}
    data: dict[str, str] = {}
    passing: bool = False
    started: str = ""
    seconds: Annotated[float, Field(ge=0)] = 0.0


def wrong_field(facts: dict[str, Any], state: str) -> str | None:
    """Return what is wrong with a field of checkpoint.json, if anything; ``state`` is the file that
    has to be among its files."""
    try:
        CheckpointFacts.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        return f"field {'.'.join(map(str, first['loc']))}: {first['msg']}"
    if state not in facts["files"]:
        return f"field files: {state} is missing"
    for name, scale in facts.get("scales", {}).items():
        if len(scale["mean"]) != len(scale["deviation"]):
            return f"field scales.{name}: mean and deviation are not equally long"
    return None
