"""A cell's kernel run on random numbers, as the conformance kit does it."""

from __future__ import annotations

from rnnfarm.kernels.case import Arrays, Case, make_case, variants

__all__ = ["VARIANTS", "Arrays", "Case", "make_case"]

VARIANTS = variants()
