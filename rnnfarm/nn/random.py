"""Counter-based random numbers.

A draw depends on what it is for, never on what was drawn before, so that any worker can make it and
a resumed run makes it again (Salmon et al. 2011).
"""

from __future__ import annotations

import zlib

import numpy as np

from rnnfarm.errors import JobError

#: What a draw is for.
DROPOUT, ZONEOUT, RECURRENT_DROPOUT, INITIAL_STATE, INITIALIZE, SAMPLE, SCHEDULED = range(7)


def generator(
    seed: int, purpose: int, step: int = 0, lane: int = 0, layer: str = ""
) -> np.random.Generator:
    """The generator of this ``(seed, purpose, step, lane, layer)``; JobError for an odd seed."""
    if not 0 <= seed < 1 << 63:
        raise JobError(f"seed = {seed}: a seed is a whole number from 0 to below 2**63")
    # The lowest counter word counts the draws; the layer's name takes one, as its checksum.
    counter = [0, zlib.crc32(layer.encode()), lane, step]
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=counter))
