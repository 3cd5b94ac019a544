"""Write pydantic models as the JSON Schemas that OpenAPI 3.1 and AsyncAPI 3.0 share."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

JsonObject = dict[str, object]
Direction = Literal["validation", "serialization"]

REF: Final = "#/components/schemas/"


def ref(model: type[BaseModel]) -> JsonObject:
    """Build a reference to the schema of a model."""
    return {"$ref": f"{REF}{model.__name__}"}


def schemas(*, read: Sequence[type[BaseModel]], written: Sequence[type[BaseModel]]) -> JsonObject:
    """Return the schemas of what the listener reads and of what it writes, by model name.

    A member that is read is required if it has no default; one that is written, if it is never
    null. A model that is used both ways requires only what both do, so that a name means one
    thing.
    """
    found: JsonObject = {}
    directions: list[tuple[Sequence[type[BaseModel]], Direction]] = [
        (written, "serialization"),
        (read, "validation"),
    ]
    for models, direction in directions:
        found |= {
            name: _tidy(schema, is_written=direction == "serialization")
            for name, schema in _definitions(models, direction).items()
            if name not in found
        }
    return dict(sorted(found.items()))


def query_parameters(model: type[BaseModel]) -> list[JsonObject]:
    """Return the fields of a query's model as OpenAPI's parameters."""
    schema = _tidy(model.model_json_schema(), is_written=False)
    required = _items(schema.get("required"))
    parameters: list[JsonObject] = []
    for name, found in _members(schema.get("properties")).items():
        value = _not_null(_inlined(_members(found), schema))
        described = value.pop("description", "")
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": name in required,
                "description": described,
                "schema": value,
            }
        )
    return parameters


def _definitions(models: Sequence[type[BaseModel]], direction: Direction) -> JsonObject:
    pairs: list[tuple[type[BaseModel], Direction]] = [(model, direction) for model in models]
    _, whole = models_json_schema(pairs, ref_template=f"{REF}{{model}}")
    return _members(whole.get("$defs"))


def _tidy(schema: object, *, is_written: bool) -> JsonObject:
    """Drop titles that only repeat a member's name, and list members that are always present."""
    tidy = dict(_members(schema))
    properties = _members(tidy.get("properties"))
    if not properties:
        return tidy
    required = _items(tidy.get("required"))
    tidy["properties"] = {
        name: {key: value for key, value in _members(found).items() if key != "title"}
        for name, found in properties.items()
    }
    tidy["required"] = [
        name
        for name, found in properties.items()
        if name in required
        # The word that names a frame is always present, though the model gives it a default.
        or "const" in _members(found)
        or (is_written and not _may_be_null(_members(found)))
    ]
    if not tidy["required"]:
        del tidy["required"]
    return tidy


def _may_be_null(schema: Mapping[str, object]) -> bool:
    choices = [_members(choice) for choice in _items(schema.get("anyOf"))]
    return any(choice.get("type") == "null" for choice in choices)


def _not_null(schema: JsonObject) -> JsonObject:
    """Write an optional parameter with the type that it has when it is given."""
    choices = [_members(choice) for choice in _items(schema.get("anyOf"))]
    given = [choice for choice in choices if choice.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if rest.get("default", "") is None:
        del rest["default"]
    return {**given[0], **rest} if len(given) == 1 else dict(schema)


def _inlined(schema: JsonObject, whole: JsonObject) -> JsonObject:
    """Replace a reference to an enumeration by its words."""
    definitions = _members(whole.get("$defs"))
    choices = _items(schema.get("anyOf"))
    inlined: list[object] = []
    for choice in choices:
        name = str(_members(choice).get("$ref", "")).rpartition("/")[2]
        found = _members(definitions.get(name))
        inlined.append({key: found[key] for key in ("type", "enum")} if found else choice)
    return {**schema, "anyOf": inlined} if choices else dict(schema)


def _members(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []
