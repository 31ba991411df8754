"""The command ``rnnfarm``, also as ``python -m rnnfarm``."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, whose imports may be interrupted too."""
    try:
        from rnnfarm.cli import main as run

        run()
    except KeyboardInterrupt:
        print("rnnfarm: interrupted", file=sys.stderr, flush=True)
        os._exit(130)


if __name__ == "__main__":
    main()
