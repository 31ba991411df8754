"""The plugin API: every hook is typed and documented, and every hook has a test that calls it."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rnnfarm
from rnnfarm import builtin, hookspecs
from rnnfarm.hookspecs import KINDS, hookimpl
from rnnfarm.plugins import BASES, Registry
from rnnfarm.settings import Part

HOOKS = [name for name in vars(hookspecs) if name.startswith("rnnfarm_")]


def test_there_is_one_hook_for_each_kind() -> None:
    assert [f"rnnfarm_{kind}" for kind in KINDS] == HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_typed_and_documented(name: str) -> None:
    hook = getattr(hookspecs, name)
    signature = inspect.signature(hook)
    assert signature.parameters == {}
    assert signature.return_annotation == "Parts"
    first, *rest = inspect.getdoc(hook).splitlines()
    assert first.startswith("Give ")
    assert first.rstrip(".,").endswith(tuple("abcdefghijklmnopqrstuvwxyz`"))
    assert rest


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_names_the_base_of_a_kind(kind: str) -> None:
    """What a plugin derives its parts from is a public name, and the hook's text says which."""
    module_name, _, name = BASES[kind].partition(":")
    assert getattr(rnnfarm, name) is getattr(importlib.import_module(module_name), name)
    assert name in rnnfarm.__all__
    assert f"``rnnfarm.{name}`` class" in inspect.getdoc(getattr(hookspecs, f"rnnfarm_{kind}"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_built_in_parts_come_through_every_hook(kind: str) -> None:
    parts = getattr(builtin, f"rnnfarm_{kind}")()
    registry = Registry.load()
    assert set(parts) <= set(registry.names(kind))
    assert all(isinstance(part, str) for part in parts.values())  # listed without an import


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_part_loads(kind: str) -> None:
    registry = Registry.load()
    (plugin,) = [p for p in registry.plugins if p.distribution == "rnnfarm"]
    for name in plugin.hooks[kind]:
        part = registry.get(kind, name)
        assert isinstance(part, type)
        assert part.__doc__, f"{kind}: {name} has no docstring"
        if kind not in ("kernels", "exchanges"):
            assert issubclass(part, Part)
            part.settings_model().model_json_schema()


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_of_ones_own_comes_through_every_hook(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_name, _, base_name = BASES[kind].partition(":")
    base = getattr(importlib.import_module(module_name), base_name)
    Own = type("Own", (base,), {})
    module = ModuleType("own_plugin")
    module.hook = hookimpl(specname=f"rnnfarm_{kind}")(lambda: {"own": Own})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_plugin", module)
    (tmp_path / "own-1.dist-info").mkdir()
    (tmp_path / "own-1.dist-info" / "METADATA").write_text("Name: own\nVersion: 1\n")
    (tmp_path / "own-1.dist-info" / "entry_points.txt").write_text("[rnnfarm]\nown = own_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Registry.load().get(kind, "own") is Own
