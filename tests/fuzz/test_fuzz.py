"""A few damaged files of every kind: the short run of ``python -m fuzz``."""

from __future__ import annotations

from thorough import times

from fuzz.kinds import KINDS
from fuzz.run import WRONG, run


def test_damaged_and_odd_files_are_read_or_refused_with_a_sentence() -> None:
    count = times(2, 100) * len(KINDS)
    found = run(count, seed=19)
    assert not found["wrong"], found["wrong"]
    counts = found["counts"]
    assert counts["right"] + counts["sentence"] == count
    assert not any(counts[what] for what in WRONG)
    assert min(counts["right"], counts["sentence"]) > count // 10
    assert found["kinds"].keys() == KINDS.keys()
