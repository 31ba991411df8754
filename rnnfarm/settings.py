"""``Part``: the base of everything a plugin gives, and how its settings are declared and checked.

A part declares its settings as annotated class attributes::

    class Momentum(Optimizer):
        lr: float = 0.1
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.9

``Momentum(lr=0.2)`` checks the settings and sets them as attributes. An attribute without a value
is a required setting; names that start with ``_`` and ``ClassVar``s are no settings. What a setting
means is said in the class's docstring, as ``name: text`` (see ``setting_docs``).
pydantic is imported only once settings have to be checked, since parts are named far more often.
"""

from __future__ import annotations

import copy
import inspect
import re
import reprlib
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from datetime import date, time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from rnnfarm.errors import JobError, PluginError, article, suggestion
from rnnfarm.setting_docs import described

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

REQUIRED = "is required; give it a value"


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

        if foreign := foreign_values(settings):
            raise JobError([f"{cls.__name__}: {at}: {what}" for at, what in foreign])
        try:
            model = validate(cls.settings_model(), settings)
        except ValidationError as error:
            found = problems(error, cls.settings_model(), no_settings=unannotated(cls))
            named = [": ".join(filter(None, [cls.__name__, *each])) for each in found]
            raise JobError(named) from None
        return {name: getattr(model, name) for name in declared(cls)}

    @classmethod
    def settings_model(cls) -> type[BaseModel]:
        """Return the pydantic model of the settings; unknown names are forbidden."""
        if cls not in _models:
            _models[cls] = _settings_model(cls)
        return _models[cls]

    def settings(self) -> dict[str, Any]:
        """Return the resolved settings as plain JSON-able values."""
        return {name: plain(getattr(self, name)) for name in declared(type(self))}

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


def unannotated(part: type[Part]) -> list[str]:
    """Return the class attributes that look like settings and have no annotation.

    Numbers, texts and truth values of classes that a plugin has written, by names without ``_``.
    """
    own = [base for base in part.__mro__ if not base.__module__.startswith("rnnfarm.")]
    known = {name for base in part.__mro__ for name in inspect.get_annotations(base)}
    return [
        name
        for base in own
        for name, value in vars(base).items()
        if not name.startswith("_") and name not in known and isinstance(value, int | float | str)
    ]


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

    return model.model_validate_json(json.dumps(plain(settings)), strict=True)


def problems(
    error: ValidationError,
    model: type[BaseModel],
    also_known: Iterable[str] = (),
    no_settings: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Return ``(dotted path, what is wrong and the mend)`` for each error found in ``model``.

    ``also_known`` holds keys that may stand beside the model's own, for the suggestions;
    ``no_settings`` the attributes of the part that have no annotation.
    """
    found: dict[str, list[str]] = {}
    for each in error.errors():
        place, described, known = _place(model, each["loc"])
        sentence = _sentence(each, {*known, *also_known})
        key = str(each["loc"][-1]) if each["loc"] else ""
        if each["type"] == "extra_forbidden" and key in no_settings:
            sentence = (
                f"is an attribute of the class without an annotation, and so no setting; write "
                f"{key}: float = … there, or the type that it has"
            )
        if described:
            sentence = f"should be {described}, not {reprlib.repr(each['input'])}"
            found.setdefault(place, [sentence])
        else:
            found.setdefault(place, []).append(sentence)
    return [(place, "; or ".join(sentences)) for place, sentences in found.items()]


def _place(
    model: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[str, str | None, set[str]]:
    """Return the path of an error, what should be there, and the names of the fields beside it.

    pydantic reports each member of a union; the path ends at the union, described by its field.
    """
    fields = dict(model.model_fields)
    for depth, key in enumerate(location[:-1]):
        field = fields.get(str(key))
        if isinstance(key, int) or field is None:
            continue
        members = [a for a in typing.get_args(field.annotation) if a is not type(None)]
        if typing.get_origin(field.annotation) in (typing.Union, types.UnionType) and members[1:]:
            return ".".join(map(str, location[: depth + 1])), field.description, set()
        inner = _model_in(field.annotation)
        fields = dict(inner.model_fields) if inner else {}
    return ".".join(map(str, location)), None, set(fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _sentence(error: Any, known: set[str]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return REQUIRED
    if error["type"] == "json_invalid" and "surrogate" in str(error["msg"]):
        return "a name or text in it is not UTF-8; rename the file, or mend the text"
    message = re.sub(r"^(Value error, |\w+ (?=should))", "", str(error["msg"]))
    message = re.sub(r" after validation, not \d+$", "", message)
    message = message.replace("valid array", "list").replace("an object", "a table")
    return f"{message}, not {reprlib.repr(error['input'])}"


def _settings_model(part: type[Part]) -> type[BaseModel]:
    from pydantic import ConfigDict, Field, PydanticUserError, create_model

    fields: dict[str, Any] = {}
    meanings = described(part, declared(part))
    for name, hint in declared(part).items():
        default = getattr(part, name, ...)
        said = name in meanings  # where it is not, its annotation may have a description
        field = Field(default=default, description=meanings[name]) if said else Field(default)
        fields[name] = (hint, field)
    config = ConfigDict(
        extra="forbid", allow_inf_nan=False, protected_namespaces=(), title=part.__name__
    )
    try:
        return create_model(part.__name__, __config__=config, **fields)
    except PydanticUserError as error:
        raise PluginError(
            f"{part.__module__}.{part.__qualname__}: its settings cannot be checked "
            f"({str(error).splitlines()[0]}); use plain types"
        ) from error


def foreign_values(value: Any, at: str = "") -> list[tuple[str, str]]:
    """Return ``(dotted path, what is wrong)`` for each value that no job file could hold.

    Such as a DataFrame, an array, an integer of more than 1,000 bits, or text with a NUL.
    """
    if isinstance(value, Mapping):
        inner = [(f"{at}.{key}".lstrip("."), each) for key, each in value.items()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = [(f"{at}.{number}", each) for number, each in enumerate(value)]
    else:
        what = _foreign(value)
        return [] if what is None else [(at, what)]
    return [found for where, each in inner for found in foreign_values(each, where)]


def _foreign(value: Any) -> str | None:
    if isinstance(value, str):
        return "holds the character NUL, which no name has; take it out" if "\0" in value else None
    if isinstance(value, int):
        return "is an integer of more than 1,000 bits; correct it" if abs(value) >> 1000 else None
    if value is None or isinstance(value, (float, PurePath, date, time)):
        return None
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return None  # a NumPy scalar
    return (
        f"is {article(type(value).__name__)}, where a job has text, numbers, lists and tables; "
        "data are given as files: save an array as .npy (numpy.save) or a table as Parquet "
        "(to_parquet), and name the file"
    )


def plain(value: Any) -> Any:
    """Return ``value`` as JSON has it: tuples as lists, paths and dates as text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return value.as_posix()
    if hasattr(value, "item"):  # a NumPy scalar, without importing NumPy
        return value.item()
    return str(value)
