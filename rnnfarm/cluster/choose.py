"""Choosing the exchange that adds up gradients on a job's device."""

from __future__ import annotations

from rnnfarm.cluster.exchange import Exchange
from rnnfarm.errors import DeviceError, PluginError
from rnnfarm.job_tables import Job
from rnnfarm.plugins import Registry
from rnnfarm.training.setup import Model


def make_exchange(registry: Registry, job: Job, model: Model) -> tuple[str, Exchange]:
    """The name of the exchange that a job wants, or else of the best for its device, and it.

    Raises DeviceError where none serves the device.
    """
    wanted, device = job.cluster.exchange, model.network.device.name
    names = registry.names("exchanges") if wanted == "auto" else [wanted]
    fitting: list[tuple[int, str, type[Exchange]]] = []
    for name in names:
        try:
            kind = registry.get("exchanges", name)
        except PluginError:
            if wanted != "auto":
                raise
            continue  # `rnnfarm plugins` names it; the others can do
        if device in kind.devices:
            fitting.append((kind.priority + 100, name, kind))
        elif "cpu" in kind.devices:  # the arrays are then brought to the host
            fitting.append((kind.priority, name, kind))
    if not fitting:
        raise DeviceError(
            f"cluster.exchange: none of {', '.join(names)} adds up gradients on device "
            f"{device!r}; install a plugin that does, or set training.device = 'cpu'"
        )
    _, name, kind = max(fitting, key=lambda found: found[:2])
    return name, kind()
