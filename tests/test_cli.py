"""The command line, as its users run it: what is printed where, and the exit codes."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Call

from rnnfarm import cli, errors
from rnnfarm.equations.plan import Plan
from rnnfarm.kernels.interface import Kernel
from rnnfarm.kernels.numpy import NumPyKernel
from rnnfarm.terminal import print_json_rows
from rnnfarm.training.callback import Callback as RunCallback

HEAVY = ("ray", "cupy", "pyarrow", "numpy", "pydantic")
COMMANDS = (
    *("train", "submit", "status", "logs", "stop"),
    *("data", "evaluate", "generate", "predict", "report"),
    *("plugins", "explain", "check", "new-plugin", "schema", "doctor"),
)
JOB = """
[data]
path = "dataset"
[model]
input = { kind = "one_hot" }
layers = [{ cell = "lstm", hidden = 8 }]
loss = "cross_entropy"
"""
PATH = 'path = "dataset"\n'
LONG = "x" * 300
BUILD = 'build = { reader = "bytes", files = ["text.txt"] }\n'


def shell(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rnnfarm", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import rnnfarm",
        "import rnnfarm.cli; call('--help')",
        "import rnnfarm.cli; call('plugins')",
        "import rnnfarm.cli; call('plugins', '--json')",
        "import rnnfarm.cli; call('train', '--help')",
        "import rnnfarm.builtin.cells, rnnfarm.builtin.losses, rnnfarm.builtin.optimizers\n"
        "del sys.modules['pydantic']",  # describes settings, and computes nothing
    ],
)
def test_naming_things_imports_nothing_heavy(statement: str) -> None:
    code = f"""
import sys
def call(*arguments):
    try:
        rnnfarm.cli.main(list(arguments))
    except SystemExit as stop:
        assert stop.code == 0
{statement}
heavy = [name for name in {HEAVY} if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_lists_every_command(call: Call) -> None:
    code, out, err = call("--help")
    assert code == 0
    assert err == ""
    listed = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line]
    assert listed == list(COMMANDS)
    assert "..." not in out.partition("Commands:")[2]  # no description is cut off


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, call: Call) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: rnnfarm {command}")
    assert "..." not in out.partition("Options:")[2]


def test_version(call: Call) -> None:
    assert call("--version") == (0, "rnnfarm 0.1.0\n", "")


@pytest.mark.parametrize("command", [(), ("data",)])
def test_no_command_shows_help_and_is_bad_usage(command: tuple[str, ...], call: Call) -> None:
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: rnnfarm")


def test_plugins_lists_the_built_in_parts(call: Call) -> None:
    code, out, err = call("plugins")
    assert (code, err) == (0, "")
    assert "rnnfarm 0.1.0  (entry point 'builtin = rnnfarm.builtin')" in out
    assert "elman, gru, gru_reset_before" in out
    code, out, _ = call("plugins", "--json")
    report = json.loads(out)
    assert report["schema"] == 1
    assert "lstm" in report["plugins"][0]["hooks"]["cells"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("trian",),
            2,
            "there is no command 'trian'; did you mean 'train'? (see 'rnnfarm --help')",
        ),
        (("data", "verfy"), 2, "there is no command 'verfy'; did you mean 'verify'?"),
        (("train",), 2, "missing argument 'JOB' (see 'rnnfarm train --help')"),
        (("train", "x.toml", "--stp"), 2, "no such option"),
        (("train", "x.toml", "--workers", "0"), 2, "0 is not in the range x>=1"),
        (("train", "nowhere.toml"), 2, "nowhere.toml: there is no such job file; check the path"),
        (("train", "job.toml", "--set", "x"), 2, "--set x: write KEY=VALUE"),
        (("train", "job.toml", "--set", "stps=1"), 2, "job.toml: stps: unknown key"),
        (("train", "job.toml", "--set", "model.layers.0.cell=lstn"), 3, "did you mean 'lstm'?"),
        (
            ("train", "job.toml", "--address", "ray://x"),
            4,
            "--address ray://x: `train` runs on a node of the cluster itself",
        ),
        (("train", "job.toml"), 5, "dataset"),
        (("--no-plugin", "nothing", "plugins"), 2, "--no-plugin nothing: no such plugin"),
        (("explain", "lstn"), 3, "there is no cell 'lstn'; did you mean 'lstm'?"),
        (("explain", "lstm", "--set", "activaton=relu"), 2, "activaton: unknown key"),
        (("explain", "no_module:Cell"), 3, "ModuleNotFoundError: No module named 'no_module'"),
        (("explain", "lstm", "--hidden", "0"), 2, "0 is not in the range x>=1"),
        (("explain", "lstm", "--device", "tpu"), 2, "'tpu' is not one of 'cpu', 'cuda'"),
        (
            ("explain", "lstm", "--kernel", "numpy", "--device", "cpu"),
            2,
            "give --kernel or --device, not both",
        ),
        (("data", "info", "nowhere"), 5, "nowhere"),
        (("data", "verify", "nowhere"), 5, "nowhere"),
        (("data", "build", "byte", "out"), 3, "there is no reader 'byte'; did you mean 'bytes'?"),
        (("data", "build", "bytes", "out", "--set", "fils=1"), 2, "fils: unknown key"),
        (("data", "build", "bytes", "out", "no-file.txt", "--quiet"), 2, "no-file.txt"),
        (
            ("data", "build", "bytes", "out", "caf\udce9.txt"),
            2,
            "Bytes: a name or text in it is not",
        ),
        (("predict", "run"), 2, "give exactly one of --split NAME and --input PATH"),
        (("evaluate", "nowhere"), 2, "nowhere: this is not a run"),
        (("generate", "nowhere"), 2, "nowhere: this is not a run"),
        (("predict", "nowhere", "--split", "valid"), 2, "nowhere: this is not a run"),
        (
            ("train", "job.toml", "--set", f"training.steps={'1' * 5000}"),
            2,
            "valid integer, not '1",
        ),
        (("data", "build", "bytes", LONG, "job.toml", "--quiet"), 2, "cannot be looked up"),
        (("data", "build", "bytes", "out", LONG, "--quiet"), 2, "matches no file"),
        (("evaluate", LONG), 2, "File name too long; correct the path"),
        (("report", LONG), 2, "File name too long; correct the path"),
        (("new-plugin", "my-cells", "--out", LONG), 2, "File name too long; correct the path"),
        (
            ("new-plugin", "my-cells", "--out", "job.toml/x"),
            2,
            "job.toml/x: cannot be written (Not a directory); name a folder elsewhere with --out",
        ),
        (("data", "build", "\x1b[31m", "out"), 3, r"there is no reader '\x1b[31m'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_gets_a_sentence_and_its_exit_code(
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    found, out, err = call(*arguments)
    assert found == code, err
    assert out == ""
    assert all(line.startswith("rnnfarm: ") for line in err.splitlines())
    assert sentence in err
    assert "Traceback" not in err
    assert "unexpected" not in err


def test_too_little_memory_is_one_sentence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.plugins, "callback", raiser(MemoryError("Unable to\nallocate 9 GiB")))
    assert call("plugins") == (
        1,
        "",
        "rnnfarm: there is not enough memory (Unable to allocate 9 GiB); lower training.batch, "
        "training.window or the layers' hidden, or take less data\n",
    )


def test_nothing_that_a_terminal_acts_on_is_printed(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "a\x1b[2J\r\x00\x9bb.csv: is wrong"
    monkeypatch.setattr(cli.plugins, "callback", raiser(errors.DataError(sentence)))
    assert call("plugins")[2] == "rnnfarm: a\\x1b[2J\\r\\x00\\x9bb.csv: is wrong\n"


def test_nothing_that_a_terminal_acts_on_is_in_a_warning(call: Call) -> None:
    call("--version")
    record = logging.LogRecord("rnnfarm", 30, "", 1, "%s is old", ("a\x1b[2J\n%s",), None)
    assert logging.lastResort is not None
    assert logging.lastResort.format(record) == "a\\x1b[2J\\n%s is old"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunError("the loss became NaN"), 1),
        (errors.JobError(["one", "two"]), 2),
        (errors.PluginError("a plugin"), 3),
        (errors.CellError("a cell"), 3),
        (errors.DeviceError("no device"), 4),
        (errors.DataError("a damaged shard"), 5),
        (errors.Interrupted("stopped at step 3"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_its_exit_code(
    error: BaseException, code: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.plugins, "callback", raiser(error))
    monkeypatch.setattr(os, "_exit", sys.exit)
    found, out, err = call("plugins")
    sentences = str(error).splitlines() or ["interrupted"]
    assert (found, out) == (code, "")
    assert err.strip().splitlines() == [f"rnnfarm: {sentence}" for sentence in sentences]


def raiser(error: BaseException) -> Callable[..., None]:
    def raises(**_: Any) -> None:
        raise error

    return raises


def test_what_nobody_expected_is_one_sentence_that_says_where_its_traceback_is(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.plugins, "callback", raiser(ZeroDivisionError("by\nzero")))
    code, out, err = call("plugins")
    assert (code, out) == (1, "")
    assert err.startswith("rnnfarm: an unexpected ZeroDivisionError: by zero; its traceback is in ")
    assert len(err.splitlines()) == 1
    path = Path(err.partition("is in ")[2].partition(" (RNNFARM_DEBUG")[0])
    assert "Traceback (most recent call last)" in path.read_text()
    path.unlink()


def test_an_exception_in_a_part_of_a_plugin_names_the_part(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moody(RunCallback):
        def on_step(self, metrics: dict[str, object]) -> None:
            raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli.plugins, "callback", lambda **_: Moody().on_step({}))
    code, out, err = call("plugins")
    assert (code, out) == (3, "")
    line = Moody.on_step.__code__.co_firstlineno + 1
    start = f"rnnfarm: Moody.on_step ({__file__}, line {line}): ZeroDivisionError: by zero; its "
    assert err.startswith(start)
    assert len(err.splitlines()) == 1
    Path(err.partition("is in ")[2].partition(" (RNNFARM_DEBUG")[0]).unlink()


def test_debugging_shows_the_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.plugins, "callback", raiser(ZeroDivisionError("by zero")))
    monkeypatch.setenv("RNNFARM_DEBUG", "1")
    code, _, err = call("plugins")
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")


def test_a_closed_pipe_is_no_error_to_tell_of() -> None:
    done = subprocess.run(
        f"{sys.executable} -m rnnfarm schema | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "{"
    assert done.stderr == ""


def test_a_full_disk_behind_stdout_gets_a_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for unbuffered in ("", "1"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "rnnfarm", "plugins"],
                env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 1
        assert done.stderr == (
            "rnnfarm: the output could not be written (No space left on device); make room for it\n"
        )


def test_a_terminal_without_unicode_gets_escapes() -> None:
    done = shell("data", "build", "--help", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert "\\u2026" in done.stdout


def test_explain_shows_a_cell(call: Call) -> None:
    code, out, err = call("explain", "lstm", "--inputs", "3", "--hidden", "2")
    assert (code, err) == (0, "")
    for word in ("LSTM: 3 inputs, 2 units", "tanh", "∂x  = ", "stage 1", "Kept for", "def forward"):
        assert word in out
    code, out, _ = call(
        "explain", "rnnfarm.builtin.cells:Elman", "--set", "activation=relu", "--json"
    )
    report = json.loads(out)
    assert (code, report["schema"], report["cell"]) == (0, 1, "Elman")
    assert "def backward" in report["source"]
    assert "maximum" in report["source"]


def test_explain_of_a_kernel_that_is_not_there(call: Call) -> None:
    code, _, err = call("explain", "lstm", "--kernel", "tpu")
    assert code == 3
    assert err.startswith("rnnfarm: there is no kernel 'tpu'")


class Telling(NumPyKernel):
    """A kernel for a device that is not here, which says what it is asked."""

    devices = ("cuda",)
    priority = 5
    precision = "none"

    def in_precision(self, precision: str) -> Telling:
        made = Telling()
        made.precision = precision
        return made

    def text(self, plan: Plan, dtype: str) -> str:
        return f"{dtype} in {self.precision}"

    def remarks(self, plan: Plan, dtype: str, steps: int, rows: int) -> tuple[str, ...]:
        return f"{plan.cell} runs in {self.precision}.", f"Windows are {steps} by {rows}."

    def missing(self) -> str:
        return "a device"


class Lesser(Telling):
    priority = 4


def install(monkeypatch: pytest.MonkeyPatch, **kernels: Kernel) -> None:
    monkeypatch.setattr("rnnfarm.kernels.choose.installed_kernels", lambda registry: kernels)


def test_explain_by_device_says_how_it_runs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, numpy=NumPyKernel(), lesser=Lesser(), telling=Telling())
    code, out, err = call("explain", "lstm", "--device", "cuda")
    assert (code, err) == (0, "")
    page = "\n".join(["", "How it runs", "  LSTM runs in full.", "  Windows are 64 by 32.", ""])
    assert page in out
    assert "float32 in full" in out
    options = ("--device", "cuda", "--batch", "7", "--window", "9", "--precision", "bf16")
    report = json.loads(call("explain", "gru", *options, "--json")[1])
    assert report["remarks"] == ["GRU runs in bf16.", "Windows are 9 by 7."]
    assert report["source"] == "float32 in bf16"
    report = json.loads(call("explain", "lstm", "--device", "cpu", "--json")[1])
    assert report["remarks"] == []
    assert "def forward" in report["source"]


def test_explain_of_a_device_that_no_kernel_has(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, numpy=NumPyKernel())
    code, out, err = call("explain", "lstm", "--device", "cuda")
    assert (code, out) == (4, "")
    assert err == (
        "rnnfarm: no installed kernel runs on the device 'cuda'; run pip install rnnfarm-cupy\n"
    )


def test_schema_is_json(call: Call) -> None:
    code, out, err = call("schema")
    assert (code, err) == (0, "")
    assert "LayerTable" in json.loads(out)["$defs"]


def test_doctor_says_what_is_here_and_what_is_missing(call: Call) -> None:
    code, out, err = call("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["schema"] == 1
    assert report["python"] == sys.version.split()[0]
    assert report["cores"] >= 1
    assert report["packages"]["rnnfarm"] == "0.1.0"
    assert "numpy" in report["kernels"]
    assert report["blas"][0]["threads"] >= 1
    assert bool(report["gpus"]) != any("GPU" in s or "NVIDIA" in s for s in report["missing"])
    code, out, _ = call("doctor")
    assert code == 0
    assert "compiler" in out


def test_doctor_shows_what_kernels_tell(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumPyKernel, "about", lambda self: ("It is slow.", "It is right."))
    report = json.loads(call("doctor", "--json")[1])
    assert report["about"]["numpy"] == ["It is slow.", "It is right."]
    out = call("doctor")[1]
    assert "\nnumpy     It is slow.\nnumpy     It is right.\n" in out

    # Of what does not run nothing is asked.
    monkeypatch.setattr(NumPyKernel, "missing", lambda self: "everything is")
    report = json.loads(call("doctor", "--json")[1])
    assert "numpy" not in report["about"]
    assert "the kernel 'numpy' does not run: everything is" in report["missing"]


def test_doctor_outlives_a_kernel_that_cannot_tell(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def about(self: NumPyKernel) -> tuple[str, ...]:
        raise ValueError("no words")

    monkeypatch.setattr(NumPyKernel, "about", about)
    code, out, err = call("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert "numpy" in report["kernels"]
    assert "numpy" not in report["about"]
    told = "the kernel 'numpy' cannot tell of its device: ValueError: no words"
    assert told in report["missing"]


def test_doctor_without_a_compiler(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    report = json.loads(call("doctor", "--json")[1])
    assert report["compiler"] is None
    assert any("no C compiler" in sentence for sentence in report["missing"])


@pytest.mark.skipif(shutil.which("cc") is None, reason="compiles a stand-in for the GPU driver")
def test_doctor_asks_the_gpu_driver(tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text(
        "#include <string.h>\n"
        "int cuInit(unsigned flags) { return 0; }\n"
        "int cuDeviceGetCount(int *n) { *n = 2; return 0; }\n"
        "int cuDeviceGet(int *device, int index) { *device = index + 40; return 0; }\n"
        "int cuDeviceGetName(char *name, int size, int device) {\n"
        '    strcpy(name, device == 40 ? "GPU A" : "GPU B"); return 0; }\n'
    )
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    done = shell("doctor", "--json", LD_LIBRARY_PATH=str(tmp_path))
    report = json.loads(done.stdout)
    assert report["gpus"] == ["GPU A", "GPU B"]
    assert not any("finds no GPU" in sentence for sentence in report["missing"])
    assert not any(sentence.startswith("no NVIDIA driver") for sentence in report["missing"])


def test_a_dataset_is_built_shown_and_checked(call: Call, tmp_path: Path) -> None:
    text, dataset = tmp_path / "text.txt", tmp_path / "dataset"
    text.write_text("to be or not to be\n" * 200)
    code, out, err = call("data", "build", "bytes", str(dataset), str(text), "--json")
    assert code == 0, err
    built = json.loads(out)
    assert built["schema"] == 1
    assert sum(split["steps"] for split in built["splits"].values()) == 19 * 200
    assert json.loads(call("data", "info", str(dataset), "--json")[1]) == built
    assert "train" in call("data", "info", str(dataset))[1]
    assert call("data", "verify", str(dataset)) == (0, f"{dataset}: every shard is whole\n", "")
    code, _, err = call("data", "build", "bytes", str(dataset), str(text))
    assert code == 2, err


def test_a_damaged_dataset_is_named(call: Call, tmp_path: Path) -> None:
    text, dataset = tmp_path / "text.txt", tmp_path / "dataset"
    text.write_text("to be or not to be\n" * 200)
    assert call("data", "build", "bytes", str(dataset), str(text), "--quiet")[2] == ""
    shard = next(dataset.rglob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    code, out, err = call("data", "verify", str(dataset))
    assert (code, out) == (5, "")
    assert shard.name in err
    code, out, err = call("data", "verify", str(dataset), "--json")
    assert code == 5
    report = json.loads(out)
    assert report["whole"] is False
    assert shard.name in report["problems"][0]


def test_a_run_is_trained_evaluated_and_generated_from(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 400)
    (tmp_path / "job.toml").write_text(
        JOB.replace(
            'path = "dataset"',
            'path = "dataset"\nbuild = { reader = "bytes", files = ["text.txt"] }',
        )
    )
    size = ("--set", "training.batch=4", "--set", "training.window=16", "--set", "training.steps=3")
    code, out, err = call("train", "job.toml", *size, "--out", "run", "--json")
    assert code == 0, err
    assert "built" in err  # progress is on stderr
    result = json.loads(out)
    assert result["schema"] == 1
    assert result["steps"] == 3
    assert result["workers"] == 1
    assert len(result["parameters_sha256"]) == 64
    code, out, err = call("train", "job.toml", *size, "--out", "again", "--quiet")
    assert (code, err) == (0, "")
    assert result["parameters_sha256"] in out
    code, out, err = call("evaluate", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["schema"] == 1
    assert "loss" in call("evaluate", "run")[1]
    code, out, err = call("generate", "run", "--prompt", "to", "--length", "5", "--seed", "3")
    assert code == 0, err
    text = out
    assert call("generate", "run", "--prompt", "to", "--length", "5", "--seed", "3")[1] == text
    code, out, err = call("predict", "run", "--split", "valid")
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows
    assert all(isinstance(row, dict) for row in rows)
    code, out, err = call("predict", "run", "--split", "valid", "--json")
    assert code == 0, err
    assert json.loads(out) == {"schema": 1, "predictions": rows}
    assert call("predict", "run", "--split", "valid", "--json", "--table")[0] == 2


def commands(group: click.Group, *above: str) -> list[tuple[str, ...]]:
    """Every command of the command line by its words."""
    found = []
    for name, command in group.commands.items():
        inner = isinstance(command, click.Group)
        found += commands(command, *above, name) if inner else [(*above, name)]
    return found


@pytest.mark.parametrize("words", commands(cli.cli), ids=" ".join)
def test_every_command_prints_one_json_object(words: tuple[str, ...], call: Call) -> None:
    options = call(*words, "--help")[1].partition("Options:")[2]
    assert "--json" in options or words == ("schema",)  # which is JSON by itself


def test_rows_become_one_object_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[Any]:
        yield {"a": math.nan}
        assert capsys.readouterr().out == '{"schema": 1, "k": [{"a": null}'
        yield 2

    print_json_rows("k", rows())
    assert capsys.readouterr().out == ", 2]}\n"
    print_json_rows("k", [])
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "k": []}


def test_what_a_new_plugin_is_made_of(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("new-plugin", "my-cells", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["schema"] == 1
    assert (tmp_path / made["folder"] / "pyproject.toml").is_file()
    assert made["next"][0] == "pip install --editable my-cells"


def test_what_only_the_data_show_wrong_names_the_job_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 400)
    (tmp_path / "job.toml").write_text(JOB.replace(PATH, PATH + BUILD))
    code, _, err = call("train", "job.toml", "--set", "data.input=colour", "--quiet")
    assert code == 2
    assert err.startswith("rnnfarm: job.toml: data.input: ")
    assert "no column 'colour'" in err


def test_ctrl_c_ends_a_run_with_130_and_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 400)
    (tmp_path / "job.toml").write_text(
        JOB.replace(
            'path = "dataset"',
            'path = "dataset"\nbuild = { reader = "bytes", files = ["text.txt"] }',
        )
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rnnfarm", "train", "job.toml", "--out", "run"),
            *("--set", "training.steps=1000000", "--set", "training.batch=4"),
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    try:
        wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints").glob("step-*/checkpoint.json"))


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    import time

    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run wrote no metrics"
        time.sleep(0.02)


def test_data_info_says_how_columns_are_read(call: Call, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("city,x\nRome,1\nRome,5\nBern,2\n")
    dataset = str(tmp_path / "d")
    code, _, said = call("data", "build", "csv", dataset, str(tmp_path / "t.csv"))
    assert code == 0
    shown = call("data", "info", dataset)[1]
    for text in (said, shown):
        assert "column 'city' is left out: it holds text ('Rome')" in text
    assert "notes:\n  values: x\n" in shown
    learned = json.loads(call("data", "info", dataset, "--json")[1])["built_from"]["learned"]
    assert learned["values"] == ["x"]
    assert list(learned["left_out"]) == ["city"]


INTERRUPTED = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
wanted = sys.argv.pop(1)
runpy.run_module("rnnfarm", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["rnnfarm.cli", "click", "rnnfarm.plugins"])
def test_ctrl_c_during_the_imports_is_no_traceback(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, "plugins"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (130, "rnnfarm: interrupted")


def test_a_sentence_about_a_very_long_name_can_be_read(call: Any) -> None:
    code, _, said = call("data", "info", "a" * 5000)
    assert code == 5
    assert said.startswith(f"rnnfarm: {'a' * 200}…{'a' * 99}: cannot be read")
    code, _, said = call("report", "b" * 5000)
    assert code == 2
    assert len(said) < 500
