"""The persistent kernels of a plan, chosen for windows of one size, compiled and launched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnfarm.equations.regions import Program, Region
from rnnfarm.errors import DeviceError
from rnnfarm_cupy.figures import Figures
from rnnfarm_cupy.loop import LoopText, loop_of
from rnnfarm_cupy.persistent import KernelText, PersistentCode
from rnnfarm_cupy.predict import Choice, choose
from rnnfarm_cupy.runtime import Array, Launch, Runtime, arithmetic
from rnnfarm_cupy.source import THREADS, program_text

#: The environment's wish that blocks which wait too long say so.
DEBUG = "RNNFARM_CUDA_DEBUG"
#: How often a program is compiled at most until it keeps no registers in memory.
TRIES = 4


def loops_of(program: Program) -> dict[str, LoopText | str]:
    """For each region of steps what writes it as one kernel, or why that cannot be."""
    found: dict[str, LoopText | str] = {}
    for action in (*program.forward, *program.backward):
        if isinstance(action, Region) and action.kind in ("forward", "backward"):
            loop = loop_of(action)
            found[action.name] = loop if isinstance(loop, str) else LoopText(program, loop)
    return found


@dataclass(frozen=True)
class Resident:
    """Persistent kernels for windows of so many rows.

    Attributes:
        codes: by the names of their regions.
        groups: of rows, by the same.
        functions: of the compiled program, by their names.
    """

    codes: Mapping[str, PersistentCode]
    groups: Mapping[str, int]
    functions: Mapping[str, Any]


def choices(
    loops: Mapping[str, LoopText | str], rows: int, precision: str, figures: Figures
) -> list[Choice]:
    """What runs each region of steps; ``precision`` is ``float64`` in that dtype."""
    return [
        choose(name, one if isinstance(one, str) else one.work, rows, precision, figures)
        for name, one in loops.items()
    ]


def debugging() -> bool:
    return bool(os.environ.get(DEBUG))


def made(
    runtime: Runtime,
    loops: Mapping[str, LoopText | str],
    chosen: list[Choice],
    dtype: str,
    precision: str,
) -> tuple[Resident, Any]:
    """The persistent kernels that were chosen, and their program.

    Where the compiler has too few registers for what was predicted, fewer weights are kept in them.
    DeviceError where they cannot be compiled, or their blocks would not run at the same time.
    """
    products = arithmetic(dtype, precision)
    spreads = {one.region: one.prediction.spread for one in chosen if one.prediction is not None}
    groups = {name: spread.groups for name, spread in spreads.items()}
    partitions = {name: spread.partition for name, spread in spreads.items()}
    for _ in range(TRIES):
        codes = {
            name: KernelText(_text(loops, name), one, products).code()
            for name, one in partitions.items()
        }
        program = runtime.load(source_of(codes, dtype, precision))
        spilled = {name: program.spills(code.name) for name, code in codes.items()}
        relieved = dict(partitions)
        for name, size in spilled.items():
            loop = _text(loops, name).loop
            one = partitions[name].relieved(-(-size // 4), loop.shapes, loop.width, products)
            if one.sizes(loop.shapes, loop.width, products).shared <= runtime.shared_limit:
                relieved[name] = one
        if relieved == partitions:
            break
        partitions = relieved
    resident = Resident(codes, groups, functions_of(program, codes))
    for name, code in codes.items():
        blocks, partition = groups[name] * code.partition.slices, code.partition
        if not code.packs or partition.cluster:
            continue
        function = resident.functions[code.name]
        if blocks > (most := runtime.resident(function, partition.threads, code.shared)):
            raise DeviceError(
                f"{code.name} takes {blocks} blocks that wait for each other, and {runtime.name} "
                f"runs {most} at the same time"
            )
    return resident, program


def _text(loops: Mapping[str, LoopText | str], name: str) -> LoopText:
    found = loops[name]
    assert isinstance(found, LoopText)
    return found


def source_of(codes: Mapping[str, PersistentCode], dtype: str, precision: str) -> str:
    """The text of a program of persistent kernels."""
    kernels = [kernel for code in codes.values() for kernel in (*code.packs, code)]
    return program_text(dtype, precision, kernels, persistent=True, debug=debugging())


def functions_of(program: Any, codes: Mapping[str, PersistentCode]) -> dict[str, Any]:
    """The functions of a compiled program."""
    found = {}
    for code in codes.values():
        found[code.name] = program.function(code.name, code.shared)
        for pack in code.packs:
            found[pack.name] = program.function(pack.name)
    return found


class Room:
    """What a persistent kernel needs of a device's memory, beside the window's arrays."""

    def __init__(self, runtime: Runtime, code: PersistentCode, groups: int, word: Any) -> None:
        self.packed = [runtime.empty((words,), word) for words in code.packed_words]
        self.counters = runtime.empty((groups * 32,), np.uint32)
        self.slots = runtime.empty((max(1, groups * code.slot_words),), word)
        self.fault = runtime.empty((8,), np.int32)
        for array in (self.slots, self.fault):
            runtime.clear(array)


def go_through(
    runtime: Runtime,
    resident: Resident,
    code: PersistentCode,
    room: Room,
    window: tuple[int, int],
    pointers: Callable[[tuple[int, ...]], list[Array | None]],
) -> None:
    """Run a region's steps; ``pointers`` gives the arrays of buffers with these numbers."""
    steps, rows = window
    partition, groups = code.partition, resident.groups[code.region.name]
    for pack, packed, words in zip(code.packs, room.packed, code.packed_words, strict=True):
        blocks = min(-(-words // THREADS), 16 * runtime.multiprocessors)
        arguments = [packed, *pointers(pack.buffers)]
        function = resident.functions[pack.name]
        runtime.launch(Launch(function, (blocks, 1), THREADS, 0, arguments))
    waits = bool(code.packs)
    if waits and not partition.cluster:
        runtime.clear(room.counters)
    runtime.launch(
        Launch(
            resident.functions[code.name],
            (groups * partition.slices, 1),
            partition.threads,
            code.shared,
            [
                *(steps, rows, -(-rows // groups), room.counters, room.slots, room.fault),
                *room.packed,
                *pointers(code.buffers),
            ],
            together=waits and not partition.cluster,
            cluster=partition.slices if partition.cluster else 1,
        )
    )
    if debugging():
        _report(runtime, code, room)


def _report(runtime: Runtime, code: PersistentCode, room: Room) -> None:
    """Raise DeviceError where a block has given up its wait."""
    fault = [int(number) for number in runtime.get(room.fault)]
    if fault[0]:
        _, block, step, seen, wanted = fault[:5]
        group, slice_ = divmod(block, code.partition.slices)
        raise DeviceError(
            f"{code.name}: block {block} (group {group}, slice {slice_}) waited too long at step "
            f"{step}: its group's counter is {seen} and should be {wanted}, so a block of the "
            "group has stopped or does not run; please report this to the authors of rnnfarm-cupy"
        )
