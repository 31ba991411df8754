"""Choosing the kernel that runs a plan.

Among the kernels that support a plan the one of highest priority is taken that agrees with the
NumPy reference in a self-check on this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rnnfarm.equations.graph import Symbol
from rnnfarm.equations.plan import Plan
from rnnfarm.errors import DeviceError, JobError, RnnfarmError, suggestion
from rnnfarm.kernels.case import case_of, disagreement, row_arrays
from rnnfarm.kernels.device import HOST, Device
from rnnfarm.kernels.interface import Kernel, RowKernel, WindowKernel
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.kernels.rows import RowProgram

if TYPE_CHECKING:
    from rnnfarm.plugins import Registry

log = logging.getLogger("rnnfarm")
REFERENCE = "numpy"
#: What brings kernels for a device.
PLUGINS = {"cpu": "rnnfarm-cpu", "cuda": "rnnfarm-cupy"}


def installed_kernels(registry: Registry) -> dict[str, Kernel]:
    """Every kernel that can be made; without one that cannot, the others still run a job."""
    kernels: dict[str, Kernel] = {}
    for name in registry.names("kernels"):
        try:
            kernels[name] = registry.get("kernels", name)()
        except RnnfarmError as error:
            log.warning("%s", error)
        except Exception as error:  # whatever a foreign kernel raises
            log.warning("the kernel %r cannot be made: %s: %s", name, type(error).__name__, error)
    return kernels


def kernel_for(device: str, kernels: Mapping[str, Kernel]) -> tuple[str, Kernel]:
    """The most preferred of the kernels that run on a device, be it on this machine or not.

    DeviceError where there is none.
    """
    found = [(name, kernel) for name, kernel in kernels.items() if device in kernel.devices]
    if not found:
        mend = f"; run pip install {PLUGINS[device]}" if device in PLUGINS else ""
        raise DeviceError(f"no installed kernel runs on the device {device!r}{mend}")
    return max(found, key=lambda item: item[1].priority)


@dataclass(frozen=True)
class KernelChoice:
    """Where and with what plans are to run.

    Attributes:
        kernels: the kernels that there are, by name.
        wanted: the name of one, or ``auto``.
        device: ``cpu``, ``cuda`` or ``auto``.
        dtype: ``float32`` or ``float64``.
        precision: how operands of products are rounded where the kernel can: ``full``, ``tf32`` or
            ``bf16``.
    """

    kernels: Mapping[str, Kernel]
    wanted: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    precision: str = "full"
    #: What was said already: each thing is said once.
    said: set[str] = field(default_factory=set, compare=False, repr=False)

    @cached_property
    def where(self) -> Device:
        """Where all arrays lie: a GPU where one is asked for, or is there and nothing forbids it.

        DeviceError where a device is asked for that is not there, JobError for a kernel that there
        is not.
        """
        self._check_wanted()
        if self.device == "cpu":
            return HOST
        reasons = []
        for name, kernel in self._preferred():
            on_host = "cpu" in kernel.devices
            if on_host and self.device != "auto":
                continue
            if on_host:
                return HOST
            missing = kernel.missing()
            if missing is None:
                return kernel.in_precision(self.precision).device()
            reasons.append(f"{name}: {missing}")
        if self.device == "auto" and self.wanted == "auto":
            return HOST
        wanted = f"training.device = {self.device!r}"
        if self.wanted != "auto":
            wanted += f" with training.kernel = {self.wanted!r}"
        nothing = "no installed kernel runs there; install rnnfarm-cupy"
        raise DeviceError(f"{wanted} cannot be had here ({'; '.join(reasons) or nothing})")

    def build(self, plan: Plan) -> tuple[str, WindowKernel]:
        """The name of the chosen kernel, and the plan compiled by it.

        Raises JobError for a kernel that there is not, DeviceError where none can run the plan.
        """
        self._check_wanted()
        reasons = []
        for name, kernel in self._candidates():
            try:
                refusal = kernel.refusal(plan, self.where.name, self.dtype)
                fault, built = (None, None) if refusal else self._tried(name, kernel, plan)
            except Exception as error:  # whatever a foreign kernel raises, others may run the plan
                fault, built = f"it failed with {type(error).__name__}: {error}", None
            if built is not None:
                return name, built
            if fault:
                self._report(name, plan.cell, fault)
            elif self.device in ("cpu", "auto") and "cpu" in kernel.devices:
                self.say(f"{plan.cell} does not run on the kernel {name!r}: {refusal}")
            reasons.append(f"{name}: {fault or refusal}")
        raise DeviceError(
            f"no kernel can run {plan.cell} in {self.dtype} on device {self.device!r} "
            f"({'; '.join(reasons) or 'none is installed for it'}); "
            'set training.device = "auto" and training.kernel = "auto"'
        )

    def rows(
        self,
        name: str,
        results: Mapping[str, Symbol],
        scalars: Collection[str] = (),
        integers: Collection[str] = (),
    ) -> RowKernel:
        """A loss's or optimizer's symbols, compiled by the first kernel that can do it."""
        reference = RowProgram(name, results, self.dtype, scalars)
        for kernel_name, kernel in self._candidates():
            if kernel_name == REFERENCE:
                continue
            try:
                built = kernel.rows(name, results, self.dtype, scalars, integers)
                if built is None:
                    continue
                fault = None
                if not built.checked:
                    fault = rows_check(
                        built, reference, results, scalars, integers, self.dtype, self.where
                    )
            except Exception as error:  # whatever a foreign kernel raises
                built, fault = None, f"it failed with {type(error).__name__}: {error}"
            if built is not None and fault is None:
                built.mark_checked()
                built.kernel = kernel_name
                return built
            self._report(kernel_name, name, str(fault))
        return reference if self.where is HOST else ThroughHost(reference, self.where)

    def _check_wanted(self) -> None:
        if self.wanted != "auto" and self.wanted not in self.kernels:
            raise JobError(
                f"training.kernel: there is no kernel {self.wanted!r}; "
                + suggestion(self.wanted, [*self.kernels, "auto"])
            )

    def _preferred(self) -> Iterator[tuple[str, Kernel]]:
        """The kernels to try, the most preferred first."""
        for name, kernel in sorted(self.kernels.items(), key=lambda item: -item[1].priority):
            if self.wanted in ("auto", name):
                yield name, kernel

    def _candidates(self) -> Iterator[tuple[str, Kernel]]:
        """Those of them that run where the arrays lie."""
        for name, kernel in self._preferred():
            if self.where.name in kernel.devices:
                yield name, kernel.in_precision(self.precision)

    def _report(self, kernel: str, part: str, fault: str) -> None:
        self.say(
            f"the kernel {kernel!r} is not used for {part}: {fault}; please report this to its "
            "authors"
        )

    def say(self, sentence: str) -> None:
        """Warn of something, once."""
        if sentence not in self.said:
            self.said.add(sentence)
            log.warning("%s", sentence)

    def _tried(
        self, name: str, kernel: Kernel, plan: Plan
    ) -> tuple[str, None] | tuple[None, WindowKernel]:
        """What its self-check found wrong, or the plan compiled by the kernel."""
        built = kernel.build(plan, self.dtype)
        if name == REFERENCE or built.checked:
            return None, built
        fault = self_check(built, plan, self.dtype, self.precision)
        if fault is not None:
            return fault, None
        built.mark_checked()
        return None, built


class ThroughHost(RowKernel):
    """A program of the host for arrays of a device: they are fetched, and written back."""

    def __init__(self, program: RowKernel, device: Device) -> None:
        self._program, self._device = program, device
        self.source = program.source

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        return self._program.spans(start, stop)

    def __call__(
        self,
        arrays: Mapping[str, Any],
        spans: Iterable[tuple[int, int]],
        scalars: Mapping[str, float] | None = None,
        threads: int = 1,
    ) -> None:
        fetched = {name: self._device.get(array) for name, array in arrays.items()}
        self._program(fetched, spans, scalars, threads)
        for name, array in arrays.items():
            self._device.load(array, fetched[name])


#: How far a kernel may be from the reference, relative to the largest element.
TOLERANCE = {"float64": 1e-9, "full": 1e-4, "tf32": 2e-2, "bf16": 2e-1}


def self_check(kernel: WindowKernel, plan: Plan, dtype: str, precision: str = "full") -> str | None:
    """None where a small window, forward and backward, agrees with the reference."""
    reference = NumPyKernel().build(plan, dtype)
    tolerance = TOLERANCE["float64" if dtype == "float64" else precision]
    case = case_of(reference, dtype=dtype)
    theirs = case.arrays()
    try:
        ours = replace(case, kernel=kernel).arrays()
    except Exception as error:  # whatever a foreign kernel raises, the run goes on without it
        return f"it failed its self-check with {type(error).__name__}: {error}"
    return disagreement(ours, theirs, tolerance)


def rows_check(
    kernel: RowKernel,
    reference: RowKernel,
    results: Mapping[str, Symbol],
    scalars: Collection[str],
    integers: Collection[str],
    dtype: str,
    device: Device = HOST,
) -> str | None:
    """None where some rows of random numbers agree with the reference."""
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for number in (0.5, 3.0) if scalars else (0.0,):  # of which a condition may tell one
        given = dict.fromkeys(scalars, number)
        ours, theirs = (row_arrays(results, scalars, integers, dtype) for _ in range(2))
        size = len(next(iter(ours.values())))
        ours = {name: device.put(array) for name, array in ours.items()}
        for program, arrays in ((kernel, ours), (reference, theirs)):
            program(arrays, program.spans(0, size), given, threads=2)
        fault = disagreement(
            {name: device.get(ours[name]) for name in results},
            {name: theirs[name] for name in results},
            tolerance,
        )
        if fault is not None:
            return fault
    return None
