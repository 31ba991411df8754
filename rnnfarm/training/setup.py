"""From a job and its dataset to the things that train: network, loss, optimizer, windows, …

Parts are made here from names and validated settings; whoever holds the job and the dataset's path
can do it again and gets the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnfarm.data.dataset import Dataset
from rnnfarm.data.examples import Examples, Goal
from rnnfarm.data.forecasts import Forecasts
from rnnfarm.data.manifest import Column
from rnnfarm.data.observed import counted_by
from rnnfarm.data.scale import Scale
from rnnfarm.data.split import Split
from rnnfarm.data.streams import Streams
from rnnfarm.data.tables import TARGET
from rnnfarm.data.window import NEXT, Windows
from rnnfarm.equations.parts import Loss, part_name
from rnnfarm.errors import DataError, JobError, suggestion
from rnnfarm.job_inits import initial
from rnnfarm.job_tables import DecoderTable, Job, LayerTable, TrainingTable
from rnnfarm.job_unused import itself
from rnnfarm.kernels.choose import KernelChoice, installed_kernels
from rnnfarm.nn.decoder import DecoderSpec
from rnnfarm.nn.loss import LossFunction
from rnnfarm.nn.network import LayerSpec, Network, NetworkSpec
from rnnfarm.nn.recurrent import Recurrence
from rnnfarm.plugins import Registry
from rnnfarm.training.counts import target_counts


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

    @property
    def target_column(self) -> str:
        """The column that the targets are of: for the target ``next`` the input."""
        return self.input if self.target == NEXT else self.target

    @property
    def equations(self) -> dict[str, str]:
        """The fingerprints of the equations of its recurrent layers and of its loss."""
        found = {layer.name: layer.equations for layer in self.network.every_recurrent}
        loss = self.loss.equations
        return found if loss is None else found | {"loss": loss}


def make_model(
    job: Job,
    dataset: Dataset,
    registry: Registry,
    computes_here: bool = True,
    scales: Mapping[str, Scale] | None = None,
    learned: Mapping[str, Any] | None = None,
) -> Model:
    """The network and loss of a job; JobError where they do not fit the dataset.

    ``computes_here``: whether this process trains it; one that lets workers do it needs no device
    but the CPU. ``scales``: what a run has learned of them; by default they are learned here.
    ``learned``: the settings of the loss, in the same way.
    """
    name = job.data.input or next(iter(dataset.columns))
    column = _column(dataset, name, "data.input")
    target = _target_name(job, dataset)
    if target == name and job.data.mode != "forecast":
        raise JobError(f"data.target: {itself(target)}")
    read = name if target == NEXT else target
    wanted = _column(dataset, read, "data.target")
    loss: Loss = job.model.loss.create(registry)
    width = _target_width(loss, wanted, target)
    if job.data.mode == "forecast":
        width *= job.data.horizon
    goal = _goal(job, loss, wanted, target)
    if learned is not None:
        try:
            loss = type(loss)(**learned)
        except JobError as error:
            raise DataError(
                f"the checkpoint is damaged: the settings of its loss are wrong ({error}); use"
                " another one"
            ) from None
    elif loss.wants_counts:
        part = dataset.split("train")
        loss = loss.with_counts(target_counts(part, read, ahead=target == NEXT, goal=goal))
    outputs = loss.outputs(width)
    if job.model.output.tied and outputs != column.vocabulary:
        raise JobError(
            f"model.output.tied: the embedding is of {column.vocabulary} tokens and the output of "
            f"{outputs} classes; leave it out, or learn the tokens that are read"
        )
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
        scales = _learned_scales(job, dataset, loss, name, read)
    for one, scale in scales.items():
        if one in dataset.columns and len(scale.mean) != dataset.columns[one].width:
            raise DataError(
                f"{dataset.path}: column '{one}' has {dataset.columns[one].width} values a step, "
                f"and the checkpoint scales {len(scale.mean)}; use the data that it was trained on"
            )
    return Model(network, function, name, target, column, choice, goal, scales)


def _target_name(job: Job, dataset: Dataset) -> str:
    """Return the target that a job names, or means by naming none.

    A table with a column ``target`` has in it what is to be forecast, without what tells of time or
    of gaps.
    """
    if job.data.target is not None:
        return job.data.target
    return TARGET if job.data.mode == "forecast" and TARGET in dataset.columns else NEXT


def _learned_scales(
    job: Job, dataset: Dataset, loss: Loss, name: str, target: str
) -> Mapping[str, Scale]:
    """The scales of the columns of values; a target whose range a loss gives keeps its own."""
    if job.data.scale != "standard":
        return {}
    scaled = {name, target}
    if loss.target_range is not None:
        if name == target:
            raise JobError(
                f"data.scale: 'standard' scales the input, which is the target too, and "
                f"{part_name(loss)} learns it as it is; set scale = 'none', or take a target column"
            )
        scaled.discard(target)
    values = [one for one in sorted(scaled) if dataset.columns[one].kind == "values"]
    if not values:
        raise JobError(
            f"data.scale: 'standard' is of columns of values, and there is none to scale among "
            f"{', '.join(sorted({name, target}))}; leave it out"
        )
    train = dataset.split("train")
    return {one: Scale.of(train, one, is_target=one == target) for one in values}


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
    """Return what ``Forecasts`` is to forecast, and against what."""
    data = job.data
    return {"horizon": data.horizon, "relative": data.relative, "period": data.period}


def make_windows(job: Job, model: Model, dataset: Dataset, split: str) -> Windows:
    """Return the windows that train, of the split ``train``, or those that measure another one.

    JobError where a model reads whole sequences, and one of them is longer than a window.
    """
    part, training = dataset.split(split), job.training
    if split != "train":
        return measured_windows(job, model, part)
    common = reading_of(job, model) | _observed_in(part, model) | {"batch": training.batch}
    if job.data.mode == "forecast":
        return Forecasts(part, seed=training.seed, **forecast_of(job), **common)
    if job.data.mode == "streams":
        return Streams(part, stride=training.stride, **common)
    windows = Examples(part, goal=model.goal, seed=training.seed, **common)
    longest = int(windows.lengths.max())
    if (whole := reads_whole(job, model)) and longest > training.window:
        raise JobError(
            f"training.window: {whole} reads whole sequences, and the longest of "
            f"{dataset.path} ({split}) has {longest} steps; set window = {longest}"
        )
    return windows


#: Windows that say which sequence each of their rows is of.
Measured = Examples | Forecasts


def measured_windows(job: Job, model: Model, part: Split) -> Measured:
    """Return windows in which each step of a split that has a target is once, in order.

    Each sequence is read from start to end, with its state carried from window to window,
    so that what is measured does not depend on where windows end. A model that reads whole
    sequences is given windows as long as the longest one.
    """
    batch = min(job.training.batch, part.sequences)
    common = reading_of(job, model) | _observed_in(part, model) | {"batch": batch}
    drawn: dict[str, Any] = {"seed": job.training.seed, "shuffle": False}
    if job.data.mode == "forecast":
        common["batch"] = job.training.batch
        return Forecasts(part, **forecast_of(job), **drawn, **common)
    if reads_whole(job, model):
        common["window"] = max(longest_sequence(part), 1)
    return Examples(part, goal=model.goal, **drawn, **common)


def windows_to_evaluate(training: TrainingTable, windows: Windows) -> int:
    """Return how many of the windows of a split a run evaluates, 0 for all of them.

    ``training.evaluate_windows`` counts windows of ``training.batch`` rows. Of a split with fewer
    sequences as many more windows are read, so that as many steps are measured.
    """
    return training.evaluate_windows * -(-training.batch // windows.batch)


def reads_whole(job: Job, model: Model) -> str | None:
    """Return what of a model reads whole sequences at once, None where nothing does."""
    if model.goal == "labels":
        return "CTC"
    bidirectional = any(layer.bidirectional for layer in job.model.layers)
    return "a bidirectional layer" if bidirectional else None


def longest_sequence(part: Split) -> int:
    """Return the steps of the longest sequence of a split."""
    return int(np.diff(part.starts(), append=part.steps).max())


def _observed_in(part: Split, model: Model) -> dict[str, str | None]:
    """Return the column that says which targets were observed, as ``Reading`` has it."""
    return {"observed": counted_by(part.columns, model.target_column)}


def _goal(job: Job, loss: Loss, column: Column, target: str) -> Goal:
    """How the target is learned; JobError where the model has not the shape for it."""
    model, own = job.model, target != NEXT and column.own
    if job.data.mode == "forecast":
        if own:
            raise JobError(
                f"data.target: 'forecast' learns the steps after a window, and {target!r} is a "
                "list of its own for each sequence; take a target with an entry for every step"
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
        classes, ignored = column.vocabulary or 0, getattr(loss, "ignore", None)
        if ignored is not None and not 0 <= ignored < classes:
            raise JobError(
                f"model.loss.ignore: {ignored} is none of the classes of {target!r}, which are 0 "
                f"to {classes - 1}; leave it out"
            )
        return classes
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
