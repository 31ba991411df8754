"""Submitting jobs to a real cluster, started by ``ray start`` with a token of its own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import ray
import tomli_w
from cluster_tools import cluster_job
from conftest import Call

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
BIN = Path(sys.executable).parent

PLUGIN = {
    "pyproject.toml": (
        '[project]\nname = "strange-cells"\nversion = "0.3"\n'
        '[project.entry-points.rnnfarm]\nstrange = "strange_cells"\n'
    ),
    "strange_cells.py": (
        "import rnnfarm\n"
        "from rnnfarm import Cell, affine, tanh\n"
        "class Strange(Cell):\n"
        '    """h_t = (h + tanh(W[x, h])) / 2."""\n'
        '    states = ("h",)\n'
        "    def step(self, x, h):\n"
        "        return (h + tanh(affine(x, h))) / 2\n"
        "@rnnfarm.hookimpl\n"
        "def rnnfarm_cells():\n"
        '    return {"strange": Strange}\n'
    ),
}


@dataclass
class Head:
    """A running head node: its dashboard, where metrics are, and how to call rnnfarm for it."""

    address: str
    metrics: int
    environment: dict[str, str]

    def rnnfarm(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rnnfarm", *map(str, arguments)]
        if arguments[0] in ("submit", "status", "logs", "stop"):
            command += ["--address", self.address]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))
    (folder / "token").write_text(secrets.token_hex(32))
    gcs, dashboard, metrics, agent, grpc, client = free_ports(6)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "RAY_worker_niceness": "0",
        "RAY_metrics_report_interval_ms": "1000",
        # A machine that is busy with other tests answers late, which is no death of the node.
        "RAY_health_check_failure_threshold": "30",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),
    }
    (folder / "home").mkdir()
    process = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4"),
            *(f"--port={gcs}", "--include-dashboard=true", "--dashboard-host=127.0.0.1"),
            *(f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"),
            *(f"--ray-client-server-port={client}", f"--temp-dir={folder / 'ray'}"),
            "--disable-usage-stats",
        ],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        found = Head(f"http://127.0.0.1:{dashboard}", metrics, environment)
        end = time.monotonic() + 60
        while True:
            probe = [sys.executable, "-m", "rnnfarm", "status", "--address", found.address]
            if not subprocess.run(probe, env=environment, capture_output=True).returncode:
                break
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.3)
        yield found
    finally:
        process.terminate()
        process.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A job with a cell of a plugin's folder, and its data beside it by a relative path."""
    shutil.copytree(data, tmp_path / "my-data")
    (tmp_path / "strange").mkdir()
    for name, text in PLUGIN.items():
        (tmp_path / "strange" / name).write_text(text)
    raw = cluster_job(Path("my-data"), steps=12, cluster={"workers": 2})
    raw["model"]["layers"] = [{"cell": "strange", "hidden": 8, "dropout": 0.2}]
    (tmp_path / "job.toml").write_text(tomli_w.dumps(raw))
    return tmp_path


def test_submit_follow_and_stop(head: Head, folder: Path) -> None:
    """A cell that the cluster has never seen; its log is followed; a second run is stopped."""
    plugin = ("--plugin", folder / "strange")
    out = folder / "out"
    sent = head.rnnfarm("submit", folder / "job.toml", *plugin, "--out", out, "--follow")
    assert "plugins that travel along: strange-cells" in sent.stderr
    job_id = sent.stdout.splitlines()[0]
    assert "step 12  valid_loss" in sent.stdout
    assert re.search(r"^workers +2$", sent.stdout, re.M)
    # The same bits as here, in one process, with the plugin on the path.
    alone = subprocess.run(
        [
            *(sys.executable, "-m", "rnnfarm", "train", str(folder / "job.toml"), "--json"),
            *("--out", str(folder / "alone")),
        ],
        env=os.environ | {"PYTHONPATH": str(unpacked(folder))},
        capture_output=True, text=True,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    run = json.loads((out / "run.json").read_text())
    assert run["parameters_sha256"] == json.loads(alone.stdout)["parameters_sha256"]

    status = json.loads(head.rnnfarm("status", job_id, "--json").stdout)
    assert status["status"] == "SUCCEEDED"
    assert status["exit_code"] == 0
    assert status["out"] == str(out)
    assert job_id in head.rnnfarm("status").stdout
    assert "step 12  valid_loss" in head.rnnfarm("logs", job_id).stdout

    long = ("--set", "training.steps=1000000", "--out", folder / "long", "--json")
    second = json.loads(head.rnnfarm("submit", folder / "job.toml", *plugin, *long).stdout)["id"]
    end = time.monotonic() + 60
    while not list((folder / "long" / "checkpoints").glob("step-*[0-9]")):
        assert time.monotonic() < end, head.rnnfarm("logs", second).stdout
        time.sleep(0.1)
    await_metric(head, r'^ray_rnnfarm_train_loss\{.*run="long"')
    await_metric(head, r'^ray_rnnfarm_wait_seconds\{.*run="long".*worker="1"')
    assert f"{second}  STOPPED" in head.rnnfarm("stop", second).stdout
    assert "its checkpoint is written" in head.rnnfarm("logs", second).stdout
    head.rnnfarm("logs", second, "--follow", code=130)
    head.rnnfarm("stop", second)  # once more changes nothing


def await_metric(head: Head, pattern: str) -> None:
    """Read what Prometheus would read until a line is there."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{head.metrics}/metrics") as answer:
            text = answer.read().decode()
        if re.search(pattern, text, re.M):
            return
        time.sleep(0.5)
    raise AssertionError([line for line in text.splitlines() if "rnnfarm" in line])


def unpacked(folder: Path) -> Path:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--target", str(folder / "site"), str(folder / "strange")),
        ],
        check=True,
    )
    return folder / "site"


def test_an_error_of_the_job_is_that_of_the_command(head: Head, folder: Path) -> None:
    plugin = ("--plugin", folder / "strange")
    wide = ("--set", "cluster.cpus=3", "--set", "cluster.start_timeout=1")
    failed = head.rnnfarm("submit", folder / "job.toml", *plugin, *wide, "--follow", code=4)
    assert "there is no room for 2 workers with 3 CPUs each: the cluster has 1 node" in (
        failed.stdout
    )
    job_id = failed.stdout.splitlines()[0]
    assert json.loads(head.rnnfarm("status", job_id, "--json").stdout)["status"] == "FAILED"


def test_a_python_without_rnnfarm(head: Head, folder: Path) -> None:
    (folder / "bare").write_text("#!/bin/sh\necho \"$0: No module named 'rnnfarm'\"\nexit 1\n")
    (folder / "bare").chmod(0o755)
    bare = ("--python", folder / "bare")
    plugin = ("--plugin", folder / "strange")
    failed = head.rnnfarm("submit", folder / "job.toml", *plugin, *bare, "--follow", code=4)
    assert "the cluster's Python has no rnnfarm" in failed.stderr


def test_wrong_addresses_and_tokens(head: Head, folder: Path) -> None:
    job = folder / "job.toml"
    missing = subprocess.run(
        [sys.executable, "-m", "rnnfarm", "submit", str(job), "--address", "http://127.0.0.1:1"],
        capture_output=True, text=True, env=head.environment,
    )  # fmt: skip
    assert missing.returncode == 4
    assert "http://127.0.0.1:1: no Ray dashboard answers there" in missing.stderr
    assert "Traceback" not in missing.stderr
    unknown = head.rnnfarm("status", "nothing", code=2)
    assert "there is no job 'nothing'" in unknown.stderr
    (folder / "token").write_text("wrong" * 10)
    other = Head(head.address, 0, head.environment | {"RAY_AUTH_TOKEN_PATH": str(folder / "token")})
    refused = other.rnnfarm("status", code=4)
    assert "the cluster does not accept this machine's token" in refused.stderr


@contextmanager
def web_server(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """A server that gives these answers by path, and 404 for others; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            code, answer = answers.get(self.path, (404, b"Not Found"))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


VERSION = json.dumps({"ray_version": ray.__version__, "version": "4"}).encode()
MARKUP = b"<html><body><h1>hello</h1></body></html>"


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (
            {"/api/version": (200, VERSION), "/api/jobs/": (500, b"No available agent")},
            "the dashboard answers with HTTP 500 (No available agent): the cluster's head is there "
            "but cannot do this now; try again in a minute",
        ),
        (
            {"/api/version": (503, b"token of the upstream: none")},
            "the dashboard answers with HTTP 503 (token of the upstream: none)",
        ),
        (
            {"/api/version": (200, MARKUP)},
            "what answers there is no Ray dashboard, or one of another version (",
        ),
        (
            {"/api/version": (200, b"{}")},
            "what answers there is no Ray dashboard, or one of another version ('ray_version'",
        ),
        (
            {},
            "what answers there is no Ray dashboard, or one of another version (Version check "
            "returned 404",
        ),
        (
            {"/api/version": (200, VERSION), "/api/jobs/": (418, MARKUP)},
            "no Ray dashboard, or one of another version (HTTP 418: hello)",
        ),
    ],
)
def test_a_server_that_answers_otherwise_is_told_of_with_its_answer(
    answers: dict[str, tuple[int, bytes]], sentence: str, call: Call
) -> None:
    with web_server(answers) as address:
        code, out, errors = call("status", "--address", address)
    assert code == 4
    assert out == ""
    assert f"rnnfarm: {address}: " in errors
    assert sentence in errors
    assert errors.count("\n") == 1
    assert "no Ray dashboard answers there" not in errors


def test_another_version_of_ray(call: Call) -> None:
    """A stand-in for a dashboard, as two versions of Ray cannot be installed side by side."""
    old = json.dumps({"ray_version": "2.55.1", "version": "4"}).encode()
    with web_server({"/api/version": (200, old)}) as address:
        code, _, errors = call("status", "--address", address)
    assert code == 4
    assert f"{address}: the cluster has Ray 2.55.1 and this machine Ray {ray.__version__}" in errors
    assert "pip install 'ray[default]==2.55.1'" in errors
