"""``Part``: the base of everything a plugin gives, and how its settings are declared and checked.

A part declares its settings as annotated class attributes::

    class Momentum(Optimizer):
        lr: float = 0.1
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.9

``Momentum(lr=0.2)`` checks the settings and sets them as attributes. An attribute without a value
is a required setting; names that start with ``_`` and ``ClassVar``s are no settings.
pydantic is imported only once settings have to be checked, since parts are named far more often.
"""

from __future__ import annotations

import copy
import inspect
import sys
import typing
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from rnnfarm.errors import JobError, PluginError, suggestion

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class Part:
    """Base of ``Cell``, ``Loss``, ``Optimizer``, ``Schedule``, ``Reader`` and ``Callback``."""

    def __init__(self, **settings: Any) -> None:
        """Check ``settings`` and set them as attributes; JobError names each wrong one."""
        fields = declared(type(self))
        if settings or any(not hasattr(type(self), name) for name in fields):
            values = self._checked(settings)
        else:
            values = {name: copy.deepcopy(getattr(type(self), name)) for name in fields}
        for name, value in values.items():
            setattr(self, name, value)

    @classmethod
    def _checked(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        from pydantic import ValidationError

        try:
            model = validate(cls.settings_model(), settings)
        except ValidationError as error:
            found = problems(error, cls.settings_model())
            raise JobError([f"{cls.__name__}: {where}: {what}" for where, what in found]) from None
        return {name: getattr(model, name) for name in declared(cls)}

    @classmethod
    def settings_model(cls) -> type[BaseModel]:
        """Return the pydantic model of the settings; unknown names are forbidden."""
        if cls not in _models:
            _models[cls] = _settings_model(cls)
        return _models[cls]

    def settings(self) -> dict[str, Any]:
        """Return the resolved settings as plain JSON-able values."""
        return {name: _plain(getattr(self, name)) for name in declared(type(self))}

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.settings().items())
        return f"{type(self).__name__}({inside})"


# Weak, so that a cell made in a notebook or a test goes away with its last use.
_declared: WeakKeyDictionary[type, dict[str, Any]] = WeakKeyDictionary()
_models: WeakKeyDictionary[type, type[BaseModel]] = WeakKeyDictionary()


def declared(part: type[Part]) -> Mapping[str, Any]:
    """Return the settings that ``part`` declares, name to annotation, in order of declaration.

    Raises PluginError where an annotation names something that does not exist.
    """
    if part not in _declared:
        _declared[part] = _collect(part)
    return _declared[part]


def _collect(part: type[Part]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(part.__mro__):
        for name, hint in inspect.get_annotations(base).items():
            if name.startswith("_"):
                continue
            try:
                resolved = _resolve(hint, base)
            except Exception as error:
                raise PluginError(
                    f"{base.__module__}.{base.__qualname__}: the annotation of '{name}' cannot be "
                    f"read ({error}); import its type at module level"
                ) from error
            if resolved is not ClassVar and typing.get_origin(resolved) is not ClassVar:
                found[name] = resolved
    return found


def _resolve(hint: Any, owner: type) -> Any:
    """Evaluate one annotation; what a ClassVar names need not exist at run time."""
    if not isinstance(hint, str):
        return hint
    if hint.split("[")[0].rpartition(".")[2] == "ClassVar":
        return ClassVar
    return eval(hint, vars(sys.modules[owner.__module__]), dict(vars(owner)))


def validate(model: type[BaseModel], settings: Mapping[str, Any]) -> BaseModel:
    """Check ``settings`` against ``model`` with the strictness of a job file.

    The check goes through JSON, where a list may fill a tuple and a string a path,
    but ``"3"`` is no integer and ``1`` no truth value. Raises pydantic's ValidationError.
    """
    import json

    return model.model_validate_json(json.dumps(_plain(settings)), strict=True)


def problems(error: ValidationError, model: type[BaseModel]) -> list[tuple[str, str]]:
    """Return ``(dotted path, what is wrong)`` for every error that pydantic found in ``model``."""
    known = set(model.model_fields)
    return [(".".join(map(str, e["loc"])), _sentence(e, known)) for e in error.errors()]


def _sentence(error: Any, known: set[str]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown setting; {suggestion(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return "this setting is required; give it a value"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:].replace("valid array", "list")
    return f"{message.replace('input should', 'should')}, not {error['input']!r}"


def _settings_model(part: type[Part]) -> type[BaseModel]:
    from pydantic import ConfigDict, Field, PydanticUserError, create_model

    fields: dict[str, Any] = {}
    for name, hint in declared(part).items():
        default = getattr(part, name, ...)
        fields[name] = (hint, Field(default=default))
    config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=False, protected_namespaces=(), title=part.__name__
    )
    try:
        return create_model(part.__name__, __config__=config, **fields)
    except PydanticUserError as error:
        raise PluginError(
            f"{part.__module__}.{part.__qualname__}: its settings cannot be checked "
            f"({str(error).splitlines()[0]}); use plain types"
        ) from error


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON has it: tuples as lists, paths and dates as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return value.as_posix()
    if hasattr(value, "item"):  # a NumPy scalar, without importing NumPy
        return value.item()
    return str(value)
