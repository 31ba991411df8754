"""Plugins that take long to import, and that end the process, are named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import Call
from plugin_tools import install

SLOW = """
    import time
    time.sleep(0.6)

    @hookimpl
    def rnnfarm_cells():
        return {}
"""


def test_a_slow_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    install(tmp_path, monkeypatch, "slow-cells", SLOW)
    monkeypatch.setattr("rnnfarm.plugins.SLOW", 0.1)
    code, out, err = call("plugins", "--json")
    assert code == 0
    assert "waiting for plugin 'slow-cells' 1.0 (entry point 'slow_cells = slow_cells')" in err
    (found,) = [p for p in json.loads(out)["plugins"] if p["distribution"] == "slow-cells"]
    assert found["seconds"] >= 0.6
    assert found["refused"] is None


def test_imports_in_processes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    site = install(tmp_path, monkeypatch, "a-good-one", "print('0.5')").parent
    install(tmp_path, monkeypatch, "ends-all", "import os\nprint(0.5)\nos._exit(0)", imports="")
    install(tmp_path, monkeypatch, "fails", "import no_such_module", imports="")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    code, out, _ = call("plugins", "--timing", "--json")
    assert code == 0
    found = {each["distribution"]: each for each in json.loads(out)["plugins"]}
    assert found["a-good-one"]["seconds"] > 0
    assert found["a-good-one"]["problem"] is None
    assert found["ends-all"]["seconds"] is None
    assert found["ends-all"]["problem"] == "its import ends the process (exit code 0)"
    assert "No module named 'no_such_module'" in found["fails"]["problem"]
    assert "rnnfarm" not in found
