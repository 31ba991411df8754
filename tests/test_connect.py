"""Ray that does not start, or is not there: one sentence, and the exit code of a cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnnfarm.cluster.connect import _explained, _started_here
from rnnfarm.errors import DeviceError

pytestmark = pytest.mark.xdist_group("ray")
SLOW = (
    "The current node timed out during startup. This\ncould happen because some of the raylet "
    "processes failed to startup or the GCS has become overloaded."
)
TOO_SMALL = """
import sys
from pathlib import Path
from rnnfarm.cluster.connect import ray_session
from rnnfarm.errors import DeviceError
try:
    with ray_session(None, cpus=1, log_file=Path(sys.argv[1]), store=1):
        pass
except DeviceError as error:
    print(error)
"""


def test_a_ray_that_does_not_start_in_time_is_one_sentence(tmp_path: Path) -> None:
    log = tmp_path / "ray.log"
    with pytest.raises(DeviceError) as raised, _started_here(log):
        raise Exception(SLOW)
    text = str(raised.value)
    assert raised.value.exit_code == 4
    assert "Ray does not start on this machine (Exception: The current node timed out" in text
    assert "This could happen" in text
    assert "\n" not in text
    assert f"try again; {log}" in text


def test_a_cluster_that_answers_late_is_one_sentence() -> None:
    late = pytest.raises(DeviceError, match=r"--address auto: .*timed out during startup")
    with late, _explained("auto"):
        raise Exception(SLOW)


def test_what_ray_itself_refuses_at_its_start(tmp_path: Path) -> None:
    """An object store of a byte is too small for the real Ray.

    In a process of its own: one that has had a cluster without tokens cannot start one with them.
    """
    command = [sys.executable, "-c", TOO_SMALL, str(tmp_path / "ray.log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.match(r"--workers: Ray does not start .*\(ValueError: .*object", done.stdout)
