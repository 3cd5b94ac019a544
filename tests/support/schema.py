"""Validate a JSON value against a JSON Schema of ours: the keywords that our descriptions use.

Stricter than the standard in one thing: a member that the schema does not name is a fault, unless
it says that more may come.
"""

import re
from datetime import datetime
from typing import Final

Json = dict[str, object]

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN: Final = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "maxItems",
        "anyOf",
        "enum",
        "const",
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "$ref",
        "title",
        "description",
        "examples",
        "default",
        "writeOnly",
    }
)


def faults(value: object, schema: object, document: Json, *, at: str = "$") -> list[str]:
    """Return what is wrong with a value, each fault with its place; empty if it is valid."""
    assert isinstance(schema, dict), f"{at}: no schema"
    unknown = set(schema) - _KNOWN
    assert not unknown, f"{at}: this checker does not know {unknown}"
    if "$ref" in schema:
        return faults(value, resolve(str(schema["$ref"]), document), document, at=at)
    if "anyOf" in schema:
        tries = [faults(value, choice, document, at=at) for choice in schema["anyOf"]]
        return [] if [] in tries else [f"{at}: none of {len(tries)} choices: {tries}"]
    found = _plain(value, schema, at)
    if isinstance(value, dict) and not found:
        found += _members(value, schema, document, at)
    if isinstance(value, list):
        if len(value) > int(str(schema.get("maxItems", len(value)))):
            found.append(f"{at}: {len(value)} items")
        for index, item in enumerate(value):
            found += faults(item, schema.get("items", {}), document, at=f"{at}[{index}]")
    return found


def resolve(ref: str, document: Json) -> object:
    """Follow a reference within the document."""
    found: object = document
    for part in ref.removeprefix("#/").split("/"):
        assert isinstance(found, dict), f"{ref} leads nowhere"
        assert part in found, f"{ref} leads nowhere"
        found = found[part]
    return found


def references(value: object) -> list[str]:
    """List every reference in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for inner in value.values() for ref in references(inner)]
    if isinstance(value, list):
        return [ref for inner in value for ref in references(inner)]
    return []


def _plain(value: object, schema: Json, at: str) -> list[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        is_bool = isinstance(value, bool) and kind != "boolean"
        if is_bool or not isinstance(value, _TYPES[kind]):
            return [f"{at}: {type(value).__name__} is not {kind}"]
    found = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: not {schema['const']!r}")
    enum = schema.get("enum")
    if isinstance(enum, list) and value not in enum:
        found.append(f"{at}: {value!r} is not in the enumeration")
    if isinstance(value, (int, float)):
        found += _number(value, schema, at)
    if isinstance(value, str):
        found += _text(value, schema, at)
    return found


def _number(value: float, schema: Json, at: str) -> list[str]:
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    assert isinstance(low, (int, float))
    assert isinstance(high, (int, float))
    above = schema.get("exclusiveMinimum", value - 1)
    assert isinstance(above, (int, float))
    return [] if low <= value <= high and value > above else [f"{at}: {value} is out of bounds"]


def _text(value: str, schema: Json, at: str) -> list[str]:
    found = []
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", len(value))
    assert isinstance(shortest, int)
    assert isinstance(longest, int)
    if not shortest <= len(value) <= longest:
        found.append(f"{at}: {len(value)} characters")
    if "pattern" in schema and not re.search(str(schema["pattern"]), value):
        found.append(f"{at}: {value!r} does not match {schema['pattern']}")
    if schema.get("format") == "date-time" and datetime.fromisoformat(value).tzinfo is None:
        found.append(f"{at}: no time zone")
    return found


def _members(value: Json, schema: Json, document: Json, at: str) -> list[str]:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    assert isinstance(properties, dict)
    assert isinstance(required, list)
    found = [f"{at}: {name} is missing" for name in required if name not in value]
    more = schema.get("additionalProperties", not properties)
    for name, member in value.items():
        if name in properties:
            found += faults(member, properties[name], document, at=f"{at}.{name}")
        elif isinstance(more, dict):
            found += faults(member, more, document, at=f"{at}.{name}")
        elif not more:
            found.append(f"{at}: {name} is not described")
    return found
