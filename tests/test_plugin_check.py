"""``rnnfarm check``: mistakes that pass no longer, and warnings of what may be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Call
from plugin_tools import install

from rnnfarm import (
    Cell,
    affine,
    layer_norm,
    pick,
    row_sum,
    split,
    sqrt,
    tanh,
    unit_index,
    where,
)
from rnnfarm.kernels.interface import Kernel
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.testing import check_cell
from rnnfarm.testing.fused import check_on_kernels

MISTAKES = """
    from rnnfarm import Cell, Loss, Optimizer

    class Typo(Cell):
        states = ("h", "c", "memory")

        def step(self, x, h, c, memory):
            i, f, o = affine(x, h, gates="ifo")
            gain = parameter("gain")
            spare = affine(x, name="spare")
            c = sigmoid(f) * c + sigmoid(i) * tanh(c)
            return sigmoid(f) * tanh(c), c, memory

    class Loose(Cell):
        dt = 0.1
        _private = 3
        known: int = 2

        def step(self, x, h):
            return tanh(affine(x, h)) * self.dt

    class Taken(Cell):
        dropout: float = 0.1

        def step(self, x, h):
            return tanh(affine(x, h))

    class Pairs(Cell):
        def step(self, x, h):
            left, right = split(x, 2)
            return tanh(affine(left, h) + affine(right))

    class Deaf(Loss):
        def step(self, output, target):
            return target * target

    class Rows(Optimizer):
        def step(self, param, grad, *, lr, t):
            return param - lr * grad / row_sum(grad * grad)

    class Warm(Optimizer):
        def step(self, param, grad, *, lr, t):
            return where(t > 1, param - lr * grad, param - 0.5 * lr * grad)

    @hookimpl
    def rnnfarm_cells():
        return {"typo": Typo, "loose": Loose, "taken": Taken, "pairs": Pairs}

    @hookimpl
    def rnnfarm_losses():
        return {"deaf": Deaf}

    @hookimpl
    def rnnfarm_optimizers():
        return {"rows": Rows, "warm": Warm}
"""


def test_what_an_author_gets_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    install(tmp_path, monkeypatch, "my-mistakes", MISTAKES)
    only = {"numpy": NumPyKernel()}  # nothing to compile: what kernels do is tested below
    monkeypatch.setattr("rnnfarm.testing.plugin.installed_kernels", lambda registry: only)
    code, out, _ = call("check", "my-mistakes", "--json")
    assert code == 3
    found = {part["name"]: part for part in json.loads(out)["parts"]}
    results = {name: part["result"] for name, part in found.items()}
    assert results == {
        "typo": "passed", "loose": "passed", "taken": "failed", "pairs": "passed",
        "deaf": "failed", "rows": "failed", "warm": "passed",
    }  # fmt: skip
    assert found["typo"]["warnings"] == [
        f"nothing depends on its {what}; use it, or leave it out"
        for what in (
            "parameter 'gain'", "parameter 'spare.x'", "parameter 'spare.bias'", "gate 'o'",
            "state 'memory', which never changes",
        )
    ]  # fmt: skip
    (loose,) = found["loose"]["warnings"]
    assert "write dt: float = … for a setting" in loose
    assert found["taken"]["note"].endswith(
        "declares the setting 'dropout', which is a key of the job file itself; rename the setting"
    )
    (pairs,) = found["pairs"]["warnings"]
    assert "it does not take every width: with 1 inputs and 1 units, Pairs: split" in pairs
    assert "nothing of it depends on the output" in found["deaf"]["note"]
    assert "Rows: row_sum in an optimizer" in found["rows"]["note"]
    assert not found["warm"]["warnings"]
    code, out, _ = call("check", "my-mistakes")
    assert f"        warning: {loose}" in out.splitlines()


class Wrong(NumPyKernel):
    """A kernel of somebody's that has mistakes."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def refusal(self, plan: Any, device: str, dtype: str) -> str | None:
        return "it has no such unit" if self.mistake == "refuses" else None

    def missing(self) -> str | None:
        return "there is no such device" if self.mistake == "missing" else None

    def build(self, plan: Any, dtype: str) -> Any:
        if self.mistake == "raises":
            raise RuntimeError("no such instruction")
        built = super().build(plan, dtype)
        if self.mistake == "wrong":
            forward = built.forward
            built.forward = lambda *a: forward(*a) * 1.01  # type: ignore[method-assign]
        return built


class Plain(Cell):
    def step(self, x: Any, h: Any) -> Any:
        return tanh(affine(x, h))


def kernels(mistake: str) -> dict[str, Kernel]:
    return {"numpy": NumPyKernel(), "theirs": Wrong(mistake)}


def test_every_kernel_is_tried() -> None:
    assert check_on_kernels(Plain(), kernels("")) == []
    assert check_on_kernels(Plain(), kernels("missing")) == []
    (note,) = check_on_kernels(Plain(), kernels("refuses"))
    assert note == "the kernel 'theirs' does not run it: it has no such unit"
    with pytest.raises(AssertionError, match="Plain: the kernel 'theirs' cannot be used for it"):
        check_on_kernels(Plain(), kernels("wrong"))
    with pytest.raises(AssertionError, match="'theirs' fails with RuntimeError: no such"):
        check_on_kernels(Plain(), kernels("raises"))


class Rooted(Cell):
    def step(self, x: Any, h: Any) -> Any:
        both = affine(x, h)
        small = tanh(both) - 0.5
        root = sqrt(small * where(x.width * small > 9.0, 1.0, small - 3.0))
        return tanh(root + layer_norm(both) + pick(both, 0))


class Grown(Cell):
    def step(self, x: Any, h: Any) -> Any:
        left, right = split(h, 2)
        total = affine(left, x) + row_sum(right)
        return total * total + 1.0 + unit_index(h.width)


def test_the_line_that_gives_no_number_is_named() -> None:
    with pytest.raises(
        AssertionError, match=r"test_plugin_check\.py, line \d+: root = sqrt\(small"
    ):
        check_cell(Rooted())
    with pytest.raises(
        AssertionError, match=r"not finite at step \d+ of 200 .*line \d+: return total \* total"
    ):
        check_cell(Grown())
