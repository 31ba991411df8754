"""Persistent kernels on this CPU: the bits of the step kernels, whatever the partition."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conformance_tools import CELLS, RANDOM_CELLS, as_float64, tamed, with_random_cells
from hypothesis import assume
from hypothesis import strategies as st
from random_cells import cell_of, plan_options, recipes_of_units
from rnnfarm_cupy import resident as running
from rnnfarm_cupy.figures import A100, H200, Figures
from rnnfarm_cupy.host import HostRuntime, find_compiler
from rnnfarm_cupy.kernel import CUDAKernel, CUDAWindowKernel, write
from rnnfarm_cupy.loop import LoopText
from rnnfarm_cupy.partition import Partition, Spread
from rnnfarm_cupy.predict import best, choose
from rnnfarm_cupy.resident import DEBUG, Resident
from rnnfarm_cupy.workspace import Workspace

from rnnfarm.builtin import cells
from rnnfarm.equations.parts import Cell
from rnnfarm.equations.plan import Plan, make_plan
from rnnfarm.errors import DeviceError
from rnnfarm.kernels.case import case_of, disagreement, variants
from rnnfarm.kernels.numpy import NumPyKernel

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
RUNTIME = HostRuntime()
#: Those whose steps have values of one width and no reductions.
OF_UNITS = [name for name in CELLS if name not in ("lstm-projection", "lstm-layer-norm")]
PRECISIONS = ("full", "tf32", "bf16", "float64")
NUMBERS = (1, 2, 3, 8)


def built(
    plan: Plan, precision: str, spread: Spread | None, runtime: HostRuntime = RUNTIME
) -> CUDAWindowKernel:
    dtype, precision = ("float64", "full") if precision == "float64" else ("float32", precision)
    made = CUDAKernel(runtime, precision, spread).build(plan, dtype)
    assert isinstance(made, CUDAWindowKernel)
    return made


def results(kernel: CUDAWindowKernel, window: tuple[int, int]) -> dict[str, bytes]:
    return case_of(kernel, window, 0, str(kernel.dtype)).results()


def share_bits(
    plan: Plan, precision: str, partition: Partition, windows: list[tuple[int, int, int]]
) -> None:
    """The persistent kernels of a partition and the step kernels on windows (T, B, groups)."""
    steps = built(plan, precision, None)
    for T, B, groups in windows:
        ours = built(plan, precision, Spread(partition, groups))
        assert set(ours.written.persistent) == {"forward", "backward"}
        found, expected = results(ours, (T, B)), results(steps, (T, B))
        for name, bits in expected.items():
            assert found[name] == bits, f"{name}, (T, B, groups) = {(T, B, groups)}"


@pytest.mark.parametrize("slices", NUMBERS)
@pytest.mark.parametrize("name", OF_UNITS)
def test_every_cell_and_partition(name: str, slices: int) -> None:
    """Slices and groups of 1, 2, 3 and 8; each cell has a precision and a width of its own."""
    number = OF_UNITS.index(name)
    hidden = (17, 31, 33, 5)[number % 4]
    plan = make_plan(CELLS[name], 5, hidden, variants(CELLS[name].states)["all"])
    windows = [(3, B, groups) for B, groups in zip((16, 21, 41, 90), NUMBERS, strict=True)]
    share_bits(plan, PRECISIONS[number % 4], Partition(slices), windows)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["lstm", "gru", "cornn"])
def test_the_reference(name: str, precision: str) -> None:
    plan = make_plan(CELLS[name], 7, 33, variants(CELLS[name].states)["plain"])
    ours = built(plan, precision, Spread(Partition(3), 2))
    case = tamed(case_of(ours, (5, 19), 1, str(ours.dtype)))
    theirs = as_float64(
        tamed(case_of(NumPyKernel().build(plan, "float64"), (5, 19), 1, str(ours.dtype)))
    )
    tolerance = {"full": 1e-5, "tf32": 4e-3, "bf16": 4e-2, "float64": 1e-10}[precision]
    assert disagreement(case.arrays(), theirs.arrays(), tolerance) is None


#: Partitions by what is special of them, the width that they are for, and the groups.
SPECIAL: dict[str, tuple[Partition, int, int]] = {
    "eight warps, weights in registers": (Partition(2, k_warps=8, kept=(99,)), 70, 1),
    "four times two warps": (Partition(3, column_groups=2, kept=(1,)), 70, 2),
    "four times four warps": (Partition(1, column_groups=4), 33, 2),
    "two groups of rows at a time": (Partition(2, 2, 2, kept=(2,)), 33, 1),
    "two groups of rows in turn": (Partition(3, 2, 1), 33, 1),
    "four groups of rows, two at a time": (Partition(2, 4, 2, k_warps=8), 17, 1),
    "few copies under way": (Partition(2, chunk=8, ahead=1), 140, 2),
    "longer copies": (Partition(2, chunk=16, ahead=2), 140, 2),
    "a cluster of two": (Partition(2, cluster=True), 128, 2),
    "a cluster of eight": (Partition(8, cluster=True, kept=(3,)), 128, 1),
    "a cluster, rows in turn": (Partition(4, 2, 1, cluster=True), 128, 1),
}


@pytest.mark.parametrize("special", SPECIAL)
def test_special_partitions(special: str) -> None:
    partition, hidden, groups = SPECIAL[special]
    number = list(SPECIAL).index(special)
    cell = (cells.GRU(), cells.LSTM(), cells.Elman())[number % 3]
    plan = make_plan(cell, 5, hidden, variants(cell.states)["all"])
    precision = ("full", "tf32", "bf16")[number % 3]
    if partition.cluster:
        precision = ("full", "tf32", "bf16")[(number // 3) % 3]
    rows = 16 * partition.row_groups * groups - 3
    share_bits(plan, precision, partition, [(3, rows, groups)])


@pytest.mark.parametrize("part", range(10))
def test_random_cells(part: int) -> None:
    """Cells with random equations: a hundred where RNNFARM_THOROUGH is set."""

    @with_random_cells(part, RANDOM_CELLS)
    def check(data: st.DataObject) -> None:
        width = data.draw(st.sampled_from((2, 3, 5, 17, 31)))
        cell = cell_of(data.draw(recipes_of_units()), width)
        plan = make_plan(cell, width, width, data.draw(plan_options()))
        slices, groups = (data.draw(st.sampled_from(NUMBERS)) for _ in range(2))
        ours = built(plan, "float64", Spread(Partition(slices), groups))
        # Gates that nothing uses leave zeros of another width.
        assume(set(ours.written.persistent) == {"forward", "backward"})
        window = (4, 3 + 2 * groups)
        found = tamed(case_of(ours, window, part))
        expected = tamed(case_of(NumPyKernel().build(plan, "float64"), window, part))
        with np.errstate(all="ignore"):
            assert disagreement(found.arrays(), expected.arrays(), 1e-10) is None

    check()


@pytest.mark.parametrize(
    ("name", "partition", "hidden"),
    [
        ("lstm", Partition(3, 2, 1), 33),
        ("cornn", Partition(2, k_warps=8), 33),
        ("mgu", Partition(2, cluster=True), 64),
    ],
)
def test_no_bit_depends_on_the_order_of_blocks(
    name: str, partition: Partition, hidden: int
) -> None:
    """Where a wait were missing, one order would see what another does not."""
    plan = make_plan(CELLS[name], 5, hidden, variants(CELLS[name].states)["all"])
    found = [
        results(built(plan, "full", Spread(partition, 2), HostRuntime(backwards)), (4, 37))
        for backwards in (False, True)
    ]
    assert found[0] == found[1]


def test_a_window_gives_the_same_bits_again() -> None:
    plan = make_plan(CELLS["lstm"], 5, 17, variants()["all"])
    case = case_of(built(plan, "full", Spread(Partition(2), 2)), (5, 9), 0, "float32")
    first = case.results()
    assert case.results() == first


# -- the choice -------------------------------------------------------------------------------


class Quick(HostRuntime):
    """A stand-in whose blocks do not take long to wait for each other."""

    def figures(self) -> Figures:
        return replace(super().figures(), barrier=1e-9, cluster_barrier=None, cluster_most=0)


def window_of(runtime: HostRuntime, cell: Cell | None = None) -> Any:
    """A case of a window that is long enough for persistent kernels."""
    plan = make_plan(cell or cells.LSTM(), 5, 17)
    return case_of(built(plan, "full", None, runtime), (9, 5), 0, "float32")


def test_persistent_kernels_are_chosen_where_they_are_predicted_to_win() -> None:
    chosen, slow = window_of(Quick()), window_of(RUNTIME)
    assert set(chosen.workspace.resident.codes) == {"forward", "backward"}
    assert slow.workspace.resident is None
    assert chosen.results() == slow.results()
    runtime = chosen.kernel.runtime
    before = runtime.launches
    chosen.forward()
    assert runtime.launches - before == 2  # the weights are packed, and all steps gone through


def test_nobody_waits_where_there_are_no_products() -> None:
    for region, loop in loops(cells.IndRNN(), 768, "full").items():
        assert isinstance(loop, LoopText)
        choice = choose(region, loop.work, 16, "full", H200)
        assert choice.persistent
        assert choice.prediction is not None
        assert choice.prediction.parts["wait"] == 0


def test_they_are_used_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNFARM_CUDA_PERSISTENT", "never")
    assert window_of(Quick()).workspace.resident is None


def test_a_grid_that_would_wait_forever_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    runtime = Quick()
    runtime.most_blocks = 1
    with caplog.at_level(logging.WARNING):
        case = window_of(runtime)
    assert case.workspace.resident is None
    assert "runs 1 at the same time" in caplog.text
    assert case.results() == window_of(RUNTIME).results()
    plan = make_plan(cells.LSTM(), 5, 17)
    with pytest.raises(DeviceError, match="2 blocks and only 1 of them can run at once"):
        results(built(plan, "full", Spread(Partition(2), 1), runtime), (2, 3))


def test_kernels_that_fail_their_self_check_are_not_used(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = running.source_of
    monkeypatch.setattr(
        running,
        "source_of",
        lambda *given: text(*given).replace("rnn_total<KW>(", "-rnn_total<KW>("),
    )
    with caplog.at_level(logging.WARNING):
        case = window_of(Quick())
    assert case.workspace.resident is None
    assert "lstm runs through kernels for every step" in caplog.text.lower()
    assert "in its self-check the output differs" in caplog.text
    assert case.results() == window_of(RUNTIME).results()


def test_a_wait_without_an_end_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    plan = make_plan(cells.LSTM(), 5, 17)
    kernel = built(plan, "full", Spread(Partition(3), 1))
    case = case_of(kernel, (4, 5), 0, "float32")
    case.results()  # with all blocks nobody waits too long
    whole = kernel.resident(4, 5)
    assert whole is not None
    # One of the three blocks is not started.
    fewer = {
        name: replace(code, partition=replace(code.partition, slices=2))
        for name, code in whole.codes.items()
    }
    broken = Resident(fewer, whole.groups, whole.functions)
    case.workspace = Workspace(kernel, 4, 5, broken)
    message = r"block \d \(group 0, slice \d\) waited too long at step 0: .* is 2 and should be 3"
    with pytest.raises(DeviceError, match=message):
        case.forward()


# -- predictions ------------------------------------------------------------------------------


def loops(cell: Cell, hidden: int, precision: str) -> dict[str, LoopText | str]:
    return write(make_plan(cell, hidden, hidden), "float32", precision).loops


@pytest.mark.parametrize("precision", ["full", "tf32", "bf16"])
@pytest.mark.parametrize(("rows", "hidden"), [(16, 768), (64, 512), (256, 1024), (32, 256)])
def test_partitions_fit_the_device(rows: int, hidden: int, precision: str) -> None:
    for figures in (H200, A100):
        for loop in loops(cells.LSTM(), hidden, precision).values():
            assert isinstance(loop, LoopText)
            found = best(loop.work, rows, precision, figures)
            if found is None:
                assert precision == "full" or figures is A100
                continue
            partition, groups = found.spread.partition, found.spread.groups
            assert partition.slices * groups <= figures.multiprocessors
            assert found.shared <= figures.shared
            assert found.registers <= min(255, figures.registers // partition.threads)
            assert -(-rows // groups) <= partition.rows
            assert figures is H200 or not partition.cluster
            assert found == best(loop.work, rows, precision, figures)


def test_a_choice_says_why() -> None:
    for region, loop in loops(cells.LSTM(), 768, "bf16").items():
        assert isinstance(loop, LoopText)
        said = choose(region, loop.work, 16, "bf16", H200).sentence()
        assert said.startswith(f"{region}: one persistent kernel, 2 groups of rows x 64 slices")
        assert "against" in said
    for loop in loops(cells.LSTMLayerNorm(), 64, "full").values():
        assert isinstance(loop, str)
        said = choose("forward", loop, 16, "full", H200).sentence()
        assert said.startswith("forward: kernels for every step, for it reduces whole rows")
    (forward, backward) = CUDAKernel(RUNTIME).remarks(
        make_plan(cells.LSTM(), 5, 17), "float32", 9, 5
    )[1:]
    assert "a persistent one" in forward
    assert backward.startswith("backward: ")
