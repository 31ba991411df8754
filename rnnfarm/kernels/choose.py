"""Choosing the kernel that runs a plan.

Among the kernels that support a plan the one of highest priority is taken that agrees with the
NumPy reference in a self-check on this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnfarm.equations.plan import Plan
from rnnfarm.errors import DeviceError, JobError, RnnfarmError, suggestion
from rnnfarm.kernels.case import case_of, disagreement
from rnnfarm.kernels.interface import Kernel, WindowKernel
from rnnfarm.kernels.numpy import NumPyKernel

if TYPE_CHECKING:
    from rnnfarm.plugins import Registry

log = logging.getLogger("rnnfarm")
REFERENCE = "numpy"


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


@dataclass(frozen=True)
class KernelChoice:
    """Where and with what plans are to run.

    Attributes:
        kernels: the kernels that there are, by name.
        wanted: the name of one, or ``auto``.
        device: ``cpu``, ``cuda`` or ``auto``.
        dtype: ``float32`` or ``float64``.
    """

    kernels: Mapping[str, Kernel]
    wanted: str = "auto"
    device: str = "auto"
    dtype: str = "float32"

    def build(self, plan: Plan) -> tuple[str, WindowKernel]:
        """The name of the chosen kernel, and the plan compiled by it.

        Raises JobError for a kernel that there is not, DeviceError where none can run the plan.
        """
        if self.wanted != "auto" and self.wanted not in self.kernels:
            raise JobError(
                f"training.kernel: there is no kernel {self.wanted!r}; "
                + suggestion(self.wanted, [*self.kernels, "auto"])
            )
        reasons = []
        for name, kernel in sorted(self.kernels.items(), key=lambda item: -item[1].priority):
            if self.wanted not in ("auto", name):
                continue
            try:
                refusal = kernel.refusal(plan, self._device(kernel), self.dtype)
                fault, built = (None, None) if refusal else self._tried(name, kernel, plan)
            except Exception as error:  # whatever a foreign kernel raises, others may run the plan
                fault, built = f"it failed with {type(error).__name__}: {error}", None
            if built is not None:
                return name, built
            if fault:
                log.warning(
                    "the kernel %r is not used for %s: %s; please report this to its authors",
                    name, plan.cell, fault,
                )  # fmt: skip
                refusal = fault
            reasons.append(f"{name}: {refusal}")
        raise DeviceError(
            f"no kernel can run {plan.cell} in {self.dtype} on device {self.device!r} "
            f"({'; '.join(reasons) or 'none is installed for it'}); "
            'set training.device = "auto" and training.kernel = "auto"'
        )

    def _tried(
        self, name: str, kernel: Kernel, plan: Plan
    ) -> tuple[str, None] | tuple[None, WindowKernel]:
        """What its self-check found wrong, or the plan compiled by the kernel."""
        built = kernel.build(plan, self.dtype)
        fault = None if name == REFERENCE else self_check(built, plan, self.dtype)
        return (None, built) if fault is None else (fault, None)

    def _device(self, kernel: Kernel) -> str:
        return kernel.devices[0] if self.device == "auto" else self.device


def self_check(kernel: WindowKernel, plan: Plan, dtype: str) -> str | None:
    """None where a small window, forward and backward, agrees with the reference."""
    reference = NumPyKernel().build(plan, dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    theirs = case_of(reference, dtype=dtype).arrays()
    try:
        ours = case_of(kernel, dtype=dtype).arrays()
    except Exception as error:  # whatever a foreign kernel raises, the run goes on without it
        return f"it failed its self-check with {type(error).__name__}: {error}"
    return disagreement(ours, theirs, tolerance)
