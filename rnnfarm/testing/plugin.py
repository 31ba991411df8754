"""The conformance kit run over all parts of an installed plugin: ``rnnfarm check``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from rnnfarm.discovery import Plugin, normal
from rnnfarm.equations.parts import Cell, Loss, Optimizer, trace_cell
from rnnfarm.errors import JobError, PluginError, RnnfarmError, suggestion
from rnnfarm.job_reading import taken_setting
from rnnfarm.kernels.choose import installed_kernels
from rnnfarm.kernels.interface import Kernel
from rnnfarm.plugins import Registry
from rnnfarm.settings import Part, declared, unannotated
from rnnfarm.testing import CHECKS
from rnnfarm.testing.cells import ODD_SIZES, takes, usual_sizes
from rnnfarm.testing.fused import check_on_kernels


@dataclass(frozen=True)
class Finding:
    """What became of one part.

    Attributes:
        kind: of part, such as ``cells``.
        result: ``passed``, ``failed``, or ``loaded`` where the kit has no check for the kind or
            the part needs settings that were not given.
        note: why, where it did not pass.
        warnings: what may be a mistake, though it passed.
    """

    kind: str
    name: str
    result: str
    note: str | None = None
    warnings: list[str] = field(default_factory=list)


def find_plugin(registry: Registry, name: str) -> Plugin:
    """The plugin of a distribution or an entry point.

    Raises PluginError where there is none of that name, or where it was refused.
    """
    named: dict[str, Plugin] = {}
    for plugin in registry.plugins:
        named.setdefault(normal(plugin.entry_point.partition("=")[0]), plugin)
    named |= {normal(plugin.distribution): plugin for plugin in registry.plugins}
    found = named.get(normal(name))
    if found is None:
        if (installed := _installed(name)) is not None:
            raise PluginError(installed)
        known = [plugin.distribution for plugin in registry.plugins]
        raise PluginError(
            f"there is no plugin '{name}' installed; {suggestion(name, known)} "
            "(a folder is installed with 'pip install --editable FOLDER')"
        )
    if found.refused:
        raise PluginError(found.refused)
    return found


def _installed(name: str) -> str | None:
    """What a distribution lacks that is installed and is no plugin."""
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError):
        return None
    module = name.replace("-", "_")
    return (
        f"'{name}' {found.version} is installed and has no entry point for rnnfarm; add "
        f'[project.entry-points.rnnfarm] with the line {module} = "{module}" to its '
        "pyproject.toml, and install it again"
    )


def check_plugin(
    registry: Registry, plugin: Plugin, settings: Mapping[str, Any] | None = None
) -> Iterator[Finding]:
    """Check the parts of a plugin, one by one.

    Args:
        settings: name of a part → its settings, for parts that cannot do without.

    Raises JobError where ``settings`` names a part that the plugin does not have.
    """
    given = dict(settings or {})
    names = {name for parts in plugin.hooks.values() for name in parts}
    for name in given.keys() - names:
        raise JobError(f"--set {name}.…: {plugin} has no part '{name}'; {suggestion(name, names)}")
    kernels = installed_kernels(registry)
    for kind, parts in plugin.hooks.items():
        for name in parts:
            yield _check(registry, kernels, plugin, kind, name, given.get(name, {}))


def _check(
    registry: Registry,
    kernels: Mapping[str, Kernel],
    plugin: Plugin,
    kind: str,
    name: str,
    settings: Any,
) -> Finding:
    try:
        part = registry.get(kind, f"{plugin.distribution}:{name}")
        if kind not in CHECKS:
            return Finding(kind, name, "loaded", f"the kit has no check for {kind}")
        if (taken := taken_setting(kind, part)) is not None:
            return Finding(kind, name, "failed", taken)
        needed = [s for s in _required(part) if s not in settings]
        if needed:
            note = f"not checked: it needs settings; give them with --set {name}.{needed[0]}=…"
            return Finding(kind, name, "loaded", note)
        made = part(**settings)
        CHECKS[kind](made)
        warnings = [*_warnings(made), *_on_kernels(made, kernels)]
    except (AssertionError, RnnfarmError) as error:
        return Finding(kind, name, "failed", str(error))
    except Exception as error:  # whatever a foreign part raises, the others are checked too
        return Finding(kind, name, "failed", f"it raises {type(error).__name__}: {error}")
    return Finding(kind, name, "passed", warnings=warnings)


def _on_kernels(part: Any, kernels: Mapping[str, Kernel]) -> list[str]:
    equations = isinstance(part, Cell | Loss | Optimizer)
    return check_on_kernels(part, kernels) if equations else []


def _warnings(part: Any) -> Iterator[str]:
    """What may be a mistake in a part that passes its check."""
    if not isinstance(part, Part):
        return
    for name in unannotated(type(part)):
        yield (
            f"the attribute {name!r} has no annotation, so that no job can set it; write "
            f"{name}: {type(getattr(part, name)).__name__} = … for a setting, _{name} for none"
        )
    if not isinstance(part, Cell):
        return
    sizes = usual_sizes(part)
    for what in trace_cell(part, *sizes[2:]).unused:
        yield f"nothing depends on its {what}; use it, or leave it out"
    odd = next((each for each in ODD_SIZES if not takes(part, each)), None)
    if odd is not None:
        try:
            trace_cell(part, *odd[2:])
        except RnnfarmError as error:
            inputs, hidden = odd[2:]
            yield f"it does not take every width: with {inputs} inputs and {hidden} units, {error}"


def _required(part: type[Any]) -> list[str]:
    if not issubclass(part, Part):
        return []
    return [name for name in declared(part) if not hasattr(part, name)]
