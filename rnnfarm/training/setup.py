"""From a job and its dataset to the things that train: network, loss, optimizer, windows, …

Parts are made here from names and validated settings; whoever holds the job and the dataset's path
can do it again and gets the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.examples import Examples, Goal
from rnnfarm.data.forecasts import Forecasts
from rnnfarm.data.manifest import Column
from rnnfarm.data.scale import Scale
from rnnfarm.data.streams import Streams
from rnnfarm.data.window import NEXT, OBSERVED, Windows
from rnnfarm.equations.initial import Init
from rnnfarm.equations.parts import Loss
from rnnfarm.errors import JobError, suggestion
from rnnfarm.job_tables import DecoderTable, InitKey, InitTable, Job, LayerTable, ModelTable
from rnnfarm.kernels.choose import KernelChoice, installed_kernels
from rnnfarm.nn.decoder import DecoderSpec
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import LayerSpec, Network, NetworkSpec
from rnnfarm.nn.recurrent import Recurrence
from rnnfarm.plugins import Registry


@dataclass(frozen=True)
class Model:
    """A network and its loss, with the columns that they read.

    Attributes:
        input, target: the columns' names; ``target`` may be ``next``.
        column: the input column.
        goal: how a target that is a sequence's own is learned; see ``data.examples``.
        scales: how columns of values are scaled, by their names; learned from the training part.
    """

    network: Network
    loss: LossFunction
    input: str
    target: str
    column: Column
    choice: KernelChoice
    goal: Goal = "steps"
    scales: Mapping[str, Scale] = field(default_factory=dict)


def make_model(
    job: Job,
    dataset: Dataset,
    registry: Registry,
    computes_here: bool = True,
    scales: Mapping[str, Scale] | None = None,
) -> Model:
    """The network and loss of a job; JobError where they do not fit the dataset.

    ``computes_here``: whether this process trains it; one that lets workers do it needs no device
    but the CPU. ``scales``: what a run has learned of them; by default they are learned here.
    """
    name = job.data.input or next(iter(dataset.columns))
    column = _column(dataset, name, "data.input")
    target = job.data.target
    wanted = column if target == NEXT else _column(dataset, target, "data.target")
    loss: Loss = job.model.loss.create(registry)
    width = _target_width(loss, wanted, target)
    if job.data.mode == "forecast":
        width *= job.data.horizon
    goal = _goal(job, loss, wanted, target)
    outputs = loss.outputs(width)
    kernels = installed_kernels(registry)
    kernel: str = job.training.kernel
    device: str = job.training.device
    if not computes_here:
        device = "cpu"
        kernel = kernel if kernel in kernels and "cpu" in kernels[kernel].devices else "auto"
    choice = KernelChoice(
        kernels,
        kernel,
        device,
        job.training.dtype,
        job.training.precision,
    )
    network = Network(_network_spec(job, column, outputs, registry), choice)
    function = LossFunction(loss, outputs, width, job.training.dtype, choice)
    if scales is None:
        scales = _learned_scales(job, dataset, {name, name if target == NEXT else target})
    return Model(network, function, name, target, column, choice, goal, scales)


def _learned_scales(job: Job, dataset: Dataset, columns: set[str]) -> Mapping[str, Scale]:
    if job.data.scale != "standard":
        return {}
    values = [name for name in sorted(columns) if dataset.columns[name].kind == "values"]
    return {name: Scale.of(dataset.split("train"), name) for name in values}


def reading_of(job: Job, model: Model) -> dict[str, Any]:
    """What all windows of a model read, and how; of ``Reading``."""
    return {
        "input": model.input,
        "target": model.target,
        "window": job.training.window,
        "dtype": job.training.dtype,
        "scales": model.scales,
    }


def forecast_of(job: Job) -> dict[str, Any]:
    """What ``Forecasts`` foretells."""
    data = job.data
    return {"horizon": data.horizon, "relative": data.relative, "period": data.period}


def make_windows(job: Job, model: Model, dataset: Dataset, split: str) -> Windows:
    """The windows of a split: the batch's rows for training, at most as many for another split."""
    training = job.training
    part = dataset.split(split)
    batch, bidirectional = training.batch, any(layer.bidirectional for layer in job.model.layers)
    common = reading_of(job, model)
    common["observed"] = OBSERVED if dataset.columns.get(OBSERVED) == Column.tokens(2) else None
    drawn: dict[str, Any] = {"seed": training.seed, "shuffle": split == "train"}
    if job.data.mode == "forecast":
        return Forecasts(part, batch=batch, **forecast_of(job), **drawn, **common)
    if job.data.mode == "examples":
        windows = Examples(part, batch=batch, goal=model.goal, **drawn, **common)
        longest = int(windows.lengths.max())
        whole = "a bidirectional layer" if bidirectional else None
        whole = "CTC" if model.goal == "labels" else whole
        if whole and longest > training.window:
            raise JobError(
                f"training.window: {whole} reads whole sequences, and the longest of "
                f"{dataset.path} ({split}) has {longest} steps; set window = {longest}"
            )
        return windows
    if split != "train":
        # Few and long streams: what is measured should not start from a zero state too often.
        common["window"] = window = min(training.window, part.steps)
        batch = max(1, min(batch, part.steps // (8 * window)))
    stride = training.stride if split == "train" else None
    return Streams(part, batch=batch, stride=stride, **common)


def _goal(job: Job, loss: Loss, column: Column, target: str) -> Goal:
    """How the target is learned; JobError where the model has not the shape for it."""
    model, own = job.model, target != NEXT and column.own
    if job.data.mode == "forecast":
        if model.pool is None or model.decoder is not None or own:
            raise JobError(
                "data.mode: 'forecast' learns what comes after a window from all of it; set "
                'model.pool = "last", leave out model.decoder, and take a target with an entry for '
                "every step"
            )
        return "steps"
    what = f"the target {target!r} is a list of its own for each sequence"
    if not own:
        wrong = "decoder" if model.decoder is not None else "pool" if model.pool else None
        wrong = "loss" if loss.of_labels else wrong
        if wrong:
            raise JobError(
                f"model.{wrong}: it is for a target that is a list of its own for each sequence, "
                f"and {target!r} has an entry for every step; take another target, or leave it out"
            )
        return "steps"
    if job.data.mode != "examples":
        raise JobError(f'data.mode: {what}; set data.mode = "examples"')
    if model.decoder is not None:
        if column.kind != "tokens":
            raise JobError(f"model.decoder: it writes tokens, and the target {target!r} is values")
        return "decoded"
    if loss.of_labels:
        return "labels"
    if model.pool is None:
        raise JobError(
            f"model.pool: {what}; set pool (last, mean, max or attention) where that is one label "
            'or vector, model.loss = "ctc" for labels in the order of the steps, or model.decoder'
        )
    return "one"


def _column(dataset: Dataset, name: str, field: str) -> Column:
    if name not in dataset.columns:
        raise JobError(
            f"{field}: {dataset.path} has no column {name!r}; " + suggestion(name, dataset.columns)
        )
    return dataset.columns[name]


def _target_width(loss: Loss, column: Column, target: str) -> int:
    """The number of classes or values of a step's target; JobError where the loss wants others."""
    is_tokens = column.kind == "tokens"
    if loss.target_kind == "classes":
        if not is_tokens:
            raise JobError(
                f"model.loss: {type(loss).__name__} wants classes, and the target {target!r} is "
                "values; take a loss of values such as mse, or a column of tokens"
            )
        return column.vocabulary or 0
    if is_tokens:
        raise JobError(
            f"model.loss: {type(loss).__name__} wants values, and the target {target!r} is tokens; "
            "take cross_entropy, or a column of values"
        )
    return column.width


def _network_spec(job: Job, column: Column, outputs: int, registry: Registry) -> NetworkSpec:
    given = job.model.input
    is_tokens = column.kind == "tokens"
    if is_tokens != (given.kind in ("embedding", "one_hot")):
        fitting = "embedding or one_hot" if is_tokens else "linear or none"
        raise JobError(
            f"model.input.kind: {given.kind!r} does not fit a column of {column.kind}; "
            f"take {fitting}"
        )
    return NetworkSpec(
        input=given.kind,
        input_width=(column.vocabulary or 0) if is_tokens else column.width,
        layers=[_layer_spec(layer, registry) for layer in job.model.layers],
        outputs=outputs,
        size=given.size,
        input_dropout=given.dropout,
        output_bias=job.model.output.bias,
        tied=job.model.output.tied,
        pool=job.model.pool or ("last" if job.model.decoder is not None else None),
        decoder=_decoder_spec(job.model.decoder, outputs, registry),
        init=initial(job.model),
    )


def initial(model: ModelTable) -> dict[str, Init]:
    """Return how the parameters of each layer of the network start, by the layer's name."""
    given: dict[str, list[InitKey]] = {
        "input": [model.input.init],
        "pool": [model.pool_init],
        "output": [model.output.init],
    }
    given |= {f"layer{k}": [layer.init] for k, layer in enumerate(model.layers, 1)}
    decoder = model.decoder
    if decoder is not None:
        own = {
            "input": decoder.input_init,
            "bridge": decoder.bridge_init,
            "attention": decoder.attention_init,
        }
        own |= {f"layer{k}": layer.init for k, layer in enumerate(decoder.layers, 1)}
        given |= {f"decoder.{name}": [one, decoder.init] for name, one in own.items()}
        given["output"] = [decoder.output_init, decoder.init]
    return {name: _over([*keys, model.init]) for name, keys in given.items()}


def _over(keys: Sequence[InitKey]) -> Init:
    """Return what the first of them that says something says."""
    found = Init()
    for key in keys:
        found = found.over(Init.read(key.model_dump() if isinstance(key, InitTable) else key))
    return found


def _decoder_spec(
    table: DecoderTable | None, outputs: int, registry: Registry
) -> DecoderSpec | None:
    if table is None:
        return None
    return DecoderSpec(
        vocabulary=outputs,
        size=table.size,
        layers=[_layer_spec(layer, registry) for layer in table.layers],
        attention=table.attention,
        sampling=table.sampling,
        input_dropout=table.dropout,
    )


def _layer_spec(layer: LayerTable, registry: Registry) -> LayerSpec:
    return LayerSpec(
        cell=layer.create(registry),
        hidden=layer.hidden,
        recurrence=Recurrence(layer.initial, layer.zoneout, layer.recurrent_dropout),
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
        residual=layer.residual,
    )
