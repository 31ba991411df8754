"""How a model's answers are looked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Search:
    """How labels and words are looked for: see ``training.decode`` and ``training.ctc_decode``."""

    beam: int = 1
    penalty: float = 1.0
    most: int | None = None
