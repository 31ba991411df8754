"""Wrong jobs, datasets, shards, checkpoints and plugins: one sentence each, and the exit code.

``python tests/e2e/test_bad_input.py`` prints the table.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from rnnfarm.cli import main

TEXT = "the quick brown fox jumps over the lazy dog\n" * 60
BUILD = """path = "data"
build = { reader = "characters", files = ["text.txt"], valid = 0.2 }"""
JOB = f"""
[data]
{BUILD}
[model]
input = {{ kind = "embedding", size = 4 }}
layers = [{{ cell = "elman", hidden = 4 }}]
loss = "cross_entropy"
[training]
batch = 4
window = 8
steps = 4
checkpoint_every = 2
"""


@dataclass(frozen=True)
class Case:
    """A mistake.

    spoil: makes it, in a folder with job.toml, text.txt, data/ and run/, and gives the command.
    code: the exit code; parts: what the sentence must say.
    """

    name: str
    spoil: Callable[[Path], list[str]]
    code: int
    parts: tuple[str, ...]


def job(old: str, new: str) -> Callable[[Path], list[str]]:
    """Train with a job in which ``old`` is ``new``."""

    def spoil(folder: Path) -> list[str]:
        assert old in JOB
        (folder / "job.toml").write_text(JOB.replace(old, new))
        return train(folder)

    return spoil


def train(folder: Path, *more: str) -> list[str]:
    return ["train", str(folder / "job.toml"), "--out", str(folder / "new"), "--quiet", *more]


def after(change: Callable[[Path], object], *command: str) -> Callable[[Path], list[str]]:
    """Run a command, with ``{}`` for the folder, after something was changed in it."""

    def spoil(folder: Path) -> list[str]:
        change(folder)
        return [part.replace("{}", str(folder)) for part in command]

    return spoil


def nothing(folder: Path) -> None:
    pass


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 1
    path.write_bytes(bytes(content))


def shard(folder: Path) -> Path:
    return sorted((folder / "data").glob("*.arrow"))[0]


def each_state(folder: Path, change: Callable[[Path], None]) -> None:
    for path in (folder / "run" / "checkpoints").glob("*/state.safetensors"):
        change(path)


def csv(folder: Path, text: str) -> list[str]:
    (folder / "a.csv").write_text(text)
    return ["data", "build", "csv", str(folder / "new"), str(folder / "a.csv"), "--quiet"]


def cell(folder: Path, body: str) -> list[str]:
    (folder / "my_cells.py").write_text(
        "from rnnfarm import Cell, affine, tanh\n\nclass Mine(Cell):\n"
        f"    def step(self, x, h):\n        {body}\n"
    )
    sys.modules.pop("my_cells", None)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ["explain", "my_cells:Mine"]


TRAIN = ("train", "{}/job.toml", "--out", "{}/new", "--quiet")
CASES = [
    Case("no job file", after(nothing, "train", "{}/none.toml"), 2, ("none.toml", "no such")),
    Case("no TOML", job("steps = 4", "steps = = 4"), 2, ("job.toml", "line 12")),
    Case("unknown key", job("steps = 4", "step = 4"), 2, ("training.step", "'steps'")),
    Case("wrong type", job("steps = 4", 'steps = "four"'), 2, ("training.steps", "integer")),
    Case("out of range", job("steps = 4", "steps = 0"), 2, ("training.steps", "1")),
    Case("unknown cell", job('"elman"', '"elmann"'), 3, ("elmann", "'elman'")),
    Case("unknown loss", job('"cross_entropy"', '"cross"'), 3, ("cross", "cross_entropy")),
    Case(
        "unknown setting of a cell",
        job("hidden = 4", 'hidden = 4, activation = "sine"'),
        2,
        ("model.layers", "activation", "tanh"),
    ),
    Case("lanes", job("batch = 4", "batch = 4\nlanes = 3"), 2, ("training.batch", "3")),
    Case("stride", job("window = 8", "window = 8\nstride = 9"), 2, ("training.stride", "8")),
    Case(
        "stride of examples",
        after(nothing, *TRAIN, "--set", "data.mode=examples", "--set", "training.stride=4"),
        2,
        ("training.stride", "examples"),
    ),
    Case(
        "bidirectional stream",
        job("hidden = 4", "hidden = 4, bidirectional = true"),
        2,
        ("bidirectional", "examples"),
    ),
    Case(
        "input that does not fit",
        job('{ kind = "embedding", size = 4 }', '{ kind = "none" }'),
        2,
        ("model.input.kind", "tokens"),
    ),
    Case("loss that does not fit", job('"cross_entropy"', '"mse"'), 2, ("model.loss", "tokens")),
    Case(
        "no such column",
        job('path = "data"', 'path = "data"\ninput = "txet"'),
        2,
        ("data.input", "txet", "tokens"),
    ),
    Case("batch too large", job("batch = 4", "batch = 4000"), 2, ("batch", "4000")),
    Case("wrong --set", after(nothing, *TRAIN, "--set", "training.steps"), 2, ("training.steps",)),
    Case("no GPU", job("steps = 4", 'steps = 4\ndevice = "cuda"'), 4, ("cuda",)),
    Case("unknown kernel", job("steps = 4", 'steps = 4\nkernel = "fast"'), 3, ("fast", "kernel")),
    Case("address", after(nothing, *TRAIN, "--address", "127.0.0.1:1"), 4, ("--address",)),
    Case("workers", after(nothing, *TRAIN, "--workers", "9"), 2, ("--workers 9", "lanes")),
    Case(
        "a run is there",
        after(nothing, "train", "{}/job.toml", "--out", "{}/run", "--quiet"),
        2,
        ("--resume", "--out"),
    ),
    Case(
        "resumed with another job",
        after(
            nothing,
            "train",
            "{}/job.toml",
            "--out",
            "{}/run",
            "--quiet",
            "--resume",
            "--set",
            "training.seed=5",
        ),
        2,
        ("training.seed", "0", "5"),
    ),
    Case(
        "loss that explodes",
        job("steps = 4", 'steps = 40\noptimizer = { name = "sgd", lr = 1e39 }'),
        1,
        ("step", "training.optimizer.lr"),
    ),
    Case(
        "no dataset",
        job(BUILD, 'path = "nodata"'),
        5,
        ("nodata", "no dataset"),
    ),
    Case(
        "no file for a reader",
        after(nothing, "data", "build", "bytes", "{}/new", "{}/*.md", "--quiet"),
        2,
        ("*.md",),
    ),
    Case(
        "text that is no UTF-8",
        after(
            lambda f: (f / "latin.txt").write_bytes(b"caf\xe9 noir " * 9),
            "data",
            "build",
            "characters",
            "{}/new",
            "{}/latin.txt",
            "--quiet",
        ),
        5,
        ("latin.txt", "UTF-8"),
    ),
    Case("CSV cell", lambda f: csv(f, "a,b\n1,2\n3,x\n"), 5, ("a.csv", "line 3", "'x'")),
    Case("CSV hole", lambda f: csv(f, "a,b\n1,2\n,4\n"), 5, ("a.csv", "line 3")),
    Case(
        "manifest that is no JSON",
        after(lambda f: cut(f / "data" / "dataset.json"), *TRAIN),
        5,
        ("dataset.json", "JSON"),
    ),
    Case(
        "manifest of the future",
        after(
            lambda f: (f / "data" / "dataset.json").write_text(
                json.dumps(json.loads((f / "data" / "dataset.json").read_text()) | {"format": 9})
            ),
            "data",
            "info",
            "{}/data",
        ),
        5,
        ("format 9", "upgrade"),
    ),
    Case("missing shard", after(lambda f: shard(f).unlink(), *TRAIN), 5, (".arrow",)),
    Case("shard cut off", after(lambda f: cut(shard(f)), *TRAIN), 5, (".arrow", "bytes")),
    Case(
        "shard with a flipped bit",
        after(lambda f: flip(shard(f)), "data", "verify", "{}/data"),
        5,
        (".arrow", "checksum"),
    ),
    Case(
        "folder that is no dataset",
        after(nothing, "data", "info", "{}/run"),
        5,
        ("dataset.json",),
    ),
    Case(
        "all checkpoints cut off",
        after(lambda f: each_state(f, cut), "evaluate", "{}/run"),
        5,
        ("checkpoint",),
    ),
    Case(
        "a named checkpoint with a flipped bit",
        after(lambda f: each_state(f, flip), "evaluate", "{}/run", "--checkpoint", "4"),
        5,
        ("step-00000004", "checksum"),
    ),
    Case(
        "no such checkpoint",
        after(nothing, "evaluate", "{}/run", "--checkpoint", "7"),
        2,
        ("'7'", "step-00000004"),
    ),
    Case("folder that is no run", after(nothing, "generate", "{}/data"), 2, ("job.toml",)),
    Case(
        "prompt outside the vocabulary",
        after(nothing, "generate", "{}/run", "--prompt", "É"),
        2,
        ("'É'", "vocabulary"),
    ),
    Case("no such split", after(nothing, "evaluate", "{}/run", "--split", "tset"), 2, ("tset",)),
    Case(
        "Python if in a cell",
        lambda f: cell(f, "return h if x > 0 else x"),
        3,
        ("Mine", "my_cells.py", "line 5", "where"),
    ),
    Case(
        "widths that do not fit",
        lambda f: cell(f, "return tanh(affine(x, h, units=3) + h)"),
        3,
        ("Mine", "line 5", "3 wide"),
    ),
    Case(
        "unknown operation",
        lambda f: cell(f, "import numpy; return numpy.sin(h)"),
        3,
        ("Mine", "numpy.sin"),
    ),
    Case("no such module", after(nothing, "explain", "nowhere:Cell"), 3, ("nowhere",)),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    return prepare(folder / "original")


def prepare(folder: Path) -> Path:
    """A folder with a job, its text, its dataset and a finished run."""
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    (folder / "job.toml").write_text(JOB)
    code, said = call(["train", str(folder / "job.toml"), "--out", str(folder / "run"), "--quiet"])
    assert code == 0, said
    return folder


def call(arguments: list[str]) -> tuple[int, str]:
    """Run the command line here; its exit code and what it said on stderr."""
    said = StringIO()
    with redirect_stderr(said), redirect_stdout(StringIO()):
        try:
            main(arguments)
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(original, folder)
    before = np.sort([hash(p.read_bytes()) for p in (folder / "run").rglob("*") if p.is_file()])
    command = case.spoil(folder)
    code, said = call(command)
    assert code == case.code, said
    for part in case.parts:
        assert part in said
    assert "Traceback" not in said
    assert "unexpected" not in said
    sentences = [line for line in said.splitlines() if line.startswith("rnnfarm: ")]
    assert sentences, said
    if "checkpoint" not in case.name:  # nothing that was written before is lost
        now = np.sort([hash(p.read_bytes()) for p in (folder / "run").rglob("*") if p.is_file()])
        assert np.array_equal(before, now)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as top:
        base = prepare(Path(top) / "original")
        print("| case | exit code | what it says |\n| --- | --- | --- |")
        for number, case in enumerate(CASES):
            work = Path(top) / str(number)
            shutil.copytree(base, work)
            code, said = call(case.spoil(work))
            text = " · ".join(line.removeprefix("rnnfarm: ") for line in said.splitlines())
            print(f"| {case.name} | {code} | {text.replace(str(work), '…')} |")
