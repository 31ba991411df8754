"""Every hook of rnnfarm: the plugin API on one page.

A plugin is any installed distribution with an entry point in the group ``rnnfarm``::

    [project.entry-points.rnnfarm]
    mycells = "mycells"

The entry point names a module (or an object) with functions marked ``@rnnfarm.hookimpl``::

    import rnnfarm

    @rnnfarm.hookimpl
    def rnnfarm_cells():
        return {"ligru": "mycells.ligru:LiGRU"}

Every hook takes no arguments and returns a mapping from names to parts. A part is a class, or an
import string ``module:Name`` that is loaded at its first use (prefer it: a plugin is then listed
without any of its dependencies being imported). A name has no space and no colon.
The built-in parts come through the same hooks (``rnnfarm/builtin/__init__.py``).

Except for kernels and exchanges, a part is a class derived from ``rnnfarm.settings.Part``: its
settings are annotated class attributes, and each becomes a key of the job file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import pluggy

PROJECT = "rnnfarm"
"""Name of the pluggy project, and of the group of entry points."""

KINDS = (
    *("cells", "losses", "optimizers", "schedules", "kernels", "readers", "callbacks"),
    "exchanges",
)
"""What a plugin can give; the hook of a kind is ``rnnfarm_`` + kind."""

Parts: TypeAlias = Mapping[str, type[Any] | str]
"""Name → class, or name → ``"module:Name"``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def rnnfarm_cells() -> Parts:  # type: ignore[empty-body]
    """Give recurrent cells: name → ``rnnfarm.Cell`` class, the equations of one time step.

    The name is what ``layers = [{ cell = "…" }]`` in a job means. ``states`` names the states, the
    first one is the output; ``step(self, x, *states)`` returns the new states. The gradient is
    derived, and every kernel runs it.
    """


@hookspec
def rnnfarm_losses() -> Parts:  # type: ignore[empty-body]
    """Give losses: name → ``rnnfarm.Loss`` class, for ``model.loss`` in a job.

    A loss is a function of output and target, and a reduction over the valid steps.
    """


@hookspec
def rnnfarm_optimizers() -> Parts:  # type: ignore[empty-body]
    """Give optimizers: name → ``rnnfarm.Optimizer`` class, for ``training.optimizer`` in a job.

    ``step(self, param, grad, *state, lr, t)`` returns the new parameter and state, elementwise.
    """


@hookspec
def rnnfarm_schedules() -> Parts:  # type: ignore[empty-body]
    """Give learning-rate schedules: name → ``rnnfarm.Schedule`` class, for ``training.schedule``.

    A schedule gives the factor of the optimizer's learning rate at a step.
    """


@hookspec
def rnnfarm_kernels() -> Parts:  # type: ignore[empty-body]
    """Give kernels: name → ``rnnfarm.Kernel`` class, for ``training.kernel`` in a job.

    It says which plans, devices and dtypes it supports and with what priority, and runs a
    plan over a whole window, forward and backward (``rnnfarm.kernels.interface``).
    """


@hookspec
def rnnfarm_readers() -> Parts:  # type: ignore[empty-body]
    """Give readers: name → ``rnnfarm.Reader`` class, for ``data.build`` in a job.

    A reader turns a user's files into sequences, in constant memory; ``rnnfarm.data`` has the
    ``Column`` and ``Sequence`` that it gives.
    """


@hookspec
def rnnfarm_callbacks() -> Parts:  # type: ignore[empty-body]
    """Give callbacks: name → ``rnnfarm.Callback`` class, for ``training.callbacks`` in a job.

    A callback is told of steps, evaluations, checkpoints and the end, and may stop the run.
    """


@hookspec
def rnnfarm_exchanges() -> Parts:  # type: ignore[empty-body]
    """Give exchanges: name → ``rnnfarm.Exchange`` class, for ``cluster.exchange`` in a job.

    An exchange adds up the gradients of several workers on one kind of device, in the fixed tree
    over lanes. It says which devices it serves and with what priority.
    """
