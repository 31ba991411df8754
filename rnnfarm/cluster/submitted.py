"""The cluster's side of a submitted job: ``python -m rnnfarm.cluster.submitted train …``."""

from __future__ import annotations

import json
import os
import sys

from rnnfarm import __version__
from rnnfarm.cli import main
from rnnfarm.cluster.jobs import CLIENT, python_version


def differences(client: str) -> list[str]:
    """One sentence for each version in which the machine that submitted differs from this one."""
    theirs = json.loads(client)
    mine = {"rnnfarm": __version__, "python": python_version()}
    names = {"rnnfarm": "rnnfarm", "python": "Python"}
    return [
        f"the job was submitted with {names[key]} {theirs[key]}, and the cluster has {version}; "
        "install the same on both"
        for key, version in mine.items()
        if theirs.get(key) != version
    ]


if __name__ == "__main__":
    wrong = differences(os.environ[CLIENT]) if CLIENT in os.environ else []
    if wrong:
        for sentence in wrong:
            print(f"rnnfarm: {sentence}", file=sys.stderr)
        sys.exit(4)
    main([os.path.expanduser(word) for word in sys.argv[1:]])
