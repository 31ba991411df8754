"""The registry: the parts of all plugins, blocked and looked up by name."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rnnfarm.discovery import (
    Plugin,
    RefusedError,
    Source,
    describe,
    import_part,
    is_import_string,
    normal,
    parts_of,
    sources,
)
from rnnfarm.errors import JobError, PluginError, suggestion
from rnnfarm.hookspecs import KINDS, PROJECT

BLOCK_VARIABLE = "RNNFARM_NO_PLUGINS"
BASES = {
    "cells": "rnnfarm.equations.parts:Cell",
    "losses": "rnnfarm.equations.parts:Loss",
    "optimizers": "rnnfarm.equations.parts:Optimizer",
    "schedules": "rnnfarm.training.schedule:Schedule",
    "kernels": "rnnfarm.kernels.interface:Kernel",
    "readers": "rnnfarm.data.reader:Reader",
    "callbacks": "rnnfarm.training.callback:Callback",
    "exchanges": "rnnfarm.cluster.exchange:Exchange",
}
#: Seconds after which a plugin's import is said to take long.
SLOW = 1.0
_PLURALS = {"losses": "loss"}


@dataclass(frozen=True)
class _Entry:
    plugin: Plugin
    part: Any  # a class, or "module:Name"

    @property
    def is_builtin(self) -> bool:
        return self.plugin.distribution == PROJECT


class Registry:
    """The parts of all plugins by kind and name.

    A name is ``lstm``, or ``distribution:lstm`` where two plugins claim it, or ``module:Name`` for
    a class that no plugin gives but that can be imported. A built-in part keeps its plain name,
    whatever else is installed; a plain name that two plugins claim names neither.
    """

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.blocked: tuple[str, ...] = ()
        self._plain: dict[str, dict[str, list[_Entry]]] = {kind: {} for kind in KINDS}
        self._qualified: dict[str, dict[str, _Entry]] = {kind: {} for kind in KINDS}

    @classmethod
    def load(
        cls, blocked: Iterable[str] = (), waiting: Callable[[str], None] | None = None
    ) -> Registry:
        """Load every plugin that is installed, except the blocked ones.

        ``blocked`` holds names of distributions or entry points, as does the environment variable
        RNNFARM_NO_PLUGINS, separated by commas. ``waiting`` is told, in another thread, of each
        plugin that takes more than a second to import. Raises JobError when ``blocked`` names no
        plugin.
        """
        registry = cls()
        registry.blocked = tuple(blocked)
        from_environment = os.environ.get(BLOCK_VARIABLE, "").split(",")
        blocks = {normal(name): BLOCK_VARIABLE for name in from_environment if name.strip()}
        blocks |= {normal(name): "--no-plugin" for name in registry.blocked}
        found = sources()
        _check_blocked(registry.blocked, found)
        for source in found:
            with _timed(source.plugin, waiting):
                registry._add(source, blocks)
        return registry

    def _add(self, source: Source, blocks: Mapping[str, str]) -> None:
        plugin = source.plugin
        self.plugins.append(plugin)
        for name in _names_of(plugin):
            if name in blocks:
                plugin.refused = f"{plugin} is blocked by {blocks[name]}"
                return
        try:
            parts = parts_of(source)
        except RefusedError as refusal:
            plugin.refused = f"{plugin} {refusal}"
            return
        for kind, mapping in parts.items():
            plugin.hooks[kind] = sorted(mapping)
            for name, part in mapping.items():
                self._claim(kind, name, _Entry(plugin, part))

    def _claim(self, kind: str, name: str, entry: _Entry) -> None:
        plugin = entry.plugin
        claims = self._plain[kind].setdefault(name, [])
        own = self._qualified[kind].setdefault(_qualified(entry, name), entry)
        if own is not entry:
            what, mend = f"{own.plugin} has already", "rename one of them"
        elif not claims:
            claims.append(entry)
            return
        elif claims[0].is_builtin:
            what = f"{claims[0].plugin} has already"
            mend = f"write '{plugin.distribution}:{name}' to use this one"
        else:
            claims.append(entry)
            what = f"{claims[0].plugin} claims too"
            mend = f"write {_either(claims, name)} in a job"
        plugin.clashes.append(
            f"{plugin} claims the {singular(kind)} '{name}', which {what}; {mend}"
        )

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind of part; ``distribution:name`` where a name was taken."""
        plain = {name: claims for name, claims in self._plain[kind].items() if len(claims) == 1}
        clashing = [
            f"{entry.plugin.distribution}:{name}"
            for qualified, entry in self._qualified[kind].items()
            if entry not in plain.get(name := qualified.partition(":")[2], [])
        ]
        return sorted(plain) + sorted(clashing)

    def stored_name(self, kind: str, name: str) -> str:
        """Return the name by which a run keeps a part, whatever is installed later.

        That is ``lstm`` for a built-in part and ``distribution:name`` for one of a plugin; a name
        that no plugin gives stays as it is. Raises JobError for a name that two plugins claim.
        """
        entry = self._find(kind, name)
        if entry is None:
            return name
        plain = name.rpartition(":")[2]
        return plain if entry.is_builtin else _qualified(entry, plain)

    def get(self, kind: str, name: str) -> Any:
        """Return the part, importing it if need be.

        Raises PluginError when no plugin gives it, when it does not import, or when it is no part;
        JobError for a name that two plugins claim.
        """
        entry = self._find(kind, name)
        if entry is None and ":" in name:
            return _checked(kind, _load(name, f"{singular(kind)} '{name}'"), name)
        if entry is None:
            raise PluginError(self._unknown(kind, name))
        who = f"{singular(kind)} '{name}' of {entry.plugin}"
        part = _load(entry.part, who) if isinstance(entry.part, str) else entry.part
        return _checked(kind, part, who)

    def plugin_of(self, kind: str, name: str) -> Plugin | None:
        """The plugin that gives a part; None for one that is named by an import string."""
        entry = self._find(kind, name)
        return None if entry is None else entry.plugin

    def _find(self, kind: str, name: str) -> _Entry | None:
        distribution, colon, rest = name.rpartition(":")
        if not colon:
            claims = self._plain[kind].get(name, [])
            if len(claims) > 1:
                both = " and ".join(str(entry.plugin) for entry in claims)
                raise JobError(
                    f"the {singular(kind)} '{name}' is claimed by {both}; write "
                    f"{_either(claims, name)}"
                )
            return claims[0] if claims else None
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


@contextmanager
def _timed(plugin: Plugin, waiting: Callable[[str], None] | None) -> Iterator[None]:
    """Note how long a plugin takes; tell of one that takes long while it does."""
    started, timer = time.perf_counter(), None
    if waiting is not None:
        said = f"waiting for {plugin} to import (rnnfarm plugins --timing has the seconds of each)"
        timer = threading.Timer(SLOW, waiting, [said])
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        plugin.seconds = round(time.perf_counter() - started, 3)


def _qualified(entry: _Entry, name: str) -> str:
    return f"{normal(entry.plugin.distribution)}:{name}"


def _either(claims: Iterable[_Entry], name: str) -> str:
    return " or ".join(f"'{_qualified(entry, name)}'" for entry in claims)


def singular(kind: str) -> str:
    """Return ``cell`` for ``cells``."""
    return _PLURALS.get(kind, kind.removesuffix("s"))


def _names_of(plugin: Plugin) -> tuple[str, str]:
    return normal(plugin.distribution), normal(plugin.entry_point.partition("=")[0])


def _check_blocked(blocked: Iterable[str], found: Iterable[Source]) -> None:
    known = {name for source in found for name in _names_of(source.plugin)}
    wrong = [name for name in blocked if normal(name) not in known]
    if wrong:
        raise JobError(
            [f"--no-plugin {n}: no such plugin is installed; {suggestion(n, known)}" for n in wrong]
        )


def _load(target: str, who: str) -> Any:
    """Import ``module:Name``."""
    module, _, name = target.partition(":")
    if not is_import_string(target):
        raise PluginError(f"{who}: '{target}' is no import string; write 'module:Name'")
    try:
        return import_part(module, name)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{who}: '{target}' does not load: {describe(error)}; mend or update its package"
        ) from error


def _checked(kind: str, part: Any, who: str) -> Any:
    """Refuse what is no part of its kind, such as a function or an optimizer among the cells."""
    base = _load(BASES[kind], singular(kind))
    if not (isinstance(part, type) and issubclass(part, base)):
        raise PluginError(
            f"{who} is {part!r}, which is no {singular(kind)}; give a class that is derived from "
            f"rnnfarm.{base.__name__}"
        )
    return part
