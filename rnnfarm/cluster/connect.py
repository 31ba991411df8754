"""Ray: one of its own for workers on this machine, or a cluster that runs already."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from rnnfarm.cluster.private import private_settings
from rnnfarm.errors import DeviceError, printable
from rnnfarm.files import make_locked_folder, remove_unlocked

#: Of Ray's temporary folders; each is locked as long as its run lives.
PREFIX = "rnnfarm-ray-"
#: How long a path of Ray's folder may be, so that the sockets in it fit the system's 107 bytes.
LONGEST = 38
#: Ray lets everybody write in its own folder; it lies in one that nobody else can enter.
INNER = "r"
#: Ray's processes without which its workers cannot go on, as Ray names them.
VITAL = ("gcs_server", "raylet")


@contextmanager
def ray_session(
    address: str | None, cpus: int, log_file: Path, store: int
) -> Iterator[Callable[[], str]]:
    """Ray, for as long as the context lasts; gives what says which of its processes has ended.

    That is '' as long as none has, and of a cluster that this process has not started.

    Args:
        address: of a cluster; None starts a Ray of its own on this machine. Where this process is
            connected already, that connection is used and left open.
        cpus: how many CPUs a Ray of its own says it has.
        log_file: gets Ray's own notices.
        store: bytes of the object store of a Ray of its own. It goes through all of its memory in
            turn, and each page costs a process a fault at its first use: no more than is needed.

    Raises DeviceError, in a sentence, where there is no cluster or it does not fit.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        with notices_to(log_file):
            yield _not_ours
        return
    common: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "configure_logging": False,
    }
    if address is not None:
        with _explained(address), _apart(log_file):
            ray.init(address=address, **common)
        try:
            with notices_to(log_file):
                yield _not_ours
        finally:
            _shut_down(log_file)
        return
    with _own_folder() as folder, private_settings(folder):
        try:
            with _started_here(log_file), _apart(log_file):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    object_store_memory=store,
                    include_dashboard=False,
                    _temp_dir=str(folder / INNER),
                    **common,
                )
            with notices_to(log_file):
                yield _ended
        finally:
            _shut_down(log_file)


def _shut_down(log_file: Path) -> None:
    """Leave Ray; what it prints at its end goes to the file too."""
    import ray

    with _apart(log_file):
        ray.shutdown()


def _not_ours() -> str:
    """Nothing, as a cluster's processes are not this process's to look after."""
    return ""


def _ended() -> str:
    """Return which of the processes that this process's own Ray cannot do without has ended."""
    from ray._private.worker import _global_node

    processes: Any = {} if _global_node is None else _global_node.all_processes
    for name in VITAL:
        if any(info.process.poll() is not None for info in processes.get(name, ())):
            return name
    return ""


@contextmanager
def notices_to(log_file: Path) -> Iterator[None]:
    """What Ray logs and prints goes to a file; to be entered after ``ray.init``.

    That takes handlers away, and starts threads that print on stdout, where results belong.
    """
    logger = logging.getLogger("ray")
    handler = logging.FileHandler(log_file, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    propagated, others = logger.propagate, list(logger.handlers)
    logger.propagate, logger.handlers = False, [handler]
    mine = _NotRays(sys.stdout, log_file)
    try:
        with redirect_stdout(cast("TextIO", mine)):
            yield
    finally:
        logger.propagate, logger.handlers = propagated, others
        handler.close()


class _NotRays:
    """A stream that leaves to a file what Ray's own threads write."""

    def __init__(self, stream: TextIO, log_file: Path) -> None:
        self._stream, self._log_file = stream, log_file

    def write(self, text: str) -> int:
        if not threading.current_thread().name.startswith("ray_"):
            return self._stream.write(text)
        with self._log_file.open("a", encoding="utf-8") as file:
            return file.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _apart(log_file: Path) -> Iterator[None]:
    """Keep Ray, while it starts or ends, from what is not its own.

    What it prints goes to the file too, and the handlers that it sets for signals, which end the
    process without a checkpoint, are taken back.
    """
    printed = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if text := printed.getvalue().strip():
            with log_file.open("a", encoding="utf-8") as file:
                file.write(text + "\n")


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A short temporary folder; those of runs that were killed are removed."""
    place = tempfile.gettempdir()
    if len(place) + len(PREFIX) + 8 > LONGEST:
        place = "/tmp"
    for old in Path(place).glob(f"{PREFIX}*"):
        remove_unlocked(old)
    folder, lock = make_locked_folder(PREFIX, Path(place))
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def check_answers(address: str) -> None:
    """DeviceError where no cluster can be at an address: Ray itself would try for minutes."""
    if "://" in address:
        raise DeviceError(
            f"--address {address}: `train` runs on a node of the cluster itself and takes its "
            "address as HOST:PORT, or 'auto' there; from outside, use `rnnfarm submit`"
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return  # Ray knows: auto, local
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as connection:
            connection.settimeout(1)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with suppress(TimeoutError):
                if connection.recv(6) == b"HTTP/1":
                    raise DeviceError(
                        f"--address {address}: this answers as a web server does; a cluster's "
                        "dashboard is for `rnnfarm submit`, and `train` takes what `ray start` "
                        "shows, such as HOST:6379"
                    )
    except OSError as error:
        raise DeviceError(_nobody(address, str(error))) from error


def _nobody(address: str, why: str) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({why[:200]}); start one with "
        "`ray start --head`, or mend the address"
    )


@contextmanager
def _started_here(log_file: Path) -> Iterator[None]:
    """What Ray says when its own processes do not start on this machine, as one sentence."""
    try:
        yield
    except Exception as error:  # what Ray raises then is of no narrower class
        text = printable(" ".join(str(error).split()))[:200].rstrip(".")
        raise DeviceError(
            f"--workers: Ray does not start on this machine ({type(error).__name__}: {text}); end "
            f"what else takes its processors and memory, and try again; {log_file} has its notices"
        ) from error


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """What Ray says when it cannot connect, as one sentence with the mend."""
    try:
        yield
    except Exception as error:  # among them some of no narrower class
        text = " ".join(str(error).split())
        versions = re.findall(r"Ray: (\S+) (?:Python: )?(\S+)", text)
        if "ersion mismatch" in text:
            shown = " and ".join(f"Ray {r}, Python {p}" for r, p in versions) or text
            raise DeviceError(
                f"--address {address}: this process and the cluster have different versions "
                f"({shown}); install the cluster's versions of Ray and Python here"
            ) from error
        if "oken" in text or "nauthenticated" in text:
            raise DeviceError(
                f"--address {address}: the cluster does not accept this machine's token; copy its "
                "~/.ray/auth_token here, or name it in RAY_AUTH_TOKEN_PATH"
            ) from error
        raise DeviceError(_nobody(address, text)) from error
