"""Ray that does not start, or is not there: one sentence, and the exit code of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnfarm.cluster.connect import _explained, _started_here, ray_session
from rnnfarm.errors import DeviceError

pytestmark = pytest.mark.xdist_group("ray")
SLOW = (
    "The current node timed out during startup. This\ncould happen because some of the raylet "
    "processes failed to startup or the GCS has become overloaded."
)


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
    """An object store of a byte is too small for the real Ray."""
    log = tmp_path / "ray.log"
    refused = pytest.raises(DeviceError, match=r"Ray does not start .*\(ValueError: .*object")
    with refused, ray_session(None, cpus=1, log_file=log, store=1):
        pass
