"""A Ray of its own that nobody else can join: its token, its addresses, and its settings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

#: Which of Ray's environment variables a Ray of its own is started with, beside its token.
SETTINGS = {
    # Read by `ray._private.ray_constants`: the nodes' addresses are 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Else its GCS keeps an event of every step, for a dashboard that is not there.
    "RAY_task_events_report_interval_ms": "0",
}
TOKEN = "token"


@contextmanager
def private_settings(folder: Path) -> Iterator[None]:
    """Settings of Ray for as long as a Ray of its own lives.

    Whoever reaches a Ray's ports runs code in it. So it takes a token that only this user can read,
    below `folder`, which must be nobody else's to enter, and has no address but the machine's own.

    What the environment says of tokens is of other clusters, and is put back afterwards.
    """
    token = folder / TOKEN
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="ascii")
    new = SETTINGS | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = {name: os.environ.get(name) for name in (*new, "RAY_AUTH_TOKEN")}
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win over the file
    os.environ |= new
    try:
        with _on_this_machine_alone():
            _read_again()
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _read_again()


@contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """Nodes have the address 127.0.0.1, on which Ray's servers then listen.

    Ray reads the variable when it is imported, which may have been long ago.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _read_again() -> None:
    """Have Ray read the environment's settings and token once more, where it keeps them."""
    raylet: Any = import_module("ray._raylet")  # whose types say nothing of these
    with suppress(AttributeError):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
