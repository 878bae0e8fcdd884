"""JSON Schema of the record of a restoration, made from the dataclasses of `io.record`."""

from __future__ import annotations

import inspect
import re
from typing import Any

from restore_rwkv.io.record import FORMAT, OutputRecord, RestorationRecord, SourceRecord

_FLAT = {"source": SourceRecord, "output": OutputRecord}  # their fields stand beside the others


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the files *.restoration.json.

    Further fields are allowed: they may be added without a change of the format's number.
    """
    from pydantic import TypeAdapter

    schema = TypeAdapter(RestorationRecord).json_schema(mode="serialization")
    definitions = schema.pop("$defs")
    properties: dict[str, Any] = {"format": {"const": FORMAT}}
    properties |= _described(schema.pop("properties"), RestorationRecord)
    for name, kind in _FLAT.items():
        del properties[name]
        for field, value in _described(definitions.pop(kind.__name__)["properties"], kind).items():
            text = value.pop("description")
            properties[field] = {"anyOf": [value, {"type": "null"}], "description": text}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Record of a restored image",
        "type": "object",
        "properties": {name: _plain(value) for name, value in properties.items()},
        "required": sorted(properties),
        "$defs": {name: _plain(value) for name, value in definitions.items()},
    }


def _described(properties: dict[str, Any], kind: type) -> dict[str, Any]:
    """Properties with the descriptions of the docstrings of a dataclass and its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        for name, text in re.findall(
            r"^    (\w+): (.*?)(?=^    \w+: |\Z)", _attributes(base), re.MULTILINE | re.DOTALL
        ):
            texts[name] = " ".join(text.split())
    return {name: value | {"description": texts[name]} for name, value in properties.items()}


def _attributes(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]


def _plain(value: Any) -> Any:
    """A schema without the titles that pydantic makes from names."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _plain(item)
        for key, item in value.items()
        if not (key == "title" and isinstance(item, str))  # a property may be called title
    }
