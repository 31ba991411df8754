"""Generating text: seeds, temperature, top-k, streaming, prompts, and models that cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_tools import sentence_of
from training_tools import (
    REGISTRY,
    TEXT,
    build_text,
    make_job,
    token_job,
    value_job,
    write_tokens,
    write_values,
)

from rnnfarm import Recurrent
from rnnfarm.data import open_dataset
from rnnfarm.errors import DataError, JobError
from rnnfarm.nn.random import SAMPLE, generator
from rnnfarm.training.generate import draw, generate
from rnnfarm.training.run import open_run
from rnnfarm.training.session import train


def trained(folder: Path, reader: str = "characters", **more: Any) -> Path:
    raw = token_job(
        build_text(folder, reader), steps=60, batch=8, window=16,
        optimizer={"name": "adam", "lr": 0.02}, **more,
    )  # fmt: skip
    train(make_job(raw), REGISTRY, out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("generate"))


def text_of(run: Path, **options: Any) -> str:
    return "".join(generate(run, REGISTRY, **{"length": 40, **options}))


def test_the_same_seed_gives_the_same_text(run: Path) -> None:
    texts = [text_of(run, seed=seed) for seed in (0, 1, 2, 0)]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    assert all(len(text) == 40 for text in texts)
    assert set("".join(texts)) <= set(TEXT)


def test_a_longer_text_begins_with_the_shorter_one(run: Path) -> None:
    assert text_of(run, length=40).startswith(text_of(run, length=11))


def test_temperature_0_takes_the_likeliest(run: Path) -> None:
    texts = {text_of(run, temperature=0.0, seed=seed, prompt="def ") for seed in range(3)}
    assert len(texts) == 1
    assert texts == {text_of(run, top_k=1, prompt="def ")}
    assert texts == {text_of(run, temperature=1e-9, prompt="def ")}
    assert texts == {text_of(run, temperature=1e-300, prompt="def ")}


def test_the_text_is_what_the_network_says(run: Path) -> None:
    """Against a network that reads prompt and text at once, from plain products."""
    text = text_of(run, temperature=0.0, prompt="class")
    opened = open_run(run, REGISTRY)
    vocabulary = open_dataset(opened.job.data.path).vocabulary("tokens")
    assert vocabulary is not None
    p = {name: a.astype(np.float64) for name, a in opened.parameters.items()}
    layer = Recurrent("lstm", 6, 8, "float64")
    own = {name: p[f"layer1.{name}"] for name in layer.plan.parameters}
    read = vocabulary.encode("class" + text)
    y, _, _ = layer.forward(own, p["input.weight"][read[:, None]], training=False)
    logits = y[:, 0] @ p["output.weight"] + p["output.bias"]
    assert vocabulary.decode(logits.argmax(-1)[4:-1]) == text


def test_pieces_come_one_by_one(run: Path) -> None:
    pieces = generate(run, REGISTRY, length=10**9)
    assert "".join(islice(pieces, 12)) == text_of(run, length=12)
    pieces.close()  # type: ignore[attr-defined]


def test_a_prompt_is_read(run: Path) -> None:
    assert text_of(run, prompt="def add(") != text_of(run, prompt="class Cat")
    assert text_of(run) == text_of(run, prompt="\n")
    assert text_of(run, length=0) == ""


def test_a_prompt_of_unknown_characters_is_an_error(run: Path) -> None:
    with pytest.raises(JobError) as error:
        text_of(run, prompt="def ß")
    assert "the text has the character 'ß'" in sentence_of(error.value)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -0.1}, {"top_k": 0}, {"top_k": -3}, {"temperature": float("nan")}]
)
def test_wrong_options(run: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="a temperature is at least 0, top_k at least 1"):
        text_of(run, **wrong)


@pytest.mark.parametrize(("reader", "known"), [("bytes", "ß日本"), ("words", "def nowhere")])
def test_other_units(tmp_path: Path, reader: str, known: str) -> None:
    run = trained(tmp_path, reader)
    for prompt in ("", known, "   ", "\n\n"):
        text = text_of(run, prompt=prompt)
        assert text == text_of(run, prompt=prompt)
        assert text


def test_a_text_without_line_ends(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("abcab" * 200)
    from rnnfarm.data import build_dataset

    reader = REGISTRY.get("readers", "characters")
    build_dataset(reader(files=[str(tmp_path / "text.txt")]), tmp_path / "data")
    train(make_job(token_job(tmp_path / "data", steps=2)), REGISTRY, out=tmp_path / "run")
    assert set(text_of(tmp_path / "run")) <= set("abc")


def test_models_that_cannot_generate(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", {"train": [60], "valid": [30]})
    write_values(tmp_path / "values", {"train": [60], "valid": [30]})
    jobs = {
        "no text": (token_job(tmp_path / "tokens"), "does not predict the next token"),
        "labels": (token_job(tmp_path / "tokens", data={"target": "labels"}), "does not predict"),
        "values": (value_job(tmp_path / "values"), "does not predict the next token"),
    }
    for name, (raw, sentence) in jobs.items():
        raw["training"]["steps"] = 1
        train(make_job(raw), REGISTRY, out=tmp_path / name)
        with pytest.raises(JobError) as error:
            generate(tmp_path / name, REGISTRY)
        assert sentence in sentence_of(error.value)
        assert str(tmp_path / name) in sentence_of(error.value)


def test_runs_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="this is not a run"):
        generate(tmp_path / "absent", REGISTRY)
    with pytest.raises(JobError, match="there is no checkpoint '7'; there are: step-00000060"):
        generate(run, REGISTRY, checkpoint="7")
    (tmp_path / "job.toml").write_bytes((run / "job.toml").read_bytes())
    with pytest.raises(DataError, match="there is no whole checkpoint in it"):
        generate(tmp_path, REGISTRY)


# -- drawing ---------------------------------------------------------------------------------------


def shares(logits: list[float], temperature: float, top_k: int | None = None) -> np.ndarray:
    random = generator(0, SAMPLE)
    drawn = [draw(np.array(logits), temperature, top_k, random) for _ in range(20_000)]
    return np.bincount(drawn, minlength=len(logits)) / len(drawn)


def softmax(logits: list[float], temperature: float = 1.0) -> np.ndarray:
    exp = np.exp(np.array(logits) / temperature)
    return exp / exp.sum()


def test_draws_follow_the_softmax() -> None:
    logits = [1.0, 0.0, -1.0, 2.0]
    for temperature in (0.5, 1.0, 3.0):
        assert np.abs(shares(logits, temperature) - softmax(logits, temperature)).max() < 0.012


def test_top_k_leaves_out_the_others() -> None:
    found = shares([1.0, 0.0, -1.0, 2.0], 1.0, 2)
    assert found[1] == found[2] == 0
    assert np.abs(found[[0, 3]] - softmax([1.0, 2.0])).max() < 0.012
    assert np.abs(shares([1.0, 0.0], 1.0, 9) - softmax([1.0, 0.0])).max() < 0.012


def test_extreme_logits_do_not_overflow() -> None:
    assert shares([1e300, 0.0, -1e300], 1e-3).tolist() == [1, 0, 0]


# -- the command -----------------------------------------------------------------------------------


def command(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rnnfarm", *arguments],
        input=given, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_the_command_writes_the_text_as_it_comes(run: Path) -> None:
    done = command("generate", str(run), "--length", "30", "--seed", "4", "--prompt", "def")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == text_of(run, length=30, seed=4, prompt="def") + "\n"


def test_a_file_or_standard_input_to_start_with(run: Path, tmp_path: Path) -> None:
    (tmp_path / "begin.txt").write_text("def", encoding="utf-8")
    words = ("generate", str(run), "--length", "30", "--seed", "4")
    text = text_of(run, length=30, seed=4, prompt="def") + "\n"
    assert command(*words, "--input", str(tmp_path / "begin.txt")).stdout == text
    assert command(*words, "--input", "-", given="def").stdout == text
    done = command(*words, "--input", str(tmp_path / "none.txt"))
    assert done.returncode == 2
    assert "none.txt: there is no such file" in done.stderr
    (tmp_path / "latin.txt").write_bytes(b"\xe4")
    done = command(*words, "--input", str(tmp_path / "latin.txt"))
    assert done.returncode == 5
    assert "latin.txt, line 1: byte 0xe4 is not UTF-8" in done.stderr
    assert command(*words, "--input", "-", "--prompt", "a").returncode == 2


@pytest.mark.parametrize("seed", [2**63, 2**64, 10**30])
def test_a_seed_that_is_too_large(run: Path, seed: int) -> None:
    done = command("generate", str(run), "--length", "3", "--seed", str(seed))
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "a seed from 0 to below 2**63" in done.stderr
    assert done.returncode == 2
