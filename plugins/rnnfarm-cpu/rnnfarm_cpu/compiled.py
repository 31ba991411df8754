"""A generated program, compiled: what windows and rows have in common."""

from __future__ import annotations

import ctypes

from rnnfarm.errors import DeviceError
from rnnfarm_cpu.cache import load_library
from rnnfarm_cpu.compiler import NO_COMPILER, find_compiler
from rnnfarm_cpu.processor import Target


class Compiled:
    """A kernel whose program is a library.

    Attributes:
        source: the program.
        checked: whether it has passed its self-check on this machine before.
    """

    source: str
    checked: bool

    def compile(self, source: str, target: Target) -> None:
        """Have the program compiled, or find it. DeviceError where there is no compiler."""
        compiler = find_compiler()
        if compiler is None:
            raise DeviceError(NO_COMPILER)
        self.source = source
        self.library = load_library(source, target, compiler)
        self.checked = self.library.checked
        #: ``run(region, pointers, T, B, threads, by_units, pool)``.
        self.run = self.library.handle.rnn_run
        table, size = ctypes.c_void_p, ctypes.c_long
        self.run.argtypes = [size, table, size, size, size, size, ctypes.c_void_p]
        self.run.restype = None

    def mark_checked(self) -> None:
        """Remember that the program has passed its self-check."""
        if not self.checked:
            self.checked = True
            self.library.mark_checked()
