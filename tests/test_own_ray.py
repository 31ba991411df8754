"""A Ray of a run's own: who can reach it, what it shows, what it leaves, and what if it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tomli_w
from cluster_tools import cluster_job, start_rnnfarm
from thorough import times
from training_tools import REGISTRY

from rnnfarm.cluster.connect import _own_folder
from rnnfarm.job import load_job
from rnnfarm.training.session import train

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
ENDLESS = ("--set", "training.steps=100000", "--set", "training.checkpoint_every=5")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def job_file(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps(cluster_job(data)))
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder with a short path: sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(short: Path) -> Iterator[Start]:
    """Start a command whose temporary folder is the short one; what still runs is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        started.append(start_rnnfarm(*arguments, TMPDIR=str(short), **environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def await_checkpoint(process: subprocess.Popen[str], out: Path) -> None:
    end = time.monotonic() + 60
    while not list((out / "checkpoints").glob("step-*[0-9]")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_embedded(start: Start, job_file: Path, tmp_path: Path, short: Path) -> None:
    """A Ray of its own, of which nothing is left and nothing shows but in a file.

    What a job says of a cluster's nodes means nothing on one machine.
    """
    out = tmp_path / "run"
    far = '[cluster]\nplacement = "strict_spread"\nresources = { far = 1.0 }\n'
    job_file.write_text(job_file.read_text().replace("[cluster]\n", far))
    process = start("train", job_file, "--workers", 2, "--out", out, "--json")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    alone = train(load_job(job_file, (), REGISTRY), REGISTRY, out=tmp_path / "alone")
    assert json.loads(output)["parameters_sha256"] == alone.parameters_sha256
    assert json.loads(output)["workers"] == 2
    assert not [line for line in errors.splitlines() if "ray" in line.lower() and "run" not in line]
    nothing_of_ray(short)


def test_a_death_does_not_spoil_the_output(
    start: Start, job_file: Path, tmp_path: Path, short: Path
) -> None:
    """Ray prints a notice of it on stdout, where one JSON object belongs."""
    out = tmp_path / "run"
    more = ("--set", "training.steps=200", "--json")
    process = start("train", job_file, "--workers", 2, "--out", out, *more)
    await_checkpoint(process, out)
    (raylet,) = [pid for pid, line in processes() if f"{short}/" in line and "/raylet " in line]
    workers = [
        pid
        for pid, line in processes()
        if line.startswith("ray::Worker")
        and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(raylet)
    ]
    os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["steps"] == 200
    assert " died (" in errors
    assert "raylet" not in errors
    assert "A worker died or was killed" in (out / "ray.log").read_text()
    nothing_of_ray(short)


@pytest.mark.parametrize("name", ["gcs_server", "raylet"][: times(usual=1, thorough=2)])
def test_ray_itself_ends(
    start: Start, job_file: Path, tmp_path: Path, short: Path, name: str
) -> None:
    """One sentence, soon; Ray itself would try for a minute and end the process."""
    out = tmp_path / "run"
    process = start("train", job_file, "--workers", 2, "--out", out, *ENDLESS)
    await_checkpoint(process, out)
    (server,) = [pid for pid, line in processes() if f"{short}/" in line and f"/{name} " in line]
    os.kill(server, signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert output == ""
    last = errors.splitlines()[-1]
    assert f"Ray's own {name} on this machine has ended" in last
    assert "--resume" in last
    nothing_of_ray(short)


def test_a_node_without_memory(start: Start, job_file: Path, tmp_path: Path, short: Path) -> None:
    """Ray's watch over memory ends the workers, here because it was told that 2 % are too much."""
    watch = {"RAY_memory_usage_threshold": "0.02", "RAY_memory_monitor_refresh_ms": "100"}
    process = start("train", job_file, "--workers", 1, "--out", tmp_path / "run", **watch)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    last = errors.splitlines()[-1]
    assert "workers were lost 3 times without progress" in last
    assert "killed due to the node running low on memory" in last
    assert "look for memory (lower training.batch)" in last
    nothing_of_ray(short)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_embedded_and_ended(
    start: Start,
    job_file: Path,
    tmp_path: Path,
    short: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    process = start("train", job_file, "--workers", 2, "--out", out, *ENDLESS)
    await_checkpoint(process, out)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "its checkpoint is written, go on with --resume" in errors
        assert not list(short.iterdir())
    else:  # whose folder the next run removes
        assert len(list(short.glob("rnnfarm-ray-*"))) == 1
        monkeypatch.setattr("tempfile.tempdir", str(short))
        with _own_folder() as folder:
            assert list(short.glob("rnnfarm-ray-*")) == [folder]
    nothing_of_ray(short)


def processes() -> Iterator[tuple[int, str]]:
    """The id and the command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(path.parent.name), line


def nothing_of_ray(folder: Path) -> None:
    """Assert that the processes of a Ray below a temporary folder end."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        left = [line for _, line in processes() if f"{folder}/" in line]
        if not left:
            return
        time.sleep(0.2)
    raise AssertionError(left)


#: Prints, of a Ray of its own: the addresses that its processes listen on, the modes of its token
#: and of the folder around it, and what happens to a process that would join without the token.
LOOK = """
import json, os, subprocess, sys
from pathlib import Path
import ray
from rnnfarm.cluster.connect import ray_session

def listening(pid):
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd))
        except OSError:
            pass
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                yield words[1].split(":")[0]

def descendants(pid):
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found, new = {pid}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found

os.environ["RAY_AUTH_TOKEN"] = "of another cluster"
with ray_session(None, cpus=1, log_file=Path(sys.argv[1]), store=100 << 20):
    assert ray.get(ray.remote(lambda: 3).remote()) == 3
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    address = ray.get_runtime_context().gcs_address
    join = f"import ray; ray.init(address={address!r}); print(ray.nodes())"
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    stranger |= {"RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    joined = subprocess.run([sys.executable, "-c", join], env=stranger, capture_output=True)
    places = sorted({place for pid in descendants(os.getpid()) for place in listening(pid)})
    modes = [oct(path.stat().st_mode & 0o777) for path in (token, token.parent)]
assert os.environ["RAY_AUTH_TOKEN"] == "of another cluster"
assert "RAY_AUTH_TOKEN_PATH" not in os.environ
print(json.dumps([places, modes, joined.returncode, token.parent.exists()]))
"""


def test_nobody_else_can_join(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOOK, str(tmp_path / "ray.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    places, modes, joined, left = json.loads(done.stdout)
    # 127.0.0.1, also as an IPv6 address, in the byte order of /proc.
    assert set(places) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert places
    assert modes == ["0o600", "0o700"]
    assert joined != 0
    assert not left
