"""The parts that rnnfarm brings along, given through the same hooks as anyone's."""

from __future__ import annotations

from rnnfarm.hookspecs import Parts, hookimpl


@hookimpl
def rnnfarm_cells() -> Parts:
    return {
        "elman": "rnnfarm.builtin.cells:Elman",
        "jordan": "rnnfarm.builtin.cells:Jordan",
        "lstm": "rnnfarm.builtin.cells:LSTM",
        "lstm_peephole": "rnnfarm.builtin.cells:LSTMPeephole",
        "lstm_projection": "rnnfarm.builtin.cells:LSTMProjection",
        "lstm_layer_norm": "rnnfarm.builtin.cells:LSTMLayerNorm",
        "gru": "rnnfarm.builtin.cells:GRU",
        "gru_reset_before": "rnnfarm.builtin.cells:GRUResetBefore",
        "mgu": "rnnfarm.builtin.cells:MGU",
        "mgu_gate_after": "rnnfarm.builtin.cells:MGUGateAfter",
        "indrnn": "rnnfarm.builtin.cells:IndRNN",
    }


@hookimpl
def rnnfarm_losses() -> Parts:
    return {
        "mse": "rnnfarm.builtin.losses:MeanSquaredError",
        "cross_entropy": "rnnfarm.builtin.losses:CrossEntropy",
        "binary_cross_entropy": "rnnfarm.builtin.losses:BinaryCrossEntropy",
        "huber": "rnnfarm.builtin.losses:Huber",
        "quantile": "rnnfarm.builtin.losses:Quantile",
        "gaussian": "rnnfarm.builtin.losses:Gaussian",
        "ctc": "rnnfarm.builtin.losses:CTC",
    }


@hookimpl
def rnnfarm_optimizers() -> Parts:
    return {
        "sgd": "rnnfarm.builtin.optimizers:SGD",
        "momentum": "rnnfarm.builtin.optimizers:Momentum",
        "nesterov": "rnnfarm.builtin.optimizers:Nesterov",
        "adagrad": "rnnfarm.builtin.optimizers:Adagrad",
        "rmsprop": "rnnfarm.builtin.optimizers:RMSProp",
        "adam": "rnnfarm.builtin.optimizers:Adam",
        "adamw": "rnnfarm.builtin.optimizers:AdamW",
        "lion": "rnnfarm.builtin.optimizers:Lion",
    }


@hookimpl
def rnnfarm_schedules() -> Parts:
    return {
        "constant": "rnnfarm.builtin.schedules:Constant",
        "step": "rnnfarm.builtin.schedules:Step",
        "cosine": "rnnfarm.builtin.schedules:Cosine",
        "linear": "rnnfarm.builtin.schedules:Linear",
        "inverse_sqrt": "rnnfarm.builtin.schedules:InverseSqrt",
        "plateau": "rnnfarm.builtin.schedules:Plateau",
    }


@hookimpl
def rnnfarm_kernels() -> Parts:
    return {"numpy": "rnnfarm.kernels.numpy:NumPyKernel"}


@hookimpl
def rnnfarm_readers() -> Parts:
    return {
        "bytes": "rnnfarm.builtin.readers:Bytes",
        "characters": "rnnfarm.builtin.readers:Characters",
        "words": "rnnfarm.builtin.readers:Words",
        "csv": "rnnfarm.builtin.readers:CSV",
        "parquet": "rnnfarm.builtin.readers:Parquet",
        "numpy": "rnnfarm.builtin.readers:NumPyArrays",
        "python-source": "rnnfarm.builtin.readers:PythonSource",
        "labelled-text": "rnnfarm.builtin.labels:LabelledText",
        "parallel-text": "rnnfarm.builtin.parallel:ParallelText",
        "timeseries": "rnnfarm.builtin.timeseries:TimeSeries",
        "wav": "rnnfarm.builtin.audio:Wav",
        "digit-lines": "rnnfarm.builtin.digits:DigitLines",
        "digit-scenes": "rnnfarm.builtin.digits:DigitScenes",
        "adding": "rnnfarm.builtin.adding:Adding",
    }


@hookimpl
def rnnfarm_callbacks() -> Parts:
    return {"early_stopping": "rnnfarm.builtin.callbacks:EarlyStopping"}


@hookimpl
def rnnfarm_exchanges() -> Parts:
    return {"object_store": "rnnfarm.cluster.object_store:ObjectStore"}
