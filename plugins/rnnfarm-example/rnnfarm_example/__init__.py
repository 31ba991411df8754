"""An example of a plugin for rnnfarm.

The hooks name the parts; nothing of them is imported before a job asks for it.
"""

from __future__ import annotations

import rnnfarm


@rnnfarm.hookimpl
def rnnfarm_cells() -> dict[str, str]:
    return {
        "ligru": "rnnfarm_example.cells:LiGRU",
        "cornn": "rnnfarm_example.cells:CoRNN",
    }


@rnnfarm.hookimpl
def rnnfarm_losses() -> dict[str, str]:
    return {"log_cosh": "rnnfarm_example.losses:LogCosh"}


@rnnfarm.hookimpl
def rnnfarm_optimizers() -> dict[str, str]:
    return {"sign_momentum": "rnnfarm_example.optimizers:SignMomentum"}
