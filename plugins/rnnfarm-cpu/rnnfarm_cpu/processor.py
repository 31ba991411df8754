"""The processor that this is, and the vectors that it has."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rnnfarm.errors import DeviceError, suggestion

VARIABLE = "RNNFARM_CPU_TARGET"
#: What AVX-512 kernels need; processors have had these together since their first servers.
AVX512 = frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "fma"})
AVX2 = frozenset({"avx2", "fma"})
#: Where clang tunes for vectors of 32 bytes, it splits those of 64 in two unless told not to.
WHOLE = "-mprefer-vector-width=512"
#: name → (bytes of a vector, vector registers, flags that ask for it by name).
KINDS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "avx512": (64, 32, ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", WHOLE)),
    "avx2": (32, 16, ("-mavx2", "-mfma")),
    "neon": (16, 32, ()),
    "plain": (16, 16, ()),
}


@dataclass(frozen=True)
class Target:
    """What code is generated for.

    Attributes:
        name: ``avx512``, ``avx2``, ``neon`` or ``plain``.
        vector_bytes, registers: of a vector register, and how many there are.
        flags: for the compiler.
        processor: identifies the type of processor, for which alone the compiled code is good.
    """

    name: str
    vector_bytes: int
    registers: int
    flags: tuple[str, ...]
    processor: str


def this_target(environ: Mapping[str, str] | None = None) -> Target:
    """The target of this machine, or the one that ``RNNFARM_CPU_TARGET`` names.

    Raises DeviceError for a name that there is not.
    """
    wanted = (os.environ if environ is None else environ).get(VARIABLE, "")
    machine, features, processor = _processor()
    if wanted:
        if wanted not in KINDS:
            raise DeviceError(f"{VARIABLE}={wanted!r}: {suggestion(wanted, KINDS)}")
        size, registers, flags = KINDS[wanted]
        return Target(wanted, size, registers, flags, processor)
    arm = machine in ("aarch64", "arm64")
    if features >= AVX512:
        name = "avx512"
    elif features >= AVX2:
        name = "avx2"
    else:
        name = "neon" if arm else "plain"
    size, registers, _ = KINDS[name]
    # Only where the features could be read is it known that the compiler's 'native' is them.
    native = ("-mcpu=native" if arm else "-march=native",) if features else ()
    whole = (WHOLE,) if name == "avx512" else ()
    return Target(name, size, registers, (*native, *whole), processor)


@functools.cache
def _processor() -> tuple[str, frozenset[str], str]:
    """The machine, the processor's features, and a text that identifies its type."""
    machine = platform.machine().lower()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return machine, frozenset(), f"{machine} {platform.processor()}"
    first: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        first[key.strip()] = value.strip()
    features = frozenset((first.get("flags") or first.get("Features") or "").split())
    keys = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
    described = [first.get(key, "") for key in keys] + sorted(features)
    digest = hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]
    return machine, features, f"{machine} {first.get('model name', '')} {digest}"
