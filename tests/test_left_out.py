"""What is said of steps that no window has as a target."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_tools import write_tokens

from rnnfarm.data.streams import Streams


@pytest.mark.parametrize(
    ("length", "window", "steps", "said"),
    [
        (2500, 1300, 1200, ["train: 1,200 of 2,500 steps are never trained on"]),
        (3001, 2998, 3, []),  # less than 0.1 % of them
        (3000, 2997, 3, ["train: 3 of 3,000 steps are never trained on"]),
        (3001, 3001, 0, []),
    ],
)
def test_ends_of_streams(
    tmp_path: Path, length: int, window: int, steps: int, said: list[str]
) -> None:
    split = write_tokens(tmp_path / "d", {"train": [length]}).split("train")
    found = Streams(
        split, batch=1, window=window, stride=window, input="tokens", target="next", dtype="float32"
    ).left_out()
    assert found.to_dict() == {"sequences": 0, "steps": steps, "unobserved": 0}
    why = ", as they come after the last whole window of their stream"
    assert found.sentences(split) == [one + why for one in said]
