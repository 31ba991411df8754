"""Jobs on a Ray cluster, by way of Ray Jobs: submit, look, read, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnfarm import __version__
from rnnfarm.cluster.pack import JOB, Pack
from rnnfarm.errors import DeviceError, JobError, printable
from rnnfarm.strict_json import to_json

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
#: What the cluster's side is told of the machine that submits.
CLIENT = "RNNFARM_CLIENT"
#: Seconds that a run may take for the step that it is in, and a checkpoint, once it is stopped.
STOP_WAIT = 120
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Status:
    """What there is to know of a submitted job; times in seconds since 1970."""

    id: str
    status: str
    message: str | None
    exit_code: int | None
    started: float | None
    ended: float | None
    out: str | None

    @property
    def is_ended(self) -> bool:
        return self.status in ENDED


class Jobs:
    """The jobs of a cluster.

    Args:
        address: of its dashboard, such as http://HOST:8265.

    Raises DeviceError where no cluster answers there, or it does not take the token.
    """

    def __init__(self, address: str | None) -> None:
        self.address = _address(address)
        if _has_token():  # Ray's own client sends it only where this is set
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray.dashboard").setLevel(logging.WARNING)
        with self._explained():
            self.client = JobSubmissionClient(self.address)
        self._check_version()

    def submit(
        self,
        pack: Pack,
        name: str,
        *,
        out: str | None = None,
        resume: bool = False,
        workers: int | None = None,
        python: str = "python",
        requirements: Sequence[str] = (),
    ) -> Status:
        """Submit a packed job.

        Args:
            name: what its id starts with.
            out: the run's folder on the cluster; ~/rnnfarm-runs/ID of the node that the driver
                runs on if absent.
            python: the cluster's interpreter that has rnnfarm.
            requirements: what pip installs on the cluster's nodes first.
        """
        job_id = f"{_plain(name)}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        out = out or f"~/rnnfarm-runs/{job_id}"
        words = [python, "-m", "rnnfarm.cluster.submitted", "train", JOB, "--address", "auto"]
        words += ["--out", out] + ["--resume"] * resume
        words += ["--workers", str(workers)] if workers is not None else []
        import ray

        client = {"rnnfarm": __version__, "ray": ray.__version__, "python": python_version()}
        environment: dict[str, Any] = {
            "working_dir": str(pack.folder),
            "env_vars": {CLIENT: to_json(client), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT)},
        }
        if requirements:
            environment["pip"] = list(requirements)
        with self._explained():
            self.client.submit_job(
                entrypoint=shlex.join(words),
                submission_id=job_id,
                runtime_env=environment,
                metadata={"rnnfarm": __version__, "out": out},
            )
        return self.status(job_id)

    def status(self, job_id: str) -> Status:
        """One job; JobError where there is none of that id."""
        with self._explained(job_id):
            return _status(self.client.get_job_info(job_id))

    def all(self) -> list[Status]:
        """All jobs that rnnfarm has submitted, the oldest first."""
        with self._explained():
            details = self.client.list_jobs()
        ours = [_status(d) for d in details if "rnnfarm" in (d.metadata or {})]
        return sorted(ours, key=lambda status: status.started or 0.0)

    def logs(self, job_id: str) -> str:
        """What a job has written so far."""
        with self._explained(job_id):
            return str(self.client.get_job_logs(job_id))

    def follow(self, job_id: str, write: Callable[[str], None]) -> Status:
        """Write what a job writes until it has ended."""

        async def tail() -> None:
            async for text in self.client.tail_job_logs(job_id):
                write(text)

        self.status(job_id)
        with self._explained(job_id):
            asyncio.run(tail())
        return self.wait(job_id, 30)

    def wait(self, job_id: str, seconds: float) -> Status:
        """The status once the job has ended, or after so many seconds."""
        end = time.monotonic() + seconds
        while not (status := self.status(job_id)).is_ended and time.monotonic() < end:
            time.sleep(0.2)
        return status

    def stop(self, job_id: str) -> Status:
        """Stop a job, which writes a checkpoint first; returns when it has ended."""
        if not self.status(job_id).is_ended:
            with self._explained(job_id):
                self.client.stop_job(job_id)
        return self.wait(job_id, STOP_WAIT + 30)

    def _check_version(self) -> None:
        """DeviceError where the cluster has another version of Ray."""
        import ray

        # Ray's client has read it to see whether it is new enough, and has no public name for it.
        theirs = getattr(self.client, "_server_ray_version", None)
        if theirs is not None and theirs != ray.__version__:
            raise DeviceError(
                f"{self.address}: the cluster has Ray {theirs} and this machine Ray "
                f"{ray.__version__}; install the cluster's here: "
                f"pip install 'ray[default]=={theirs}'"
            )

    @contextmanager
    def _explained(self, job_id: str = "") -> Iterator[None]:
        """What goes wrong between here and the cluster, as one sentence with the mend."""
        from ray.exceptions import RayError

        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, RayError) as error:
            text = " ".join(str(error).split())
            lower, (code, answer) = text.lower(), _answer(error)
            if code >= 500:
                raise DeviceError(
                    f"{self.address}: the dashboard answers with HTTP {code} ({_short(answer)}): "
                    "the cluster's head is there but cannot do this now; try again in a minute, "
                    "and if that does not help, look at `ray status` and the dashboard's logs there"
                ) from error
            if job_id and ("does not exist" in lower or code == 404):
                known = ", ".join(status.id for status in self.all()) or "none"
                raise JobError(
                    f"{self.address}: there is no job '{job_id}'; there are: {known}"
                ) from error
            if "token" in lower or "unauthorized" in lower or "forbidden" in lower:
                raise DeviceError(
                    f"{self.address}: the cluster does not accept this machine's token; copy the "
                    "head node's ~/.ray/auth_token to the same place here, or name it in "
                    "RAY_AUTH_TOKEN_PATH"
                ) from error
            raise DeviceError(f"{self.address}: {_no_dashboard(error, code, answer)}") from error


def _plain(name: str) -> str:
    """A name as it may stand in an address, a path and a command without quotes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:60].strip("-.") or "job"


def _answer(error: Exception) -> tuple[int, str]:
    """The HTTP status and the text that a dashboard has answered with; 0 where it did not."""
    from requests import HTTPError

    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code, error.response.text or str(error.response.reason)
    # Of other requests Ray's client keeps nothing but a text of its own.
    said = re.match(r"Request failed with status code (\d+): (.*)", str(error), re.S)
    return (int(said[1]), said[2]) if said is not None else (0, str(error))


def _no_dashboard(error: Exception, code: int, answer: str) -> str:
    """What is wrong with an address where nobody answers, or not as a dashboard does."""
    import requests

    if isinstance(error, (ConnectionError, requests.ConnectionError, requests.Timeout)):
        return (
            f"no Ray dashboard answers there ({_short(answer)}); start a cluster with `ray start "
            "--head`, or correct the address (http://HOST:8265)"
        )
    status = f"HTTP {code}: " * bool(code)
    return (
        f"what answers there is no Ray dashboard, or one of another version ({status}"
        f"{_short(answer)}); correct the address (http://HOST:8265)"
    )


def _short(text: str) -> str:
    """Return the beginning of what a server said, without a page's markup."""
    plain = " ".join(re.sub(r"<[^>]*>", " ", text).split()).rstrip(". ")
    return printable(plain if len(plain) <= 200 else f"{plain[:200]} …")


def python_version() -> str:
    """Major and minor: what compiled modules depend on."""
    return ".".join(platform.python_version_tuple()[:2])


def _address(given: str | None) -> str:
    address = given or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    if "://" not in address:
        address = f"http://{address}"
    if not address.startswith(("http://", "https://")):
        raise DeviceError(
            f"--address {address}: a job is submitted to the cluster's dashboard; write its "
            "address as http://HOST:8265"
        )
    return address


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _status(details: Any) -> Status:
    return Status(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        message=details.message,
        exit_code=details.driver_exit_code,
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        out=(details.metadata or {}).get("out"),
    )
