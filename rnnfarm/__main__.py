"""``python -m rnnfarm`` is ``rnnfarm``."""

from rnnfarm.cli import main

main()
