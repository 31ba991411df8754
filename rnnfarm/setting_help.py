"""The settings of a part as a help page lists them: their types, their defaults, their meaning."""

from __future__ import annotations

import json
from typing import Any

from rnnfarm.settings import Part, plain

WORDS = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "null": "nothing",
    "object": "table",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def setting_lines(part: type[Part]) -> list[tuple[str, str]]:
    """Return ``(name, type, default and meaning)`` of every setting, those without default first.

    The types are those of the part's JSON Schema.
    """
    model = part.settings_model()
    properties = model.model_json_schema()["properties"] if model.model_fields else {}
    lines = []
    for name, field in sorted(model.model_fields.items(), key=lambda f: not f[1].is_required()):
        kind = _type(properties[name])
        default = "required" if field.is_required() else f"default {_default(field.default)}"
        lines.append((name, f"{field.description or '-'} [{kind}; {default}]"))
    return lines


def _default(value: Any) -> str:
    return "none" if value is None else json.dumps(plain(value), ensure_ascii=False)


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        members = [member for member in schema["anyOf"] if member.get("type") != "null"]
        return " or ".join(map(_type, members))
    if "enum" in schema or "const" in schema:
        return " | ".join(map(_default, schema.get("enum", [schema.get("const")])))
    kind = schema.get("type", "object")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    inner = schema.get("additionalProperties")
    of = f" of {_type(inner)}" if isinstance(inner, dict) else ""
    return ", ".join([WORDS[kind] + of, *bounds])
