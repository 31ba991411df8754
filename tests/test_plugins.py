"""The loading rules, each with a really installed distribution and a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from rnnfarm.errors import JobError, PluginError
from rnnfarm.plugins import Registry

pytest.importorskip("pip", reason="the packages are installed by pip")

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MARKED = "from rnnfarm.hookspecs import hookimpl\n\n@hookimpl\n"
# distribution -> the source of its module; all of them are installed side by side.
BROKEN = {
    "demo-import": "import no_such_module_anywhere\n",
    "demo-exit": "import sys\nprint('noise on stdout')\nsys.exit(7)\n",
    "demo-misspelt": MARKED + "def rnnfarm_celss():\n    return {}\n",
    "demo-nothing": "def rnnfarm_cells():\n    return {}\n",
    "demo-empty": "",
    "demo-raises": MARKED + "def rnnfarm_cells():\n    return {}['missing key']\n",
    "demo-list": MARKED + "def rnnfarm_losses():\n    return ['a', 'b']\n",
    "demo-none": MARKED + "def rnnfarm_losses():\n    pass\n",
    "demo-number": MARKED + "def rnnfarm_cells():\n    return {'three': 3}\n",
    "demo-name": MARKED + "def rnnfarm_cells():\n    return {'a b': 'demo_name:X'}\n",
    "demo-argument": MARKED + "def rnnfarm_cells(config):\n    return {}\n",
}
WORKING = {
    "Demo.Good": MARKED
    + dedent("""\
        def rnnfarm_cells():
            return {"demo_cell": "demo_good:DemoCell", "lost": "demo_good.nowhere:Cell",
                    "absent": "demo_good:Absent", "function": len}

        @hookimpl
        def rnnfarm_optimizers():
            return {"demo_optimizer": "demo_good:DemoOptimizer"}

        def __getattr__(name):
            from rnnfarm.equations.parts import Cell
            if name == "DemoCell":
                return type(name, (Cell,), {"__module__": __name__})
            raise AttributeError(name)
        """),
    "demo-kernel": MARKED
    + "def rnnfarm_kernels():\n    return {'fast': 'no_such_driver:Kernel'}\n",
    "demo-clash": MARKED
    + "def rnnfarm_cells():\n"
    + "    return {'lstm': 'demo_good:DemoCell', 'own': 'demo_good:DemoCell'}\n",
}
SENTENCES = {
    "demo-import": [
        "fails to import: ModuleNotFoundError: No module named 'no_such_module_anywhere'",
        "(demo_import.py, line 1)",
    ],
    "demo-exit": ["fails to import: SystemExit: 7 (demo_exit.py, line 3)"],
    "demo-misspelt": ["hook 'rnnfarm_celss' that does not exist; did you mean 'rnnfarm_cells'?"],
    "demo-nothing": ["registers nothing; mark 'rnnfarm_cells' with @rnnfarm.hookimpl"],
    "demo-empty": ["registers nothing; mark a function such as 'rnnfarm_cells'"],
    "demo-raises": ["fails in its hook 'rnnfarm_cells': KeyError: 'missing key'", "line 5"],
    "demo-list": ["returns a list from its hook 'rnnfarm_losses'", "return a mapping"],
    "demo-none": ["returns NoneType from its hook 'rnnfarm_losses'"],
    "demo-number": ["gives 3 as 'three'", "'module:Name'"],
    "demo-name": ["names a part 'a b'", "without spaces"],
    "demo-argument": ["cannot be registered", "config"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every demo distribution, packed as a wheel and installed by pip into one folder."""
    root = tmp_path_factory.mktemp("plugins")
    wheels = [pack(root, name, source) for name, source in (BROKEN | WORKING).items()]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-compile", "--target", str(root / "site")]
    subprocess.run([*pip, *options, *wheels], check=True)
    return root / "site"


def pack(folder: Path, name: str, source: str) -> str:
    """Write a wheel with one module and one entry point, and return its path."""
    module = module_of(name)
    info = f"{module}-1.2.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[rnnfarm]\n{module}_point = {module}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{module}-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return str(wheel)


def module_of(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


@pytest.fixture(scope="module")
def run(site: Path) -> Run:
    def rnnfarm(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rnnfarm", *arguments],
            env=os.environ | {"PYTHONPATH": str(site)} | variables,
            capture_output=True,
            text=True,
        )

    return rnnfarm


@pytest.fixture(scope="module")
def listed(run: Run) -> dict[str, dict[str, Any]]:
    done = run("plugins", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # a plugin's prints do not spoil it
    assert report["schema"] == 1
    return {plugin["distribution"]: plugin for plugin in report["plugins"]}


@pytest.fixture
def registry(site: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(str(site))
    return Registry.load()


def test_every_installed_plugin_is_listed_built_in_first(
    listed: dict[str, dict[str, Any]],
) -> None:
    assert next(iter(listed)) == "rnnfarm"
    assert set(listed) >= {"rnnfarm", *BROKEN, *WORKING}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_refused_by_name_version_and_entry_point(
    name: str, listed: dict[str, dict[str, Any]]
) -> None:
    plugin = listed[name]
    module = module_of(name)
    start = f"plugin '{name}' 1.2 (entry point '{module}_point = {module}')"
    assert plugin["refused"].startswith(start)
    for part in SENTENCES[name]:
        assert part in plugin["refused"]
    assert "_manager.py" not in plugin["refused"]  # a place in pluggy helps nobody
    assert plugin["hooks"] == {}


def test_a_working_plugin_is_listed_with_its_parts(listed: dict[str, dict[str, Any]]) -> None:
    plugin = listed["Demo.Good"]
    assert plugin["version"] == "1.2"
    assert plugin["refused"] is None
    assert plugin["hooks"]["optimizers"] == ["demo_optimizer"]
    assert "lstm" in listed["rnnfarm"]["hooks"]["cells"]


def test_a_name_that_is_taken_is_reported(listed: dict[str, dict[str, Any]]) -> None:
    plugin = listed["demo-clash"]
    assert plugin["refused"] is None
    (sentence,) = plugin["clashes"]
    assert sentence.startswith(
        "plugin 'demo-clash' 1.2 (entry point 'demo_clash_point = demo_clash')"
    )
    assert "claims the cell 'lstm', which plugin 'rnnfarm'" in sentence
    assert sentence.endswith("write 'demo-clash:lstm' to use this one")


def test_the_first_plugin_keeps_the_name_and_the_other_part_stays_in_reach(
    registry: Registry,
) -> None:
    assert registry.get("cells", "demo-clash:lstm").__module__ == "demo_good"
    assert registry.get("cells", "DEMO_clash:lstm").__module__ == "demo_good"
    assert registry.get("cells", "own").__module__ == "demo_good"
    assert registry._find("cells", "lstm") is registry._find("cells", "rnnfarm:lstm")
    assert "demo-clash:lstm" in registry.names("cells")
    assert "demo-clash:own" not in registry.names("cells")


@pytest.mark.parametrize(
    "command", [("--help",), ("plugins",), ("schema",), ("doctor", "--json"), ("data", "--help")]
)
def test_every_other_command_still_works(command: tuple[str, ...], run: Run) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if command != ("--help",) and command[0] != "data":
        assert "demo-raises" in done.stdout + done.stderr


def test_a_job_that_needs_a_refused_plugin_says_so_and_exits_with_3(
    run: Run, tmp_path: Path
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        '[data]\npath = "nowhere"\n[model]\ninput = { kind = "one_hot" }\nloss = "cross_entropy"\n'
        'layers = [{ cell = "raised", hidden = 4 }]\n'
    )
    done = run("train", str(job))
    assert done.returncode == 3
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f"rnnfarm: {job}: model.layers.0.cell: there is no cell 'raised'")
    assert "plugin 'demo-raises' 1.2 (entry point 'demo_raises_point = demo_raises')" in sentence


def test_a_kernel_that_does_not_load_stops_only_the_job_that_asks_for_it(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 100)
    job = tmp_path / "job.toml"
    job.write_text(
        '[data]\npath = "set"\nbuild = { reader = "bytes", files = ["text.txt"] }\n'
        '[model]\ninput = { kind = "one_hot" }\nloss = "cross_entropy"\n'
        'layers = [{ cell = "elman", hidden = 4 }]\n'
        "[training]\nsteps = 1\nbatch = 2\nwindow = 8\n"
    )
    done = run("train", str(job), "--out", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kernel"] in ("numpy", "cpu")
    assert "kernel 'fast' of plugin 'demo-kernel' 1.2" in done.stderr
    done = run("train", str(job), "--out", str(tmp_path / "b"), "--set", "training.kernel=fast")
    assert done.returncode == 3
    assert "training.kernel: kernel 'fast' of plugin 'demo-kernel' 1.2" in done.stderr


def test_the_plain_list_says_what_was_refused_and_why(run: Run) -> None:
    done = run("plugins")
    assert "Demo.Good 1.2" in done.stdout
    assert "refused: plugin 'demo-list' 1.2" in done.stdout
    assert "clash: plugin 'demo-clash' 1.2" in done.stdout


def test_blocking_by_option_and_by_variable(run: Run) -> None:
    def refused(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
        assert done.returncode == 0, done.stderr
        listed = json.loads(done.stdout)["plugins"]
        return {p["distribution"]: p["refused"] for p in listed}

    by_option = run(
        "--no-plugin", "demo_good", "--no-plugin", "demo_exit_point", "plugins", "--json"
    )
    assert refused(by_option)["Demo.Good"].endswith("is blocked by --no-plugin")
    assert refused(by_option)["demo-exit"].endswith("is blocked by --no-plugin")
    assert "noise" not in by_option.stderr  # it was not even imported
    by_variable = run("plugins", "--json", RNNFARM_NO_PLUGINS="demo-good, not-installed")
    assert refused(by_variable)["Demo.Good"].endswith("is blocked by RNNFARM_NO_PLUGINS")


def test_blocking_what_is_not_installed_is_an_error(run: Run) -> None:
    done = run("--no-plugin", "demo-god", "plugins")
    assert done.returncode == 2
    assert "--no-plugin demo-god: no such plugin is installed; did you mean 'demo-good'?" in (
        done.stderr
    )
    with pytest.raises(JobError):
        Registry.load(["nothing-like-it"])


def test_versions_are_those_of_the_loaded_plugins(registry: Registry) -> None:
    versions = registry.versions()
    assert versions["Demo.Good"] == "1.2"
    assert "demo-list" not in versions
    assert "rnnfarm" in versions


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("lost", ["cell 'lost' of plugin 'Demo.Good' 1.2", "does not load", "demo_good.nowhere"]),
        ("absent", ["'demo_good:Absent' does not load: AttributeError"]),
        ("function", ["is <built-in function len>, which is no cell", "rnnfarm.Cell"]),
        (
            "rnnfarm.builtin.optimizers:Adam",
            ["is <class 'rnnfarm.builtin.optimizers.Adam'>, which is no cell"],
        ),
        (
            "demo_cel",
            ["there is no cell 'demo_cel'; did you mean 'demo_cell'?", "not used: plugin"],
        ),
        ("no_such_module:X", ["cell 'no_such_module:X'", "does not load: ModuleNotFoundError"]),
        ("demo_good:Cell:X", ["is no import string"]),
    ],
)
def test_a_part_that_cannot_be_had_is_a_plugin_error(
    name: str, parts: list[str], registry: Registry
) -> None:
    with pytest.raises(PluginError) as caught:
        registry.get("cells", name)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "(plugins.py" not in str(caught.value)  # nor is a place in rnnfarm's own loader of use


def test_a_class_that_no_plugin_gives_is_had_by_its_import_string(registry: Registry) -> None:
    assert registry.get("cells", "demo_good:DemoCell").__name__ == "DemoCell"


def test_the_order_of_the_path_does_not_decide_who_keeps_a_name(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    last = [plugin.distribution for plugin in Registry.load().plugins]
    monkeypatch.setattr(sys, "path", [str(site), *sys.path[:-1]])
    first = [plugin.distribution for plugin in Registry.load().plugins]
    assert first == last


def half_installed(folder: Path, files: dict[str, str]) -> Path:
    (folder / "half-0.1.dist-info").mkdir(parents=True)
    for name, text in files.items():
        (folder / "half-0.1.dist-info" / name).write_text(text)
    return folder


def test_a_distribution_without_metadata_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"entry_points.txt": "[rnnfarm]\nhalf = no_such_half\n"}
    monkeypatch.syspath_prepend(str(half_installed(tmp_path, files)))
    plugin = Registry.load().plugins[1]
    assert plugin.refused is not None
    assert "(entry point 'half = no_such_half') fails to import" in plugin.refused


@pytest.mark.parametrize(("group", "told"), [("rnnfarm", True), ("console_scripts", False)])
def test_damaged_entry_points_harm_nothing(
    group: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: half\nVersion: 0.1\n",
        "entry_points.txt": f"[{group}]\nno equals sign\n",
    }
    monkeypatch.syspath_prepend(str(half_installed(tmp_path, files)))
    registry = Registry.load()
    refused = [p.refused for p in registry.plugins if p.distribution == "half"]
    assert bool(refused) is told
    for sentence in refused:
        assert sentence is not None
        assert sentence.startswith("plugin 'half' 0.1 (entry point 'unreadable') has a damaged")
    assert "lstm" in registry.names("cells")
