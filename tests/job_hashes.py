"""The bits of every job of jobs/, at a reduced size: what a change of structure may not change.

    python tests/job_hashes.py > before.json      on the old code
    python tests/job_hashes.py --against before.json
                                                  on the new: names what differs, and exits with 1

Bits depend on the processor and the libraries, so that a file is of use on its own machine alone.
`--workers 2` tries each job in two Ray workers too, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "e2e"))
from test_jobs import SMALL, write_files

KERNELS = ("numpy", "cpu")
RESULTS = ("parameters_sha256", "train_loss", "valid_loss")


def hashes(job: str, folder: Path, kernel: str, workers: int) -> list[Any]:
    """Return what a run of a job gives: the hash of its parameters, and its losses."""
    settings = [*SMALL[job], f"training.kernel={kernel}"]
    words = [word for setting in settings for word in ("--set", setting)]
    words += ["--workers", str(workers)] if workers else []
    out = f"{job}-{kernel}-{workers}"
    command = [sys.executable, "-m", "rnnfarm", "train", f"jobs/{job}", "--out", out, "--json"]
    done = subprocess.run([*command, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job}: {done.stderr}")
    result = json.loads(done.stdout)
    return [result[name] for name in RESULTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="FILE", help="what an earlier call printed")
    parser.add_argument("--jobs", nargs="+", default=sorted(SMALL), choices=sorted(SMALL))
    parser.add_argument("--workers", type=int, nargs="+", default=[], help="Ray workers too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name))
        found = {
            f"{job} {kernel} {workers or 'local'}": hashes(job, Path(name), kernel, workers)
            for job in given.jobs
            for kernel in KERNELS
            for workers in (0, *given.workers)
        }
    print(json.dumps(found, indent=1))
    if given.against is not None:
        before = json.loads(given.against.read_text(encoding="utf-8"))
        if changed := [key for key in found if before.get(key, found[key]) != found[key]]:
            raise SystemExit("not the bits of before: " + ", ".join(changed))


if __name__ == "__main__":
    main()
