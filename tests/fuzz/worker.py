"""The process in which cases are tried, one after the other; a line of JSON for each."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from fuzz.kinds import KINDS, Kind
from fuzz.run import BYTES, SECONDS
from fuzz.seeds import write_seeds
from rnnfarm.errors import RnnfarmError
from rnnfarm.terminal import clear


def attempt(kind: Kind, folder: Path) -> tuple[str, str]:
    """Read a folder; return what came of it, and what was said or found."""
    try:
        return "right", kind.read(folder)
    except RnnfarmError as error:
        lines = str(error).split("\n")
        read = all(line.strip() and len(clear(line)) < 3_000 for line in lines)
        return ("sentence" if read else "traceback"), str(error)[:600]
    except MemoryError as error:
        return "over 1 GB", str(error)
    except (OSError, Exception) as error:
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
        return "traceback", f"{type(error).__name__}: {error} ({where})"[:600]


def case(number: int, seed: int, only: str | None, seeds: Path, work: Path) -> dict[str, Any]:
    rng = random.Random(f"{seed} {number}")
    name = only or list(KINDS)[number % len(KINDS)]
    kind = KINDS[name]
    folder = work / "case"
    shutil.copytree(seeds, folder)
    path = folder / kind.file
    undamaged = number < len(KINDS)
    if not undamaged:
        path.write_bytes(rng.choice(kind.changes)(path.read_bytes(), rng))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    what, said = attempt(kind, folder)
    took = time.monotonic() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    changed = (folder / kind.file).exists() and path.read_bytes() != (
        seeds / kind.file
    ).read_bytes()
    if what == "right" and kind.guarded and changed and said != expected(name, kind, seeds, work):
        what = "silent wrong"
    if undamaged and what != "right":
        what = "refused whole"
    if what in ("right", "sentence") and took > SECONDS:
        what = "over 20 s"
    elif what in ("right", "sentence") and grown > BYTES:
        what = "over 1 GB"
    shutil.rmtree(folder)
    return {"number": number, "kind": name, "what": what, "said": said, "seconds": round(took, 2)}


def expected(name: str, kind: Kind, seeds: Path, work: Path, known: dict[str, str] = {}) -> str:  # noqa: B006
    """What an undamaged folder gives."""
    if name not in known:
        whole = work / "whole"
        shutil.copytree(seeds, whole)
        known[name] = kind.read(whole)
        shutil.rmtree(whole)
    return known[name]


def main() -> None:
    folder, first, end, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    only = sys.argv[5] if len(sys.argv) > 5 else None
    logging.disable(logging.CRITICAL)
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    seeds = folder / "seeds"
    if not (seeds / "run" / "run.json").exists():
        shutil.rmtree(seeds, ignore_errors=True)
        write_seeds(seeds)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for number in range(first, end):
            line = json.dumps(case(number, seed, only, seeds, Path(work)))
            print(line, file=lines, flush=True)


if __name__ == "__main__":
    main()
