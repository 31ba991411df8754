"""A machine that cannot run what a job asks for: one sentence, and exit code 4."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rnnfarm_cupy import gpu, kernel
from training_tools import write_tokens

from rnnfarm.cli import main

JOB = """
[data]
path = "{data}"
[model]
input = {{ kind = "embedding", size = 4 }}
layers = [{{ cell = "lstm", hidden = 4 }}]
loss = "cross_entropy"
[training]
batch = 2
window = 4
steps = 1
optimizer = {{ name = "adam" }}
device = "{device}"
"""


def run(tmp_path: Path, device: str, *options: str) -> int:
    write_tokens(tmp_path / "data", {"train": [40], "valid": [20]})
    job = tmp_path / "job.toml"
    job.write_text(JOB.format(data=tmp_path / "data", device=device))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(job), "--out", str(tmp_path / "run"), *options])
    return int(ended.value.code or 0)


SENTENCE = "no GPU is here; plug one in"


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernel.VARIABLE, raising=False)
    monkeypatch.setattr(gpu, "missing_gpu", lambda: SENTENCE)


def test_a_job_that_asks_for_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "cuda") == 4
    error = capsys.readouterr().err
    assert SENTENCE in error
    assert "training.device" in error
    assert "Traceback" not in error


def test_a_job_that_asks_for_the_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "auto", "--set", "training.kernel=cuda") == 4
    assert SENTENCE in capsys.readouterr().err


def test_auto_trains_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "auto") == 0
    assert SENTENCE not in capsys.readouterr().err


def test_a_kernel_of_the_cpu_on_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "cuda", "--set", "training.kernel=numpy") == 4
    assert "training.kernel = 'numpy'" in capsys.readouterr().err


def test_doctor_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["kernels"]["cuda"] == ["cuda"]
    assert any(SENTENCE in sentence for sentence in report["missing"])
