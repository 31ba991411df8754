"""What the commands have in common: stdout is for their answers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w
from conftest import Call
from plugin_tools import install
from training_tools import token_job, write_tokens

LOUD = """
    from rnnfarm import Callback, Cell, Loss

    class LoudCell(Cell):
        def __init__(self, **settings):
            print("cell made")
            super().__init__(**settings)

        def widths(self, hidden):
            print("cell widths")
            return {}

        def step(self, x, h):
            print("cell traced")
            return tanh(affine(x, h))

    class LoudLoss(Loss):
        target_kind = "classes"

        def step(self, output, target):
            print("loss traced")
            logits = output - row_max(output)
            return 2.0 * log(row_sum(exp(logits))) - 2.0 * pick(logits, target)

    class LoudCallback(Callback):
        def on_step(self, entry):
            print("callback")

    @hookimpl
    def rnnfarm_cells():
        print("hook")
        return {"loud": LoudCell}

    @hookimpl
    def rnnfarm_losses():
        return {"loud": LoudLoss}

    @hookimpl
    def rnnfarm_callbacks():
        return {"loud": LoudCallback}
"""


def test_what_parts_print_does_not_spoil_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """And a class loss of one's own has no perplexity, which would be a false one."""
    install(tmp_path, monkeypatch, "loud-parts", LOUD)
    write_tokens(tmp_path / "data", {"train": [60, 40], "valid": [30]})
    model = {"layers": [{"cell": "loud", "hidden": 3}], "loss": "loud"}
    raw = token_job(tmp_path / "data", model=model, steps=2, callbacks=[{"name": "loud"}])
    job, run = tmp_path / "job.toml", tmp_path / "run"
    job.write_text(tomli_w.dumps(raw))
    code, out, err = call("train", job, "--out", run, "--json", "--quiet")
    assert code == 0, err
    result = json.loads(out)
    assert set(result["last"]) == {"step", "valid_loss", "valid_accuracy"}
    for said in ("hook", "cell made", "cell widths", "cell traced", "loss traced", "callback"):
        assert said in err.splitlines()
    commands = [
        ("evaluate", run, "--json"),
        ("predict", run, "--split", "valid", "--json"),
        ("check", "loud-parts", "--json"),
        ("explain", "loud", "--json"),
    ]
    answers = {}
    for command in commands:
        code, out, err = call(*command)
        assert code == 0, err
        assert "cell traced" in err.splitlines(), (command, out[:300])
        answers[command[0]] = json.loads(out)
    assert "accuracy" in answers["evaluate"]
    assert "perplexity" not in answers["evaluate"]
