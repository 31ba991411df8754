"""What the compiled kernel promises beyond right numbers: bits, targets, refusals."""

from __future__ import annotations

import logging
import math
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnnfarm_cpu import cache, compiler, kernel, source
from rnnfarm_cpu.compiler import NO_COMPILER, find_compiler
from rnnfarm_cpu.kernel import CPUKernel
from rnnfarm_cpu.processor import KINDS, this_target
from threadpoolctl import threadpool_limits

from rnnfarm import affine, doctor, log, maximum, parameter, tanh, where
from rnnfarm.builtin import cells
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import make_plan
from rnnfarm.kernels.case import Case, case_of, disagreement, variants
from rnnfarm.kernels.choose import KernelChoice
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.plugins import Registry
from rnnfarm.testing import check_kernel

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
CELLS: list[Cell] = [cells.LSTM(), cells.GRU(), cells.GRUResetBefore(), cells.LSTMLayerNorm()]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@needs_compiler
def test_the_conformance_kit() -> None:
    check_kernel(CPUKernel(), [cells.GRU()])


@needs_compiler
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("by_units", [False, True])
def test_threads_change_no_bit(cell: Cell, by_units: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rows and by units: all gradients, those that the BLAS computes included."""
    monkeypatch.setattr(kernel, "LARGE", 0 if by_units else 1 << 60)
    built = CPUKernel().build(make_plan(cell, 19, 33, variants(cell.states)["all"]), "float32")
    with threadpool_limits(1):
        for rows in (1, 2, 3, 7, 16):
            results = []
            for threads in (1, 2, 3, 4):
                case = case_of(built, (6, rows), rows, "float32")
                case.workspace = built.workspace(6, rows, threads)
                results.append(case.results())
            assert all(result == results[0] for result in results), rows


@needs_compiler
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_does_not_see_the_others(cell: Cell, dtype: str) -> None:
    """Weights of the input are 0: its product is the BLAS's, which rounds rows as it likes."""
    built = CPUKernel().build(make_plan(cell, 3, 33), dtype)
    case = case_of(built, (5, 13), 0, dtype)
    for name in case.parameters:
        if name.endswith(".x"):
            case.parameters[name][:] = 0
    whole = case.arrays()
    for row in range(13):
        alone = one_row(case, row)
        found = alone.arrays()
        for name in ("output", *(f"gradient of state {n}" for n in case.states)):
            there = whole[name][..., row : row + 1, :]
            assert found[name].tobytes() == there.tobytes(), (name, row)


def one_row(case: Case, row: int) -> Case:
    at = slice(row, row + 1)
    return Case(
        case.kernel,
        case.parameters,
        case.x[:, at].copy(),
        {name: array[at].copy() for name, array in case.states.items()},
        {},
        case.d_output[:, at].copy(),
        {name: array[at].copy() for name, array in case.d_states.items()},
    )


@needs_compiler
@pytest.mark.parametrize("target", ["avx2", "plain"])
def test_other_vectors(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets with fewer registers and shorter vectors; what this machine cannot run is skipped."""
    if target == "avx2" and this_target().name not in ("avx2", "avx512"):
        pytest.skip("this processor has no AVX2")
    monkeypatch.setenv("RNNFARM_CPU_TARGET", target)
    for cell in CELLS:
        plan = make_plan(cell, 7, 33, variants(cell.states)["all"])
        ours = case_of(CPUKernel().build(plan, "float32"), (6, 13), 0, "float32")
        theirs = case_of(NumPyKernel().build(plan, "float32"), (6, 13), 0, "float32")
        assert ours.kernel.variant == target
        assert disagreement(ours.arrays(), theirs.arrays(), 1e-4) is None


@needs_compiler
def test_the_source_for_neon_compiles_to_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 16 bytes and 32 registers, run on whatever this processor has."""
    monkeypatch.setitem(KINDS, "neon", (*KINDS["neon"][:2], ()))
    monkeypatch.setenv("RNNFARM_CPU_TARGET", "neon")
    plan = make_plan(cells.LSTM(), 7, 33)
    ours = case_of(CPUKernel().build(plan, "float32"), (6, 13), 0, "float32")
    theirs = case_of(NumPyKernel().build(plan, "float32"), (6, 13), 0, "float32")
    assert disagreement(ours.arrays(), theirs.arrays(), 1e-4) is None


@needs_compiler
def test_a_window_after_a_fork(fresh: Path) -> None:
    """A child has none of its parent's threads."""
    built = CPUKernel().build(make_plan(cells.LSTM(), 3, 17), "float32")
    case = case_of(built, (4, 8), 0, "float32")
    case.workspace = built.workspace(4, 8, 2)
    expected = case.results()["output"]
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(case.results()["output"]))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == expected


@needs_compiler
def test_the_self_check_runs_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    original = KernelChoice.build.__globals__["self_check"]
    monkeypatch.setitem(
        KernelChoice.build.__globals__,
        "self_check",
        lambda *args: checks.append(1) or original(*args),
    )
    choice = KernelChoice({"cpu": CPUKernel(), "numpy": NumPyKernel()})
    plan = make_plan(cells.Elman(), 3, 5)
    assert [choice.build(plan)[0] for _ in range(3)] == ["cpu"] * 3
    assert len(checks) == 1


@needs_compiler
def test_a_kernel_that_computes_wrong_numbers_is_refused(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = source.header
    wrong = "#define rnn_tanh rnn_sigmoid\n"
    monkeypatch.setattr(source, "header", lambda *args: original(*args) + wrong)
    choice = KernelChoice({"cpu": CPUKernel(), "numpy": NumPyKernel()})
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        assert choice.build(make_plan(cells.LSTM(), 3, 5))[0] == "numpy"
        choice.build(make_plan(cells.LSTM(), 3, 5))
    (message,) = [r.getMessage() for r in caplog.records]
    assert "the kernel 'cpu' is not used for LSTM: its output differs" in message
    assert "please report this" in message


class Sensible(Cell):
    """Finite only near what it starts with; and infinite constants."""

    def step(self, x: Any, h: Any) -> Any:
        gain = log(parameter("gain", init="constant:2"))
        v = maximum(gain * affine(x, h), -math.inf)
        return where(v < math.inf, tanh(v), math.nan)


@needs_compiler
def test_a_cell_that_is_finite_near_what_it_starts_with_keeps_its_kernel(
    fresh: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choice = KernelChoice({"cpu": CPUKernel(), "numpy": NumPyKernel()})
    assert choice.build(make_plan(Sensible(), 3, 50))[0] == "cpu"
    assert not caplog.text


def test_without_a_compiler(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    choice = KernelChoice({"cpu": CPUKernel(), "numpy": NumPyKernel()})
    with caplog.at_level(logging.WARNING, "rnnfarm"):
        assert choice.build(make_plan(cells.LSTM(), 3, 5))[0] == "numpy"
        choice.build(make_plan(cells.LSTM(), 4, 5))
    (message,) = [r.getMessage() for r in caplog.records]
    assert message == f"LSTM does not run on the kernel 'cpu': {NO_COMPILER}"
    missing = doctor.examine(Registry.load())["missing"]
    assert any(NO_COMPILER in sentence for sentence in missing)


def test_what_it_refuses() -> None:
    plan = make_plan(cells.LSTM(), 3, 5)
    assert "not on cuda" in str(CPUKernel().refusal(plan, "cuda", "float32"))
    assert "not in float16" in str(CPUKernel().refusal(plan, "cpu", "float16"))


@needs_compiler
def test_no_gradient_is_written_that_is_not_contiguous() -> None:
    built = CPUKernel().build(make_plan(cells.Elman(), 3, 5), "float32")
    case = case_of(built, (2, 2), 0, "float32")
    case.forward()
    gradients = {n: np.empty_like(a) for n, a in case.parameters.items()}
    gradients["W.bias"] = np.empty(10, np.float32)[::2]
    with pytest.raises(ValueError, match=r"gradient W\.bias: it must be a contiguous array"):
        built.backward(case.workspace, case.d_output, {}, gradients)
