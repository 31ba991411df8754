"""Try damaged and odd files of every kind, and print as JSON how often what came of them.

``python -m fuzz --count 10000 --seed 0`` in ``tests``. Each case runs in a process that is replaced
where it crashes or hangs. What is wrong is listed with the kind and the number of its case, which
``--only KIND --first NUMBER --count 1`` tries again. The first case of each kind is not damaged.
"""

from __future__ import annotations

import argparse
import json
import sys

from fuzz.run import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    options = parser.parse_args()
    found = run(options.count, options.seed, options.first, options.only, sys.stderr.write)
    print(json.dumps(found, indent=1))
