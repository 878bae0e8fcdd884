"""The published schema of records against the records themselves."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from restore_rwkv import Restorer, Volume
from restore_rwkv.io import record_values
from restore_rwkv.io.schema import record_schema

ROOT = Path(__file__).parents[2]


def test_the_schema_in_the_documents_is_that_of_the_code() -> None:
    """Written by `restore-rwkv info --record-schema > docs/restoration.schema.json`."""
    published = json.loads((ROOT / "docs" / "restoration.schema.json").read_text(encoding="utf-8"))
    assert published == record_schema()


def test_every_field_is_described() -> None:
    schema = record_schema()
    for name, value in schema["properties"].items():
        assert name == "format" or value["description"].endswith("."), name


@pytest.mark.slow
def test_a_record_is_valid_and_a_damaged_one_is_not() -> None:
    image = np.zeros((16, 16), np.float32)
    image[4:12, 4:12] = 100 + np.arange(8)
    record = Restorer("mri-sr", device="cpu").run(Volume(image)).record
    values = json.loads(json.dumps(record_values(record)))
    jsonschema.Draft202012Validator.check_schema(record_schema())
    jsonschema.validate(values, record_schema())
    for name in values:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in values.items() if k != name}, record_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"seconds": "long"}, record_schema())
