"""Running cases in a process of their own, and counting what came of them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS, BYTES = 20, 1 << 30
TESTS = Path(__file__).parents[1]
#: What must not happen.
WRONG = ("traceback", "crash", "refused whole", "silent wrong", "over 20 s", "over 1 GB")


def run(
    count: int,
    seed: int = 0,
    first: int = 0,
    only: str | None = None,
    say: Callable[[str], Any] = lambda line: None,
) -> dict[str, Any]:
    """Try ``count`` cases from number ``first`` on; return the counts, and the cases gone wrong.

    Ctrl-C ends it early, with the counts so far.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("right", "sentence", *WRONG), 0))
    kinds: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    ended: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="rnnfarm-fuzz-") as folder:
        number, worker, end = first, None, first + count
        stop = signal.signal(signal.SIGINT, lambda *_: ended.append(True))
        while number < end and not ended:
            if worker is None or worker.poll() is not None:
                worker = _start(folder, number, end, seed, only)
            assert worker.stdout is not None
            ready, _, _ = select.select([worker.stdout], [], [], SECONDS + 30)
            line = worker.stdout.readline() if ready else ""
            if line:
                case = json.loads(line)
            else:
                worker.kill()
                what = "crash" if ready else "over 20 s"
                case = {"number": number, "what": what, "said": f"exit {worker.wait()}"}
            counts[case["what"]] += 1
            kinds[case.get("kind", "?")] += 1
            if case["what"] in WRONG:
                wrong.append(case)
                say(f"{json.dumps(case)}\n")
            number += 1
        if worker is not None:
            worker.kill()
            worker.wait()
        signal.signal(signal.SIGINT, stop)
    return {"cases": number - first, "counts": dict(counts), "kinds": dict(kinds), "wrong": wrong}


def _start(folder: str, number: int, end: int, seed: int, only: str | None) -> Any:
    command = [sys.executable, "-m", "fuzz.worker", folder, str(number), str(end), str(seed)]
    return subprocess.Popen(
        command + ([only] if only else []),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is for this process
        cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
