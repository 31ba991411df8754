"""The tables of a job file: every key, its type, its default, and what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from rnnfarm.plugins import Registry

Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**63)]  # as far as TOML counts


class Table(BaseModel):
    """One table of the job file: fixed keys, and no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PartTable(Table):
    """A table that names a part and holds the part's own settings beside the other keys."""

    kind: ClassVar[str]
    key: ClassVar[str] = "name"

    settings: dict[str, Any] = {}

    def create(self, registry: Registry) -> Any:
        """Return the part with its settings; PluginError when it cannot be had."""
        return registry.get(self.kind, getattr(self, self.key))(**self.settings)

    @model_serializer(mode="wrap")
    def _inline(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        table: dict[str, Any] = dump(self)
        settings: dict[str, Any] = table.pop("settings")
        return table | settings


class ReaderTable(PartTable):
    kind, key = "readers", "reader"
    reader: str = Field(description="what reads the files: a reader's name")


class LossTable(PartTable):
    kind = "losses"
    name: str = Field(description="a loss's name")


class OptimizerTable(PartTable):
    kind = "optimizers"
    name: str = Field(default="adam", description="an optimizer's name")


class ScheduleTable(PartTable):
    kind = "schedules"
    name: str = Field(default="constant", description="a schedule's name")


class CallbackTable(PartTable):
    kind = "callbacks"
    name: str = Field(description="a callback's name")


class InitTable(Table):
    """How parameters start, by what they are."""

    weight: str | None = Field(default=None, description="of embeddings and weight matrices")
    recurrent: str | None = Field(
        default=None, description="of matrices that states are multiplied by; weight if absent"
    )
    bias: str | None = Field(default=None, description="of biases, those of gates too")


InitKey = str | InitTable | None


def _init(part: str) -> Any:
    return Field(
        default=None,
        description=f"an initialiser of all weights of {part}, such as 'uniform:0.1', the name of "
        "a framework whose defaults to start from ('pytorch', 'keras'), or a table of initialisers "
        "for weight, recurrent and bias",
    )


class LayerTable(PartTable):
    """One recurrent layer, with the settings of its cell beside these keys."""

    kind, key = "cells", "cell"
    cell: str = Field(description="a cell's name")
    hidden: Positive = Field(description="width of the hidden state (in each direction)")
    dropout: Probability = Field(default=0.0, description="dropout of the layer's output")
    bidirectional: bool = Field(
        default=False, description="a second layer of the same size reads from the end"
    )
    residual: bool = Field(default=False, description="add the layer's input to its output")
    zoneout: Probability | dict[str, Probability] = Field(
        default=0.0,
        description="a number from 0 to below 1, or a table of such a number for each state",
    )
    recurrent_dropout: Probability = Field(
        default=0.0, description="one mask a window on the recurrence"
    )
    initial: Literal["zero", "random", "learned"] = Field(
        default="zero", description="the state that a sequence begins with"
    )
    init: InitKey = _init("the cell")


class InputTable(Table):
    kind: Literal["embedding", "one_hot", "linear", "none"] = Field(
        description="how the input column comes in: tokens as embedding or one_hot, values as they "
        "are (none) or through a linear map"
    )
    size: Positive | None = Field(
        default=None, description="width of the embedding or the linear map"
    )
    dropout: Probability = Field(default=0.0, description="dropout of what comes in")
    init: InitKey = _init("the embedding or the linear map")


class OutputTable(Table):
    bias: bool = Field(default=True, description="add a learned bias to the output")
    tied: bool = Field(default=False, description="use the embedding as the output's weights")
    init: InitKey = _init("the output")


class DecoderTable(Table):
    """What writes a sequence of its own, from what the layers have read."""

    size: Positive = Field(description="width of the embedding of the tokens that it reads")
    layers: list[LayerTable] = Field(min_length=1, description="the layers that write")
    attention: Literal["none", "dot", "general", "additive"] = Field(
        default="none", description="how a step is scored against the steps that were read"
    )
    dropout: Probability = Field(default=0.0, description="of the embedded tokens")
    sampling: Probability = Field(
        default=0.0,
        description="scheduled sampling: how often a step reads what the model itself would write",
    )
    init: InitKey = _init("the decoder's parts that have no init of their own")
    input_init: InitKey = _init("the embedding of the tokens that it reads")
    bridge_init: InitKey = _init("the map from what was read to its first states")
    attention_init: InitKey = _init("its attention")
    output_init: InitKey = _init("its output")


class ClipTable(Table):
    """Exactly one of the two."""

    norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="the largest norm of the whole gradient; a longer one is scaled"
    )
    value: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="the largest size of each element of the gradient"
    )


class WorkersTable(Table):
    min: Positive = Field(description="the workers that a run starts and goes on with at least")
    max: Positive = Field(description="the workers that a run takes at most")


class DataTable(Table):
    path: str = Field(min_length=1, description="a dataset folder or the URI of one")
    base: str = Field(default=".", description="where relative paths start; the job file's folder")
    build: ReaderTable | None = Field(
        default=None, description="how to make the dataset if it is absent"
    )
    stale: Literal["refuse", "rebuild", "use"] = Field(
        default="refuse",
        description="what training does where build or its files have changed since the dataset "
        "was built; rebuild replaces it",
    )
    verify: bool = Field(
        default=True,
        description="compare each shard with its checksum, in a thread, when it is first read; a "
        "damaged one ends the run",
    )
    mode: Literal["streams", "examples", "forecast"] = Field(
        default="streams",
        description="streams: windows follow each other and the state is carried on; examples: "
        "batches of whole sequences; forecast: windows of the past and the steps after them",
    )
    scale: Literal["none", "standard"] = Field(
        default="none",
        description="standard: bring each figure to mean 0 and deviation 1 of the training part; "
        "predictions are brought back",
    )
    horizon: Positive = Field(default=1, description="steps ahead that mode = 'forecast' learns")
    period: Positive = Field(
        default=1, description="steps of a season, for a forecast and what it is compared with"
    )
    relative: Literal["none", "last", "season"] = Field(
        default="none",
        description="what a forecast learns: values, or what they are above the last one, or above "
        "those of the last season",
    )
    input: str | None = Field(default=None, description="the input column; the first one if absent")
    target: str | None = Field(
        default=None,
        description='the target column, or "next": the input a step later; if absent "next", and '
        "for a forecast the column 'target' where the data have one",
    )


class ModelTable(Table):
    input: InputTable = Field(description="what brings the input column to the layers")
    layers: list[LayerTable] = Field(description="may be empty where there is a decoder")
    pool: Literal["last", "mean", "max", "attention"] | None = Field(
        default=None,
        description="how a sequence's steps become one, for a target that is one a sequence",
    )
    pool_init: InitKey = _init("pool = 'attention'")
    decoder: DecoderTable | None = Field(
        default=None, description="what writes a sequence of its own from what was read"
    )
    output: OutputTable = Field(default=OutputTable(), description="the last linear map")
    init: InitKey = _init("every part that has no init of its own")
    loss: LossTable = Field(description="what is made small: a loss's name, or a table with one")


class TrainingTable(Table):
    batch: Positive = Field(default=32, description="rows of a batch, over all lanes")
    window: Positive = Field(
        default=64, description="steps between two truncations of the gradient"
    )
    stride: Positive | None = Field(
        default=None, description="steps between windows; the window if absent"
    )
    steps: Positive = Field(default=1000, description="batches to train")
    lanes: Positive = Field(
        default=1, description="equal groups of rows that workers share; part of the result"
    )
    seed: Count = Field(default=0, description="of all random numbers")
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="of parameters, states and sums"
    )
    precision: Literal["full", "tf32", "bf16"] = Field(
        default="full",
        description="how a GPU rounds what goes into matrix products; sums, states and parameters "
        "are dtype's, and a CPU computes in full",
    )
    threads: Count = Field(
        default=0, description="threads that compute lanes; 0: one a core. Changes no result"
    )
    blas_threads: Positive = Field(
        default=1,
        description="threads of one matrix product; part of what the result's last bits depend on",
    )
    kernel: str = Field(
        default="auto", description="what computes the cells; auto: the best one for the device"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where it computes; auto: a GPU if there is one"
    )
    optimizer: OptimizerTable = Field(description="an optimizer's name, or a table with one")
    schedule: ScheduleTable = Field(
        description="what the learning rate is multiplied by over the run"
    )
    clip: ClipTable | None = Field(
        default=None, description="a norm, or a table with norm or value; if absent nothing is cut"
    )
    evaluate_every: Count = Field(default=0, description="0: only at the end")
    evaluate_windows: Count = Field(
        default=0,
        description="how many windows of 'batch' rows an evaluation reads; 0: the whole split",
    )
    monitor: str = Field(
        default="valid_loss",
        description="the metric of an evaluation that says which checkpoint is the best, and that "
        "early stopping and a plateau go by",
    )
    mode: Literal["min", "max"] | None = Field(
        default=None,
        description="whether the monitored metric is better the lower or the higher it is; as is "
        "known of the metric if absent",
    )
    checkpoint_every: Count = Field(default=500, description="0: only at the end")
    keep: Positive = Field(
        default=3, description="the newest checkpoints that are kept, beside the best one"
    )
    log_every: Positive = Field(default=1, description="steps between two entries of metrics.jsonl")
    gradient_flow_every: Count = Field(default=0, description="0: never")
    edited: Literal["refuse", "use"] = Field(
        default="refuse",
        description="what a resumed run does where the equations of a cell, the loss or the "
        "optimizer have changed since its checkpoint",
    )
    callbacks: list[CallbackTable] = Field(
        default=[], description="what acts on the run after its evaluations"
    )


class ClusterTable(Table):
    workers: Positive | WorkersTable = Field(
        default=1, description="a whole number from 1, or a table { min = …, max = … } of two"
    )
    cpus: Positive = Field(default=1, description="CPUs of a worker, and threads for its lanes")
    gpus: Count | None = Field(
        default=None, description="GPUs of a worker; if absent 1 for device = 'cuda', else 0"
    )
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="custom resources of a worker, as the cluster's nodes name them"
    )
    placement: Literal["pack", "spread", "strict_pack", "strict_spread"] = Field(
        default="pack", description="on few nodes or on many; strict: else not at all"
    )
    niceness: Annotated[int, Field(ge=-20, le=19)] = Field(
        default=0, description="of the workers' processes, as nice(1) counts it"
    )
    exchange: str = Field(
        default="auto", description="what adds up gradients over workers; auto: by the device"
    )
    snapshot_every: Positive = Field(
        default=20, description="steps between copies in memory, which a lost worker is redone from"
    )
    start_timeout: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="seconds that the cluster has to start the workers"
    )
    deadline: Annotated[float, Field(gt=0)] = Field(
        default=120.0, description="seconds without progress after which a worker is ended"
    )

    @property
    def least(self) -> int:
        """How many workers a run starts with at least."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def most(self) -> int:
        """How many workers there may be."""
        return self.workers if isinstance(self.workers, int) else self.workers.max


class Job(Table):
    """A whole job, checked and resolved."""

    data: DataTable = Field(description="what is learned from")
    model: ModelTable = Field(description="what is learned")
    training: TrainingTable = Field(description="how it is learned")
    cluster: ClusterTable = Field(description="the workers of a Ray cluster")

    @property
    def base(self) -> Path:
        """The folder where relative paths of the job start."""
        return Path(self.data.base)

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved job, as TOML can hold it; ``read_job`` gives the same job again."""
        resolved = without_none(self.model_dump())
        assert isinstance(resolved, dict)
        return resolved


def without_none(value: Any) -> Any:
    """Return tables and lists without the keys whose value is None, which TOML cannot hold."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_none(v) for v in value]
    return value
