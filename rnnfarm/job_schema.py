"""The JSON Schema of the job file, made from the installed plugins, for editors."""

from __future__ import annotations

from typing import Any

from rnnfarm.errors import PluginError
from rnnfarm.job_tables import Job, PartTable
from rnnfarm.plugins import Registry

OPTIONAL_SECTIONS = ("training", "cluster")


def job_schema(registry: Registry) -> dict[str, Any]:
    """Return the schema; a part that does not load is there by name, its settings unchecked."""
    made = Job.model_json_schema()
    definitions = made["$defs"]
    for table in _part_tables():
        plain = definitions[table.__name__]
        del plain["properties"]["settings"]
        definitions[table.__name__] = _any_part(table, plain, registry, definitions)
    # The reader of a job fills these in; in the file they may be left out.
    made["required"] = [key for key in made["required"] if key not in OPTIONAL_SECTIONS]
    training = definitions["TrainingTable"]
    training["required"] = []
    training["properties"]["clip"] = {
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"$ref": "#/$defs/ClipTable"}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _part_tables() -> list[type[PartTable]]:
    return [table for table in PartTable.__subclasses__() if table.__module__ == Job.__module__]


def _any_part(
    table: type[PartTable], plain: dict[str, Any], registry: Registry, definitions: dict[str, Any]
) -> dict[str, Any]:
    names = registry.names(table.kind)
    variants: list[dict[str, Any]] = [
        _one_part(table, plain, n, registry, definitions) for n in names
    ]
    # ``module:Name`` is a part too, with settings that are known only when it is imported.
    loose = plain["properties"] | {table.key: {"type": "string", "pattern": "^[\\w.-]+:[^\\s:]+$"}}
    variants.append({**plain, "properties": loose, "additionalProperties": True})
    if table.key == "name":
        variants.append({"type": "string", "description": f"one of: {', '.join(names)}"})
    return {"anyOf": variants}


def _one_part(
    table: type[PartTable],
    plain: dict[str, Any],
    name: str,
    registry: Registry,
    definitions: dict[str, Any],
) -> dict[str, Any]:
    properties = plain["properties"] | {table.key: {"const": name}}
    required = list(plain.get("required", []))
    variant = {"type": "object", "title": name, "properties": properties, "required": required}
    try:
        part = registry.get(table.kind, name)
        model = part.settings_model()
    except PluginError:
        return variant
    if part.__doc__:
        variant["description"] = " ".join(part.__doc__.partition("\n\n")[0].split())
    prefix = f"{table.kind}.{name}."
    settings = model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    for inner, definition in settings.pop("$defs", {}).items():
        definitions[prefix + inner] = definition
    variant["properties"] = properties | settings.get("properties", {})
    variant["required"] = required + settings.get("required", [])
    variant["additionalProperties"] = False
    return variant
