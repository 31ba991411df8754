"""Fingerprints of equations: what changes them, and who compares them."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
from plugin_tools import install
from training_tools import REGISTRY, token_job, write_tokens

from rnnfarm import Cell, affine, parameter, tanh
from rnnfarm.equations.fingerprint import fingerprint
from rnnfarm.equations.parts import trace_cell, trace_loss, trace_optimizer
from rnnfarm.errors import CellError, JobError
from rnnfarm.job import read_job
from rnnfarm.nn.loss import LossFunction
from rnnfarm.plugins import Registry
from rnnfarm.training.checkpoint import newest_checkpoint
from rnnfarm.training.evaluate import evaluate_run
from rnnfarm.training.optimizer import OptimizerPass
from rnnfarm.training.session import train


class Scaled(Cell):
    gain: float = 1.0
    init: str = "zeros"
    decay: bool = False

    def step(self, x: Any, h: Any) -> Any:
        unused = affine(x, units=3)  # noqa: F841
        return tanh(self.gain * affine(x, h) + parameter("p", init=self.init, decay=self.decay))


class Renamed(Scaled):
    def step(self, x: Any, h: Any) -> Any:
        affine(x, units=3)
        both = affine(x, h)
        vector = parameter("p", init=self.init, decay=self.decay)
        return tanh(self.gain * both + vector)


def of(cell: Cell, inputs: int = 2, hidden: int = 3) -> str:
    return fingerprint(trace_cell(cell, inputs, hidden).new_states)


def test_it_is_of_what_is_computed_and_not_of_how_it_is_written() -> None:
    assert of(Scaled()) == of(Scaled()) == of(Renamed()) == of(Scaled(init="ones"))
    different = [
        of(Scaled()), of(Scaled(gain=1.0 + 2**-52)), of(Scaled(decay=True)),
        of(Scaled(), inputs=4), of(Scaled(), hidden=4),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


def test_built_in_parts_keep_theirs() -> None:
    """Of version 1 of the format: runs that are resumed depend on it."""
    found = {
        "lstm": fingerprint(trace_cell(REGISTRY.get("cells", "lstm")(), 2, 3).new_states),
        "cross_entropy": fingerprint(
            trace_loss(REGISTRY.get("losses", "cross_entropy")(), 3, 3).results
        ),
        "adam": fingerprint(trace_optimizer(REGISTRY.get("optimizers", "adam")()).outputs),
    }
    assert found == {
        "lstm": "2d7cac4df107651b",
        "cross_entropy": "a01937963530be03",
        "adam": "1338b12e5ad394d9",
    }


def drawn(kind: str) -> Any:
    """A part whose equations are others each time."""
    count = itertools.count(1)
    base = REGISTRY.get(kind, {"losses": "mse", "optimizers": "sgd"}[kind])

    def step(self: Any, first: Any, second: Any, **named: Any) -> Any:
        return base.step(self, first * float(next(count)), second, **named)

    return type("Drawn", (base,), {"step": step})()


def test_a_part_that_is_traced_otherwise_each_time_is_refused() -> None:
    with pytest.raises(CellError, match="Drawn: its equations are others each time"):
        LossFunction(drawn("losses"), 2, 2, "float32")
    with pytest.raises(CellError, match="draw no numbers of its own"):
        OptimizerPass(drawn("optimizers"), [(0, 3, False)], "float32")


CELL = """
    import random

    class Edited(Cell):
        def step(self, x, h):
            return {body}

    @hookimpl
    def rnnfarm_cells():
        return {{"edited": Edited}}
"""


def test_an_edited_cell_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_tokens(tmp_path / "data", {"train": [60, 40], "valid": [30]})
    run = tmp_path / "run"

    def job(body: str, **training: Any) -> tuple[Any, Registry]:
        install(tmp_path, monkeypatch, "edited-cells", CELL.format(body=body))
        registry = Registry.load()
        model = {"layers": [{"cell": "edited", "hidden": 3}]}
        return read_job(token_job(tmp_path / "data", model=model, **training), registry), registry

    with pytest.raises(CellError, match="Edited: its equations are others each time"):
        train(*job("tanh(affine(x, h) * random.random())"), out=run)
    train(*job("tanh(affine(x, h))", steps=2), out=run)
    found = newest_checkpoint(run / "checkpoints")
    assert found is not None
    assert set(found.facts["equations"]) == {"layer1", "loss", "optimizer"}
    same = job("tanh( affine(x, h) )", steps=3)
    assert train(*same, out=run, resume=True).steps == 3
    edited = job("tanh(1.5 * affine(x, h))", steps=4)
    with pytest.raises(
        JobError, match=r"the equations of layer1 are not those that .*step-00000003"
    ):
        train(*edited, out=run, resume=True)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        evaluate_run(run, edited[1])
    assert "the equations of layer1 are not those that" in caplog.text
    meant = job("tanh(1.5 * affine(x, h))", steps=4, edited="use")
    assert train(*meant, out=run, resume=True).steps == 4
    caplog.clear()
    evaluate_run(run, meant[1])
    assert "equations" not in caplog.text
