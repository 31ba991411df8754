"""What an author who has only the documentation is told of what cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_tools import install
from training_tools import token_job

from rnnfarm import Cell, Loss, Optimizer, affine, layer_norm, pick, row_max, split, tanh
from rnnfarm.equations.parts import trace_cell, trace_loss, trace_optimizer
from rnnfarm.errors import CellError, JobError, PluginError
from rnnfarm.job import read_job
from rnnfarm.plugins import Registry
from rnnfarm.testing.plugin import find_plugin

VECTOR = np.arange(3.0)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda x, h: h[0:2], ["split(v, parts)", "pick(v, k)"]),
        (lambda x, h: sum(h), ["split(v, parts)", "row_sum(v)"]),
        (lambda x, h: tuple(h), ["split(v, parts)", "row_sum(v)"]),
        (lambda x, h: h * h.shape[0], ["'.shape'", "v.width"]),
        (lambda x, h: h.T, ["'.T'", "affine(v)", "row_sum(a * b)"]),
        (lambda x, h: h.mean(), ["row_sum(v) / v.width"]),
        (lambda x, h: h / len(h), ["len()", "v.width"]),
        (lambda x, h: h * VECTOR, ["an array of shape (3,)", "parameter(name"]),
        (lambda x, h: VECTOR * h, ["an array of shape (3,)", "unit_index"]),
        (lambda x, h: np.float32(2) * h, ["the NumPy number", "float(…)"]),
        (lambda x, h: h.flat, ["only arithmetic", "split, pick"]),
        (lambda x, h: affine(x, units=9) * h, ["widths do not fit", "affine(…, units=…)"]),
    ],
)
def test_what_cannot_be_written_in_a_cell(step: Callable[..., Any], said: list[str]) -> None:
    cell = type("Wrong", (Cell,), {"step": lambda self, x, h: step(x, h)})()
    with pytest.raises(CellError) as raised:
        trace_cell(cell, 3, 4)
    message = str(raised.value)
    assert message.startswith("Wrong: ")
    assert "test_messages.py, line" in message
    for part in said:
        assert part in message


def test_a_loss_of_the_wrong_width() -> None:
    class Double(Loss):
        def outputs(self, width: int) -> int:
            return 2 * width

        def step(self, output: Any, target: Any) -> Any:
            return output - target

    with pytest.raises(
        CellError, match=r"'output' \(6 wide\) and 'target' \(3 wide\); say in outp"
    ):
        trace_loss(Double(), 6, 3)


@pytest.mark.parametrize(
    "row", [layer_norm, row_max, lambda v: pick(v, 0), lambda v: split(v, 1)[0]]
)
def test_rows_in_an_optimizer(row: Callable[..., Any]) -> None:
    class Rows(Optimizer):
        def step(self, param: Any, grad: Any, *, lr: Any, t: Any) -> Any:
            return param - lr * tanh(row(grad))

    with pytest.raises(CellError, match="in an optimizer, whose equations are of one element"):
        trace_optimizer(Rows())


CELLS = """
    class Plain(Cell):
        dt = 0.1

        def step(self, x, h):
            return tanh(affine(x, h)) * self.dt

    @hookimpl
    def rnnfarm_cells():
        return {"plain": Plain}
"""


def test_an_attribute_without_an_annotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = install(tmp_path, monkeypatch, "plain-cells", CELLS)
    registry = Registry.load()
    model = {"layers": [{"cell": "plain", "hidden": 3, "dt": 0.2}]}
    with pytest.raises(JobError, match=r"layers\.0\.dt: is an attribute .* write dt: float = …"):
        read_job(token_job(tmp_path / "data", model=model), registry)
    with pytest.raises(JobError, match="Plain: dt: is an attribute of the class without"):
        registry.get("cells", "plain")(dt=0.2)
    with pytest.raises(JobError, match="Plain: td: unknown key"):
        registry.get("cells", "plain")(td=0.2)
    points = file.parent / "plain_cells-1.0.dist-info" / "entry_points.txt"
    for named, kind in (("rnnfarm_cells", "function"), ("Plain", "class")):
        points.write_text(f"[rnnfarm]\nplain = plain_cells:{named}\n")
        (refused,) = [p.refused for p in Registry.load().plugins if p.distribution == "plain-cells"]
        assert f"its entry point names the {kind} '{named}'" in str(refused)
        assert f"write 'plain_cells' without ':{named}'" in str(refused)
    points.unlink()
    with pytest.raises(
        PluginError, match=r"'plain-cells' 1\.0 is installed and has no entry point"
    ):
        find_plugin(Registry.load(), "plain-cells")
