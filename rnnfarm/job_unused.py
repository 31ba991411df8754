"""Keys of a job that would have no effect, or leave a model nothing to learn."""

from __future__ import annotations

from rnnfarm import job_tables as tables

Problem = tuple[str, str]
LEAVE = "leave it out"


def unused_data_keys(data: tables.DataTable) -> list[Problem]:
    """Return the keys of forecasts where there is none."""
    if data.mode == "forecast":
        if data.relative == "season" and data.period == 1:
            what = "is required with relative = 'season'; give the steps of a season"
            return [("data.period", what)]
        return []
    given = {
        "horizon": data.horizon != 1,
        "period": data.period != 1,
        "relative": data.relative != "none",
    }
    why = f"is of forecasts, and data.mode is '{data.mode}'; set data.mode = 'forecast' or {LEAVE}"
    return [(f"data.{key}", why) for key, is_given in given.items() if is_given]


def unused_decoder_keys(decoder: tables.DecoderTable) -> list[Problem]:
    """Return the keys of a decoder's layers that only layers that read have."""
    found = []
    for i, layer in enumerate(decoder.layers):
        path = f"model.decoder.layers.{i}"
        for key in ("bidirectional", "residual"):
            if getattr(layer, key):
                what = f"is for the layers that read; a decoder's are neither, so {LEAVE}"
                found.append((f"{path}.{key}", what))
        if layer.initial != "zero":
            what = f"means nothing here: a decoder starts from what was read; {LEAVE}"
            found.append((f"{path}.initial", what))
    return found


def unused_device_keys(training: tables.TrainingTable) -> list[Problem]:
    """Return a precision of products that nothing would be computed in."""
    if training.precision == "full":
        return []
    if training.device == "cpu":
        why = f"a CPU computes in full; {LEAVE}, or set training.device = 'cuda'"
    elif training.dtype == "float64":
        why = f"nothing is rounded with dtype = 'float64'; {LEAVE}, or set dtype = 'float32'"
    else:
        return []
    return [("training.precision", f"'{training.precision}' has no effect: {why}")]


def unused_gpus(training: tables.TrainingTable, cluster: tables.ClusterTable) -> list[Problem]:
    """Return a number of GPUs that goes against the device."""
    gpus, device = cluster.gpus, training.device
    if gpus and device == "cpu":
        what = f"{gpus} would lie idle with training.device = 'cpu'; {LEAVE}, or change the device"
        return [("cluster.gpus", what)]
    return []


def itself(target: str) -> str:
    """What is wrong with a target that is the input, and the fix."""
    return f"'{target}' is the input itself, and copying it is nothing to learn; take 'next'"


def nothing_to_learn(data: tables.DataTable, model: tables.ModelTable) -> list[Problem]:
    """Return what shows a model its own targets."""
    found = []
    if data.input is not None and data.target == data.input and data.mode != "forecast":
        found.append(("data.target", itself(data.target)))
    if data.mode == "examples" and data.target in (None, "next"):
        found += [
            (
                f"model.layers.{i}.bidirectional",
                "reads every step that comes after, and so the very one that data.target = 'next' "
                "asks for; take a column as the target, or leave it out",
            )
            for i, layer in enumerate(model.layers)
            if layer.bidirectional and model.pool is None and model.decoder is None
        ]
    return found
