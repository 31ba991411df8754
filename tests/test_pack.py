"""What travels with a submitted job, and where."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from training_tools import REGISTRY, token_job, write_tokens

from rnnfarm.cluster import pack as module
from rnnfarm.cluster.pack import Pack, add_plugins, pack_job, parts_of_job
from rnnfarm.cluster.submitted import differences
from rnnfarm.data import ensure_dataset
from rnnfarm.data.inputs import find_files
from rnnfarm.errors import JobError, PluginError
from rnnfarm.job import load_job
from rnnfarm.plugins import Registry

JOBS = Path(__file__).parents[1] / "jobs"


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


def test_a_dataset_that_is_out_of_date_does_not_travel(folder: Path) -> None:
    text = folder.parent / "jobs" / "text.txt"
    text.write_text("some text " * 20)
    raw = token_job(Path("data"))
    raw["data"]["build"] = {"reader": "characters", "files": ["text.txt"]}
    job = load_job(write_job(folder, raw), (), REGISTRY)
    ensure_dataset(job, REGISTRY)
    packed(folder, raw)
    assert (folder / "dataset" / "dataset.json").is_file()
    shutil.rmtree(folder / "dataset")
    text.write_text("another text " * 20)
    with pytest.raises(JobError, match=r"data\.path: .* is out of date: .*text\.txt has changed"):
        packed(folder, raw)
    packed(folder, raw, "data.stale=use")
    assert (folder / "dataset" / "dataset.json").is_file()
    shutil.rmtree(folder / "dataset")
    packed(folder, raw, "data.stale=rebuild")  # by the cluster
    assert not (folder / "dataset").exists()
    assert next(folder.rglob("text.txt")).read_text() == text.read_text()


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
    with pytest.raises(JobError, match=r"data.build.files.0: .*none/\*\.txt in the job matches no"):
        packed(folder, raw)


def paths_in(value: Any) -> list[str]:
    """Every text in a table that begins with ../, however deep it lies."""
    if isinstance(value, str):
        return [value] if value.startswith("../") else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in paths_in(each)]


@pytest.mark.parametrize("name", sorted(path.name for path in JOBS.glob("*.toml")))
def test_every_job_travels_with_its_files(folder: Path, name: str) -> None:
    """Each path of the job file, whatever its setting, names the same bytes in the pack."""
    job = folder.parent / "jobs" / name
    job.write_bytes((JOBS / name).read_bytes())
    raw = tomllib.loads(job.read_text())
    patterns = paths_in(raw["data"].get("build", {}))
    wanted = []
    for number, pattern in enumerate(patterns):
        for k in range(2 if "*" in pattern else 1):
            path = Path(os.path.normpath(job.parent / pattern.replace("*", f"a{k}")))
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number}, file {k}")
            wanted.append(path.read_text())
    found = pack_job(job, (), REGISTRY, folder)
    packed_job = tomllib.loads((folder / "job.toml").read_text())
    build = packed_job["data"]["build"]
    assert paths_in(build) == []
    assert found.bytes == sum(map(len, wanted))
    arrived = [path.read_text() for path in sorted(folder.rglob("*")) if path.name != "job.toml"
               and path.is_file()]  # fmt: skip
    assert sorted(arrived) == sorted(wanted)
    moved = [text for text in texts_in(build) if text.startswith("files/")]
    assert len(moved) == len(patterns)
    read = [p.read_text() for text in moved for p in find_files([text], folder, "files")]
    assert read == wanted


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in texts_in(each)]


def test_texts_and_their_translations_are_built_from_the_pack(folder: Path) -> None:
    for name, lines in {"a.de": "ja nein", "b.de": "ja", "a.en": "yes no", "b.en": "yes"}.items():
        (folder.parent / name).write_text("\n".join(lines.split()) + "\n")
    raw = token_job(Path("x"), data={"path": "made"})
    sides = {k: {"train": [f"../a.{v}"], "valid": [f"../b.{v}"]} for k, v in
             {"source": "de", "target": "en"}.items()}  # fmt: skip
    raw["data"]["build"] = {"reader": "parallel-text", "least": 1} | sides
    packed(folder, raw)
    for path in folder.parent.glob("?.*"):
        path.unlink()
    job = load_job(folder / "job.toml", (), REGISTRY)
    dataset = ensure_dataset(job, REGISTRY)
    assert {name: split.sequences for name, split in dataset.splits.items()} == {
        "train": 2,
        "valid": 1,
    }


def test_a_name_that_a_pattern_would_read_otherwise_travels(folder: Path) -> None:
    odd = folder.parent / "odd [1]"
    odd.mkdir()
    (odd / "what*.txt").write_text("star")
    (odd / "whatever.txt").write_text("other")
    (folder.parent / "deep").mkdir()
    (folder.parent / "deep" / "[b].txt").write_text("brackets")
    raw = token_job(Path("data"))
    files = ["../odd [1]/what*.txt", "../d*p/[[]b].txt"]
    raw["data"]["build"] = {"reader": "characters", "files": files}
    packed(folder, raw)
    settings = tomllib.loads((folder / "job.toml").read_text())["data"]["build"]
    read = [path.read_text() for path in find_files(settings["files"], folder, "files")]
    assert read == ["star", "brackets"]


def test_a_cell_of_a_decoder_travels(
    folder: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    raw = demo_job("gru")
    raw["data"] |= {"mode": "examples", "target": "target"}
    raw["model"]["decoder"] = {
        "size": 4,
        "layers": [{"cell": "pack_demo:Demo", "hidden": 8}, {"cell": "elman", "hidden": 8}],
    }
    registry = Registry.load()
    found = pack_job(write_job(folder, raw), (), registry, folder)
    assert found.plugins == ["pack_demo"]
    assert list(parts_of_job(found.job))[:3] == [
        ("cells", "gru"),
        ("cells", "pack_demo:Demo"),
        ("cells", "elman"),
    ]
    sys.modules.pop("pack_demo", None)


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
    assert not list(folder.rglob("__pycache__"))
    assert_is_whole(folder, monkeypatch)
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
    with pytest.raises(PluginError, match=r"source: the plugin cannot be built as a wheel \(") as e:
        add_plugins([plugin], folder)
    assert "project` must contain ['name']" in str(e.value)
    assert "pip wheel --no-deps" in str(e.value)
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
