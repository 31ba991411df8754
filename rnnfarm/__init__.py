"""rnnfarm: recurrent cells written as equations, trained by truncated backpropagation through time.

A cell, a loss or an optimizer is a class with a method ``step``, whose equations are written with
``affine``, ``parameter``, ``tanh`` and the other functions here. The whole language, with what
cannot be written and what to write instead, is on one page: docs/language.md beside the README.
``help(rnnfarm.equations.language)`` has its functions, ``help(rnnfarm.Cell)``, ``Loss`` and
``Optimizer`` what each part declares. ``rnnfarm check DISTRIBUTION`` checks the parts of a plugin,
``rnnfarm explain CELL`` shows what becomes of a cell, and ``Recurrent``, ``evaluate_loss`` and
``apply_optimizer`` run a part on plain arrays.

Names are loaded at first use, so that ``import rnnfarm`` imports neither NumPy nor pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rnnfarm.api import train
    from rnnfarm.cluster.exchange import Exchange
    from rnnfarm.data.reader import Reader
    from rnnfarm.equations.language import (
        affine,
        equal,
        exp,
        layer_norm,
        log,
        maximum,
        minimum,
        parameter,
        pick,
        relu,
        row_max,
        row_sum,
        sigmoid,
        sign,
        softplus,
        split,
        sqrt,
        tanh,
        unit_index,
        where,
    )
    from rnnfarm.equations.parts import Cell, Loss, Optimizer
    from rnnfarm.hookspecs import hookimpl
    from rnnfarm.kernels.interface import Kernel
    from rnnfarm.nn.api import Recurrent
    from rnnfarm.on_arrays import apply_optimizer, evaluate_loss
    from rnnfarm.training.callback import Callback
    from rnnfarm.training.schedule import Schedule

_HOME = {
    "rnnfarm.cluster.exchange": "Exchange",
    "rnnfarm.data.reader": "Reader",
    "rnnfarm.equations.language": (
        "affine equal exp layer_norm log maximum minimum parameter pick relu row_max row_sum "
        "sigmoid sign softplus split sqrt tanh unit_index where"
    ),
    "rnnfarm.equations.parts": "Cell Loss Optimizer",
    "rnnfarm.hookspecs": "hookimpl",
    "rnnfarm.kernels.interface": "Kernel",
    "rnnfarm.nn.api": "Recurrent",
    "rnnfarm.on_arrays": "apply_optimizer evaluate_loss",
    "rnnfarm.api": "train",
    "rnnfarm.training.callback": "Callback",
    "rnnfarm.training.schedule": "Schedule",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [
    "Callback",
    "Cell",
    "Exchange",
    "Kernel",
    "Loss",
    "Optimizer",
    "Reader",
    "Recurrent",
    "Schedule",
    "__version__",
    "affine",
    "apply_optimizer",
    "equal",
    "evaluate_loss",
    "exp",
    "hookimpl",
    "layer_norm",
    "log",
    "maximum",
    "minimum",
    "parameter",
    "pick",
    "relu",
    "row_max",
    "row_sum",
    "sigmoid",
    "sign",
    "softplus",
    "split",
    "sqrt",
    "tanh",
    "train",
    "unit_index",
    "where",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'rnnfarm' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
