"""Plugins: discovery, isolation, blocking, and looking up a part by its name.

pluggy by itself stops at the first plugin that fails. Here plugins load one at a time, each with a
manager of its own; one that cannot be used is kept with the sentence that says why, and every
other plugin works.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from rnnfarm import hookspecs
from rnnfarm.errors import JobError, PluginError, suggestion
from rnnfarm.hookspecs import KINDS, PROJECT

BUILTIN = "rnnfarm.builtin"
BLOCK_VARIABLE = "RNNFARM_NO_PLUGINS"
_PLURALS = {"losses": "loss"}


@dataclass
class Plugin:
    """One entry point of the group ``rnnfarm``, loaded or refused."""

    distribution: str
    version: str
    entry_point: str  # as in the distribution's metadata: "name = module:object"
    hooks: dict[str, list[str]] = field(default_factory=dict)  # kind -> names of its parts
    refused: str | None = None  # the sentence that says why nothing of it is used
    clashes: list[str] = field(default_factory=list)  # one sentence for each name that is taken

    def __str__(self) -> str:
        return f"plugin '{self.distribution}' {self.version} (entry point '{self.entry_point}')"


class _RefusedError(Exception):
    """Why a plugin is not used: the end of a sentence that starts with the plugin."""


@dataclass(frozen=True)
class _Source:
    plugin: Plugin
    load: Callable[[], Any]


@dataclass(frozen=True)
class _Entry:
    plugin: Plugin
    part: Any  # a class, or "module:Name"


class Registry:
    """The parts of all plugins by kind and name.

    A name is ``lstm``, or ``distribution:lstm`` where two plugins claim it, or ``module:Name`` for
    a class that no plugin gives but that can be imported.
    """

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.blocked: tuple[str, ...] = ()
        self._plain: dict[str, dict[str, _Entry]] = {kind: {} for kind in KINDS}
        self._qualified: dict[str, dict[str, _Entry]] = {kind: {} for kind in KINDS}

    @classmethod
    def load(cls, blocked: Iterable[str] = ()) -> Registry:
        """Load every plugin that is installed, except the blocked ones.

        ``blocked`` holds names of distributions or entry points, as does the environment variable
        RNNFARM_NO_PLUGINS, separated by commas. Raises JobError when ``blocked`` names no plugin.
        """
        registry = cls()
        registry.blocked = tuple(blocked)
        from_environment = os.environ.get(BLOCK_VARIABLE, "").split(",")
        blocks = {normal(name): BLOCK_VARIABLE for name in from_environment if name.strip()}
        blocks |= {normal(name): "--no-plugin" for name in registry.blocked}
        sources = list(_sources())
        _check_blocked(registry.blocked, sources)
        for source in sources:
            registry._add(source, blocks)
        return registry

    def _add(self, source: _Source, blocks: Mapping[str, str]) -> None:
        plugin = source.plugin
        self.plugins.append(plugin)
        for name in _names_of(plugin):
            if name in blocks:
                plugin.refused = f"{plugin} is blocked by {blocks[name]}"
                return
        try:
            parts = _parts_of(source)
        except _RefusedError as refusal:
            plugin.refused = f"{plugin} {refusal}"
            return
        for kind, mapping in parts.items():
            plugin.hooks[kind] = sorted(mapping)
            for name, part in mapping.items():
                self._claim(kind, name, _Entry(plugin, part))

    def _claim(self, kind: str, name: str, entry: _Entry) -> None:
        plugin = entry.plugin
        qualified = f"{normal(plugin.distribution)}:{name}"
        holder = self._plain[kind].setdefault(name, entry)
        own = self._qualified[kind].setdefault(qualified, entry)
        if holder is entry:
            return
        mend = (
            f"write '{plugin.distribution}:{name}' to use this one"
            if own is entry
            else "rename one of them"
        )
        plugin.clashes.append(
            f"{plugin} claims the {singular(kind)} '{name}', which {holder.plugin} has already; "
            f"{mend}"
        )

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind of part; ``distribution:name`` where a name was taken."""
        plain = self._plain[kind]
        clashing = [
            f"{entry.plugin.distribution}:{qualified.partition(':')[2]}"
            for qualified, entry in self._qualified[kind].items()
            if plain[qualified.partition(":")[2]] is not entry
        ]
        return sorted(plain) + sorted(clashing)

    def get(self, kind: str, name: str) -> Any:
        """Return the part, importing it if need be.

        Raises PluginError when no plugin gives it, when it does not import, or when it is no part.
        """
        entry = self._find(kind, name)
        if entry is None and ":" in name:
            return _checked(kind, _load(name, f"{singular(kind)} '{name}'"), name)
        if entry is None:
            raise PluginError(self._unknown(kind, name))
        who = f"{singular(kind)} '{name}' of {entry.plugin}"
        part = _load(entry.part, who) if isinstance(entry.part, str) else entry.part
        return _checked(kind, part, who)

    def _find(self, kind: str, name: str) -> _Entry | None:
        distribution, colon, rest = name.rpartition(":")
        if not colon:
            return self._plain[kind].get(name)
        return self._qualified[kind].get(f"{normal(distribution)}:{rest}")

    def _unknown(self, kind: str, name: str) -> str:
        sentence = f"there is no {singular(kind)} '{name}'; {suggestion(name, self.names(kind))}"
        refused = [plugin.refused for plugin in self.plugins if plugin.refused]
        if refused:
            sentence += f" (not used: {'; '.join(refused)})"
        return sentence

    def versions(self) -> dict[str, str]:
        """Return distribution -> version of the plugins that are loaded."""
        return {p.distribution: p.version for p in self.plugins if p.refused is None}


def normal(name: str) -> str:
    """Return a distribution's name as packaging compares it: lower case, one kind of dash."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def singular(kind: str) -> str:
    """Return ``cell`` for ``cells``."""
    return _PLURALS.get(kind, kind.removesuffix("s"))


def _sources() -> Iterator[_Source]:
    from rnnfarm import __version__

    plugin = Plugin(PROJECT, __version__, f"builtin = {BUILTIN}")
    yield _Source(plugin, lambda: importlib.import_module(BUILTIN))
    found = [(_plugin_of(entry_point), entry_point) for entry_point in entry_points(group=PROJECT)]
    # Which of two plugins keeps a name must not depend on the order of sys.path.
    for plugin, entry_point in sorted(
        found, key=lambda pair: (normal(pair[0].distribution), pair[0].entry_point)
    ):
        yield _Source(plugin, entry_point.load)


def _plugin_of(entry_point: EntryPoint) -> Plugin:
    dist = entry_point.dist
    name = (dist and dist.metadata["Name"]) or "(no name in its metadata)"
    version = (dist and dist.metadata["Version"]) or "(no version)"
    return Plugin(name, version, f"{entry_point.name} = {entry_point.value}")


def _names_of(plugin: Plugin) -> tuple[str, str]:
    return normal(plugin.distribution), normal(plugin.entry_point.partition("=")[0])


def _check_blocked(blocked: Iterable[str], sources: Iterable[_Source]) -> None:
    known = {name for source in sources for name in _names_of(source.plugin)}
    wrong = [name for name in blocked if normal(name) not in known]
    if wrong:
        raise JobError(
            [f"--no-plugin {n}: no such plugin is installed; {suggestion(n, known)}" for n in wrong]
        )


def _parts_of(source: _Source) -> dict[str, dict[str, Any]]:
    """Import one plugin and call its hooks; _RefusedError when any of it is wrong."""
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
            raise _RefusedError(
                f"has a hook '{name}' that does not exist; {suggestion(name, hooks)}"
            )
    if registered:
        return
    unmarked = [name for name in dir(module) if name.startswith(f"{PROJECT}_")]
    mend = (
        f"mark '{unmarked[0]}' with @rnnfarm.hookimpl"
        if unmarked
        else f"mark a function such as '{hooks[0]}' with @rnnfarm.hookimpl"
    )
    raise _RefusedError(f"registers nothing; {mend}")


def _call(kind: str, function: Callable[[], Any]) -> dict[str, Any]:
    hook = f"{PROJECT}_{kind}"
    with _refusing(f"fails in its hook '{hook}'"):
        result = function()
    if not isinstance(result, Mapping):
        raise _RefusedError(
            f"returns {_article(type(result).__name__)} from its hook '{hook}'; "
            "return a mapping from names to parts"
        )
    for name, part in result.items():
        if not isinstance(name, str) or not re.fullmatch(r"[^\s:]+", name):
            raise _RefusedError(
                f"names a part {name!r} in its hook '{hook}'; "
                "a name is text without spaces and colons"
            )
        if not (callable(part) or (isinstance(part, str) and _is_import_string(part))):
            raise _RefusedError(
                f"gives {part!r} as '{name}' in its hook '{hook}'; "
                "a part is a class or an import string 'module:Name'"
            )
    return dict(result)


def _is_import_string(text: str) -> bool:
    module, colon, name = text.partition(":")
    return bool(colon) and all(
        word.isidentifier() for word in (*module.split("."), *name.split("."))
    )


def _article(word: str) -> str:
    return word if word == "NoneType" else f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn whatever a plugin's own code raises into a _RefusedError; keep its prints off stdout."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise _RefusedError(f"{what}: {describe(error)}; mend or update it, or block it") from error


def describe(error: BaseException) -> str:
    """Return an exception as ``Type: message (file, line N)``, on one line."""
    text = " ".join(str(error).split())
    trace = error.__traceback__
    where = ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and "importlib" not in file and file != __file__:
            where = f" ({os.path.basename(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _load(target: str, who: str) -> Any:
    """Import ``module:Name``."""
    module, _, name = target.partition(":")
    if not _is_import_string(target):
        raise PluginError(f"{who}: '{target}' is no import string; write 'module:Name'")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found: Any = importlib.import_module(module)
            for attribute in name.split("."):
                found = getattr(found, attribute)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{who}: '{target}' does not load: {describe(error)}; mend or update its package"
        ) from error
    return found


def _checked(kind: str, part: Any, who: str) -> Any:
    from rnnfarm.settings import Part

    if kind == "kernels":
        return part
    if not (isinstance(part, type) and issubclass(part, Part)):
        raise PluginError(
            f"{who} is {part!r}, which is no part; derive a class from "
            f"rnnfarm.{singular(kind).capitalize()}"
        )
    return part
