"""What must hold between the keys of a job, each by itself being right."""

from __future__ import annotations

from collections.abc import Mapping

from rnnfarm import job_tables as tables
from rnnfarm.equations.parts import Loss
from rnnfarm.job_inits import forget_checks, init_checks
from rnnfarm.job_tables import Table
from rnnfarm.job_unused import (
    nothing_to_learn,
    unused_data_keys,
    unused_decoder_keys,
    unused_device_keys,
    unused_gpus,
)
from rnnfarm.plugins import Registry

Problem = tuple[str, str]
"""The dotted path of a key, and what is wrong there with the mend."""


def cross_checks(sections: Mapping[str, Table]) -> list[Problem]:
    """Return what is wrong between keys, as far as their sections are right by themselves."""
    found: list[Problem] = []
    data, model = sections.get("data"), sections.get("model")
    training, cluster = sections.get("training"), sections.get("cluster")
    if isinstance(model, tables.ModelTable):
        found += _model_checks(model) + init_checks(model)
        if isinstance(data, tables.DataTable):
            found += _direction_checks(data, model) + nothing_to_learn(data, model)
            found += _forecast_checks(data, model)
    if isinstance(data, tables.DataTable):
        found += unused_data_keys(data)
    if isinstance(training, tables.TrainingTable):
        found += _training_checks(training) + unused_device_keys(training)
        if isinstance(data, tables.DataTable):
            found += _stride_checks(data, training)
        if isinstance(cluster, tables.ClusterTable):
            found += _cluster_checks(cluster, training.lanes) + unused_gpus(training, cluster)
    return found


def _model_checks(model: tables.ModelTable) -> list[Problem]:
    found = []
    kind, size = model.input.kind, model.input.size
    if kind in ("embedding", "linear") and size is None:
        found.append(("model.input.size", f"is required with kind = '{kind}'; give it a width"))
    if kind in ("one_hot", "none") and size is not None:
        found.append(("model.input.size", f"means nothing with kind = '{kind}'; leave it out"))
    if model.output.tied and kind != "embedding":
        found.append(
            (
                "model.output.tied",
                f"needs an embedding to tie the output to, and the input's kind is '{kind}'; "
                "set model.input.kind = 'embedding' or leave it out",
            )
        )
    decoder = model.decoder
    if not model.layers and decoder is None:
        found.append(("model.layers", "is empty; give it at least one layer"))
    if decoder is not None:
        found += unused_decoder_keys(decoder)
    if decoder is not None and model.output.tied:
        found.append(
            ("model.output.tied", "cannot be used with a decoder, which has its own; leave it out")
        )
    return found


def part_checks(job: tables.Job, registry: Registry) -> list[Problem]:
    """Return what is wrong between keys and what the parts that they name are."""
    of_model = tied_check(job.model, registry) + forget_checks(job.model, registry)
    return of_model + _loss_checks(job, job.model.loss.create(registry))


def _loss_checks(job: tables.Job, loss: Loss) -> list[Problem]:
    """What a loss is of against the shape of the model and of its targets."""
    data, model, name = job.data, job.model, job.model.loss.name
    if data.mode == "forecast":
        if loss.target_kind == "classes":
            return [("model.loss", f"'{name}' is of classes, and a forecast of values; take mse")]
        if loss.target_range is not None and data.relative != "none":
            low, high = loss.target_range
            why = f"'{name}' is of targets from {low:g} to {high:g}, and differences are not"
            return [("data.relative", f"{why}; leave it out, or take another loss")]
        return []
    if loss.of_labels:
        shapes = {"pool": model.pool, "decoder": model.decoder}
        what = f"'{name}' learns labels from an output for every step; leave it out"
        found = [(f"model.{key}", what) for key, given in shapes.items() if given is not None]
        if data.mode != "examples":
            what = f"'{name}' reads whole sequences, and data.mode = '{data.mode}' has none; set"
            found.append(("model.loss", f"{what} data.mode = 'examples'"))
        return found
    if model.decoder is not None and not loss.of_classes:
        what = f"'{name}' is of values, and a decoder writes tokens; take cross_entropy"
        return [("model.loss", what)]
    return []


def _forecast_checks(data: tables.DataTable, model: tables.ModelTable) -> list[Problem]:
    """A forecast is one output for a window."""
    if data.mode != "forecast":
        return []
    found = []
    if model.pool is None:
        what = "is required with data.mode = 'forecast', which learns what comes after a window"
        found.append(("model.pool", f"{what} from all of it; set model.pool = 'last', say"))
    if model.decoder is not None:
        what = "writes tokens, and data.mode = 'forecast' learns values; leave it out"
        found.append(("model.decoder", what))
    return found


def tied_check(model: tables.ModelTable, registry: Registry) -> list[Problem]:
    """A tied output is the embedding transposed, so the last layer must be as wide as it."""
    if not model.output.tied or not model.layers:
        return []
    layer, size = model.layers[-1], model.input.size
    cell = layer.create(registry)
    width = cell.state_widths(layer.hidden)[cell.states[0]] * (1 + layer.bidirectional)
    if width == size:
        return []
    return [
        (
            "model.output.tied",
            f"the embedding is {size} wide and the last layer's output {width}; "
            f"set model.input.size = {width} or leave 'tied' out",
        )
    ]


def _direction_checks(data: tables.DataTable, model: tables.ModelTable) -> list[Problem]:
    if data.mode != "streams":
        return []
    shapes = {"model.decoder": model.decoder, "model.pool": model.pool}
    found = [
        (
            path,
            "reads whole sequences, and data.mode = 'streams' has none; set data.mode = 'examples'",
        )
        for path, given in shapes.items()
        if given is not None
    ]
    return found + [
        (
            f"model.layers.{i}.bidirectional",
            "cannot be used with data.mode = 'streams', where the future beyond a window is not "
            "there to be read backwards; set data.mode = 'examples' or leave it out",
        )
        for i, layer in enumerate(model.layers)
        if layer.bidirectional
    ]


def _stride_checks(data: tables.DataTable, training: tables.TrainingTable) -> list[Problem]:
    if data.mode == "streams" or training.stride in (None, training.window):
        return []
    return [
        (
            "training.stride",
            "windows overlap only with data.mode = 'streams'; with 'examples' leave it out",
        )
    ]


def _training_checks(training: tables.TrainingTable) -> list[Problem]:
    found = []
    batch, lanes = training.batch, training.lanes
    if batch % lanes:
        near = max(lanes, round(batch / lanes) * lanes)
        found.append(
            (
                "training.batch",
                f"{batch} rows do not divide into {lanes} equal lanes; "
                f"make it a multiple of training.lanes, such as {near}",
            )
        )
    if training.stride is not None and training.stride > training.window:
        found.append(
            (
                "training.stride",
                f"{training.stride} is more than the window of {training.window} steps, so that "
                "steps would be left out; make it at most training.window",
            )
        )
    if training.clip and (training.clip.norm is None) == (training.clip.value is None):
        found.append(("training.clip", "give exactly one of 'norm' and 'value'"))
    return found


def _cluster_checks(cluster: tables.ClusterTable, lanes: int) -> list[Problem]:
    least, most = cluster.least, cluster.most
    if least > most:
        return [("cluster.workers", f"min = {least} is more than max = {most}; swap them")]
    if most > lanes:
        return [("cluster.workers", too_many_workers(most, lanes))]
    return []


def too_many_workers(workers: int, lanes: int) -> str:
    """What is wrong with more workers than lanes, and the mend."""
    return (
        f"{workers} workers cannot share {lanes} lane{'s' * (lanes > 1)}; set training.lanes "
        f"to {workers} or more, or use at most {lanes}"
    )
