"""What travels with a submitted job, and where."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from training_tools import REGISTRY, token_job, write_tokens

from rnnfarm.cluster import pack as module
from rnnfarm.cluster.pack import Pack, add_plugins, pack_job
from rnnfarm.cluster.submitted import differences
from rnnfarm.errors import JobError, PluginError
from rnnfarm.job import load_job
from rnnfarm.plugins import Registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pack").mkdir()
    (tmp_path / "jobs").mkdir()
    return tmp_path / "pack"


def write_job(folder: Path, raw: dict[str, Any]) -> Path:
    path = folder.parent / "jobs" / "job.toml"
    path.write_text(tomli_w.dumps(raw))
    return path


def packed(folder: Path, raw: dict[str, Any], *settings: str) -> Pack:
    return pack_job(write_job(folder, raw), settings, REGISTRY, folder)


def test_a_dataset_beside_the_job_travels(folder: Path) -> None:
    write_tokens(folder.parent / "data", {"train": [50]})
    found = packed(folder, token_job(Path("../data")), "training.steps=3")
    job = load_job(folder / "job.toml", (), REGISTRY)
    assert job.training.steps == 3
    assert job.data.path == str(folder / "dataset")
    assert (folder / "dataset" / "dataset.json").is_file()
    assert found.bytes == sum(p.stat().st_size for p in (folder / "dataset").iterdir())
    assert found.plugins == []


@pytest.mark.parametrize("path", ["/shared/data", "s3://bucket/data"])
def test_a_place_that_all_reach_stays(folder: Path, path: str) -> None:
    found = packed(folder, token_job(Path("x"), data={"path": path}))
    assert load_job(folder / "job.toml", (), REGISTRY).data.path == path
    assert found.bytes == 0
    assert [p.name for p in folder.iterdir()] == ["job.toml"]


def test_what_a_reader_reads_travels_where_the_dataset_is_not_built(folder: Path) -> None:
    texts = folder.parent / "texts" / "a"
    texts.mkdir(parents=True)
    (texts / "one.txt").write_text("one")
    (folder.parent / "two.txt").write_text("two")
    (folder.parent / "far.txt").write_text("far")
    raw = token_job(Path("data"))
    files = ["../texts/**/*.txt", "../two.txt", str(folder.parent / "far.txt")]
    raw["data"]["build"] = {"reader": "characters", "files": files}
    found = packed(folder, raw)
    assert found.bytes == 6
    job = load_job(folder / "job.toml", (), REGISTRY)
    reader = REGISTRY.get("readers", "characters")(**job.data.build.settings)
    reader.base = job.base
    tokens = [columns["tokens"] for _, columns, *_ in (reader.columns() and reader.sequences())]
    assert sum(map(len, tokens)) == 9
    raw["data"]["build"]["files"] = ["../none/*.txt"]
    with pytest.raises(JobError, match=r"data.build.files: .*none/\*\.txt matches no file; mend"):
        packed(folder, raw)


def test_what_cannot_travel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobError, match=r"data.path: there is no dataset at .*; build it first"):
        packed(folder, token_job(Path("nothing")))
    write_tokens(folder.parent / "data", {"train": [5000]})
    monkeypatch.setattr(module, "MOST", 1000)
    with pytest.raises(JobError, match=r"data.path: 0 MB are too much to travel .* absolute path"):
        packed(folder, token_job(Path("../data")))


PYPROJECT = """[project]
name = "pack-demo"
version = "0.7"
[project.entry-points.rnnfarm]
demo = "pack_demo"
"""
MODULE = """import rnnfarm
from rnnfarm import Cell, affine, tanh
class Demo(Cell):
    states = ("h",)
    def step(self, x, h):
        return tanh(affine(x, h))
@rnnfarm.hookimpl
def rnnfarm_cells():
    return {"pack_demo": Demo}
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "pack_demo.py").write_text(MODULE)
    return source


def demo_job(cell: str = "pack_demo") -> dict[str, Any]:
    layers = [{"cell": cell, "hidden": 8}]
    return token_job(Path("x"), data={"path": "/shared/data"}, model={"layers": layers})


def assert_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with the pack on its path knows the plugin, and no other copy."""
    code = (
        "from rnnfarm.plugins import Registry; r = Registry.load(); import sys; "
        "p = r.plugin_of('cells', 'pack_demo'); print(p.distribution, p.version); "
        "print(r.get('cells', 'pack_demo').__module__, sys.modules['pack_demo'].__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["pack-demo", "0.7", "pack_demo", str(folder / "pack_demo.py")]


def test_a_folder_and_a_wheel_travel(
    folder: Path, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = add_plugins([plugin], folder)
    found = pack_job(write_job(folder, demo_job()), (), Registry.load(), folder, names)
    assert found.plugins == ["pack-demo"]
    assert_is_whole(folder, monkeypatch)
    assert sorted(path.name for path in plugin.iterdir()) == ["pack_demo.py", "pyproject.toml"]
    (wheel,) = folder.with_name("pack-wheels").glob("*.whl")
    (tmp_path / "second").mkdir()
    assert add_plugins([wheel], tmp_path / "second") == ["pack-demo"]
    assert_is_whole(tmp_path / "second", monkeypatch)
    sys.modules.pop("pack_demo", None)


@pytest.mark.parametrize("editable", [False, True])
def test_an_installed_plugin_travels(
    folder: Path, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, editable: bool
) -> None:
    """As pip installs it; of an editable one its folder is built."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(plugin)], check=True)
    if editable:  # pip makes no editable installation in a folder: this is what one looks like
        (info,) = site.glob("*.dist-info")
        url = {"url": plugin.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(url))
        (site / "pack_demo.py").unlink()
        monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.syspath_prepend(str(site))
    found = pack_job(write_job(folder, demo_job()), (), Registry.load(), folder)
    assert found.plugins == ["pack-demo"]
    assert_is_whole(folder, monkeypatch)
    assert not list(folder.rglob("__pycache__"))
    sys.modules.pop("pack_demo", None)


def test_a_module_of_ones_own_travels(
    folder: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    raw = demo_job("pack_demo:Demo")
    found = pack_job(write_job(folder, raw), (), Registry.load(), folder)
    assert found.plugins == ["pack_demo"]
    assert (folder / "pack_demo.py").read_text() == MODULE
    sys.modules.pop("pack_demo", None)


def test_what_is_no_plugin(folder: Path, plugin: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"jobs: this is no wheel and no folder with a pyproject"):
        add_plugins([tmp_path / "jobs"], folder)
    (tmp_path / "broken.whl").write_text("no archive")
    with pytest.raises(PluginError, match=r"broken.whl: not readable as a wheel"):
        add_plugins([tmp_path / "broken.whl"], folder)
    (plugin / "pyproject.toml").write_text('[project]\nversion = "1"\n')
    with pytest.raises(PluginError, match=r"source: the plugin cannot be built as a wheel \("):
        add_plugins([plugin], folder)
    assert "pack-demo" not in {d.metadata["Name"] for d in distributions()}


def test_versions_on_both_sides() -> None:
    """Two versions of Python cannot be had in one test: their names are compared here."""
    from rnnfarm import __version__
    from rnnfarm.cluster.jobs import python_version

    here = {"rnnfarm": __version__, "python": python_version(), "ray": "any"}
    assert differences(json.dumps(here)) == []
    (sentence,) = differences(json.dumps(here | {"python": "3.9"}))
    assert sentence == (
        f"the job was submitted with Python 3.9, and the cluster has {python_version()}; install "
        "the same on both"
    )
