"""What a run gave, and ``run.json``."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnfarm.files import write_whole
from rnnfarm.plugins import Registry
from rnnfarm.strict_json import to_json
from rnnfarm.training.best import Best

#: What a table shows in another way, or not at all.
HIDDEN = ("best", "last", "valid_loss", "left_out")


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        best: the best evaluation by ``training.monitor``, whose checkpoint is ``best``.
        last: the metrics of the last evaluation, and its step.
        train_loss: of the last step of which a target counted.
        valid_loss: of the last evaluation.
        parameters_sha256: the hash of the bytes of the last parameters.
        seconds: how long it took, without what was lost in a kill; over all its pieces where it was
            resumed.
        left_out: what of each split no window has as a target.
    """

    run: str
    steps: int
    best: Best | None
    last: Mapping[str, Any] | None
    train_loss: float | None
    valid_loss: float | None
    parameters_sha256: str
    kernel: str
    workers: int
    elements_per_second: float | None
    seconds: float
    left_out: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": 1, **asdict(self)}

    def summary(self) -> dict[str, Any]:
        """The same for a table: the metrics of the last evaluation one by one."""
        last = {} if self.last is None else {f"last {k}": v for k, v in self.last.items()}
        shown = {"best": None if self.best is None else str(self.best), **last}
        rest = {k: v for k, v in asdict(self).items() if k not in HIDDEN}
        return {"run": rest.pop("run"), "steps": rest.pop("steps"), **shown, **rest}


def kernels_text(kernels: Mapping[str, str]) -> str:
    """Return the kernel that has computed everything, or those of layers, loss and optimizer.

    ``kernels`` has them by the names of layers, ``loss`` and ``optimizer``.
    """
    kinds: dict[str, set[str]] = {"layers": set()}
    for name, kernel in kernels.items():
        kinds.setdefault(name if name in ("loss", "optimizer") else "layers", set()).add(kernel)
    told = {kind: "/".join(sorted(found)) for kind, found in kinds.items() if found}
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return ", ".join(f"{kind}: {text}" for kind, text in told.items())


def write_run_json(
    out: Path, result: Mapping[str, Any], registry: Registry, stopped: str | None
) -> None:
    described = {
        **result,
        "stopped": stopped,
        "plugins": registry.versions(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    write_whole(out / "run.json", to_json(described, indent=1) + "\n")
