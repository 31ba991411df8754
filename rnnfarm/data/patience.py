"""Calls that may wait for a network: with an end to the waiting, and open to Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rnnfarm.errors import DataError

Answer = TypeVar("Answer")
PATIENCE = 60.0  # seconds without an answer


def patiently(shown: str, call: Callable[..., Answer], *arguments: Any) -> Answer:
    """Return what a call gives; DataError that names ``shown`` where it does not end in PATIENCE.

    The call is made in a thread, which nobody waits for after that or after a Ctrl-C: what waits
    inside pyarrow for a server cannot be interrupted.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call(*arguments))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="patience", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if errors:
        raise errors[0]
    if not answers:
        raise DataError(
            f"{shown}: gives no answer in {PATIENCE:.0f} s; look at the network, and at the address"
        )
    return answers[0]
