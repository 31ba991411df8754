"""Finding the installed plugins, and importing each so that a broken one harms no other.

pluggy by itself stops at the first plugin that fails. Here plugins load one at a time, each with a
manager of its own; whatever is wrong with one becomes the end of a sentence that names it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from typing import Any

import pluggy

from rnnfarm import hookspecs
from rnnfarm.errors import article, suggestion
from rnnfarm.hookspecs import KINDS, PROJECT

BUILTIN = "rnnfarm.builtin"
# Code that only carries out a plugin's own; an error is placed in what it carried out.
LOADERS = (
    *("<", importlib.__path__[0], pluggy.__path__[0]),
    *(os.path.join(os.path.dirname(__file__), name) for name in ("discovery.py", "plugins.py")),
)


@dataclass
class Plugin:
    """One entry point of the group ``rnnfarm``, loaded or refused."""

    distribution: str
    version: str
    entry_point: str  # as in the distribution's metadata: "name = module:object"
    hooks: dict[str, list[str]] = field(default_factory=dict)  # kind -> names of its parts
    refused: str | None = None  # the sentence that says why nothing of it is used
    clashes: list[str] = field(default_factory=list)  # one sentence for each name that is taken
    seconds: float = 0.0  # how long it took to import

    def __str__(self) -> str:
        return f"plugin '{self.distribution}' {self.version} (entry point '{self.entry_point}')"


class RefusedError(Exception):
    """Why a plugin is not used: the end of a sentence that starts with the plugin."""


@dataclass(frozen=True)
class Source:
    plugin: Plugin
    load: Callable[[], Any]


def sources() -> list[Source]:
    """Return the built-in parts, then every entry point of the group, in order of names.

    Which of two plugins keeps a name must not depend on the order of sys.path.
    """
    from rnnfarm import __version__

    builtin = Plugin(PROJECT, __version__, f"builtin = {BUILTIN}")
    first = Source(builtin, lambda: importlib.import_module(BUILTIN))
    found: dict[tuple[str, str], Source] = {}
    for distribution in distributions():
        for source in _sources_of(distribution):
            plugin = source.plugin
            # As with imports, what comes first on the path hides what is installed behind it.
            found.setdefault((normal(plugin.distribution), plugin.entry_point), source)
    return [first, *(source for _, source in sorted(found.items(), key=lambda item: item[0]))]


def _sources_of(distribution: Distribution) -> Iterator[Source]:
    try:
        entry_points = distribution.entry_points.select(group=PROJECT)
    except Exception as error:
        text = distribution.read_text("entry_points.txt") or ""
        if f"[{PROJECT}]" in text:
            reason = f"has a damaged entry_points.txt: {describe(error)}; reinstall it"
            yield Source(_plugin(distribution, "unreadable"), refusing(reason))
        return
    for entry_point in entry_points:
        plugin = _plugin(distribution, f"{entry_point.name} = {entry_point.value}")
        yield Source(plugin, entry_point.load)


def _plugin(distribution: Distribution, entry_point: str) -> Plugin:
    try:
        name, version = distribution.metadata["Name"], distribution.metadata["Version"]
    except Exception:  # no METADATA: half of an uninstalled distribution
        name = version = ""
    return Plugin(name or "(without a name)", version or "(without a version)", entry_point)


def refusing(reason: str) -> Callable[[], Any]:
    def load() -> Any:
        raise RefusedError(reason)

    return load


def normal(name: str) -> str:
    """Return a distribution's name as packaging compares it: lower case, one kind of dash."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def parts_of(source: Source) -> dict[str, dict[str, Any]]:
    """Import one plugin and call its hooks; RefusedError when any of it is wrong."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    with _refusing("fails to import"):
        module = source.load()
    with _refusing("cannot be registered"):
        manager.register(module)
    _check_hook_names(manager, module)
    return {
        kind: _call(kind, implementation.function)
        for kind in KINDS
        for implementation in getattr(manager.hook, f"{PROJECT}_{kind}").get_hookimpls()
    }


def _check_hook_names(manager: pluggy.PluginManager, module: Any) -> None:
    """Refuse hooks that do not exist (pluggy's ``check_pending``, with a suggestion), and none."""
    hooks = [f"{PROJECT}_{kind}" for kind in KINDS]
    registered = [
        caller.name
        for caller in manager.get_hookcallers(module) or []
        if caller.name in hooks or not all(i.optionalhook for i in caller.get_hookimpls())
    ]
    for name in registered:
        if name not in hooks:
            raise RefusedError(
                f"has a hook '{name}' that does not exist; {suggestion(name, hooks)}"
            )
    if registered:
        return
    if not inspect.ismodule(module):
        kind = "function" if inspect.isfunction(module) else "class"
        named = getattr(module, "__name__", repr(module))
        home = getattr(module, "__module__", "my_cells")
        raise RefusedError(
            f"registers nothing: its entry point names the {kind} '{named}', and has to name the "
            f"module that holds the hooks; write '{home}' without ':{named}'"
        )
    unmarked = [name for name in dir(module) if name.startswith(f"{PROJECT}_")]
    mend = (
        f"mark '{unmarked[0]}' with @rnnfarm.hookimpl"
        if unmarked
        else f"mark a function such as '{hooks[0]}' with @rnnfarm.hookimpl"
    )
    raise RefusedError(f"registers nothing; {mend}")


def _call(kind: str, function: Callable[[], Any]) -> dict[str, Any]:
    hook = f"{PROJECT}_{kind}"
    with _refusing(f"fails in its hook '{hook}'"):
        result = function()
        if isinstance(result, Mapping):
            result = dict(result)
    if not isinstance(result, dict):
        raise RefusedError(
            f"returns {article(type(result).__name__)} from its hook '{hook}'; "
            "return a mapping from names to parts"
        )
    for name, part in result.items():
        if not isinstance(name, str) or not re.fullmatch(r"[^\s:]+", name):
            raise RefusedError(
                f"names a part {name!r} in its hook '{hook}'; "
                "a name is text without spaces and colons"
            )
        if not (callable(part) or (isinstance(part, str) and is_import_string(part))):
            raise RefusedError(
                f"gives {part!r} as '{name}' in its hook '{hook}'; "
                "a part is a class or an import string 'module:Name'"
            )
    return result


def is_import_string(text: str) -> bool:
    module, colon, name = text.partition(":")
    return bool(colon) and all(
        word.isidentifier() for word in (*module.split("."), *name.split("."))
    )


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn whatever a plugin's own code raises into a RefusedError; keep its prints off stdout."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except RefusedError:
        raise
    except (Exception, SystemExit) as error:
        raise RefusedError(f"{what}: {describe(error)}; mend, update or block it") from error


def import_part(module: str, name: str) -> Any:
    """Return ``name`` of ``module``, importing it; raises whatever its code raises."""
    with contextlib.redirect_stdout(sys.stderr):
        found: Any = importlib.import_module(module)
        for attribute in name.split("."):
            found = getattr(found, attribute)
    return found


def describe(error: BaseException) -> str:
    """Return an exception as ``Type: message (file, line N)``, on one line."""
    text = " ".join(str(error).split())
    trace = error.__traceback__
    where = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(LOADERS):
            where = f" ({os.path.basename(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"
