from __future__ import annotations

from pathlib import Path

import pytest

from restore_rwkv.apps.node.own import is_made_here, made_here
from restore_rwkv.apps.node.rules import Rule, first_match
from restore_rwkv.errors import ConfigError
from tests.helpers.synthetic_series import make_slice, save

HEADER = {
    "Modality": "CT",
    "StationName": "CT-3",
    "SeriesDescription": "Thorax 1.0 B31f",
    "ProtocolName": "LungLowDose",
    "Manufacturer": "SIEMENS",
}


def rule(**conditions: object) -> Rule:
    return Rule(name="a", send_to=("pacs",), **conditions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({}, True),
        ({"modality": "CT"}, True),
        ({"modality": "ct"}, True),
        ({"modality": "C"}, False),
        ({"modality": ["MR", "CT"]}, True),
        ({"modality": ["MR", "PT"]}, False),
        ({"station": "CT-?"}, True),
        ({"description": "thorax*"}, True),
        ({"description": "*thorax"}, False),
        ({"protocol": "*LowDose"}, True),
        ({"manufacturer": "siemens*"}, True),
        ({"modality": "CT", "station": "CT-4"}, False),
        ({"peer": "CT1"}, True),
        ({"peer": "dimse:CT?"}, True),
        ({"peer": "web:*"}, False),
    ],
)
def test_all_conditions_have_to_hold(conditions: dict[str, object], matches: bool) -> None:
    assert rule(**conditions).matches(HEADER, "dimse:CT1") is matches


def test_a_missing_element_matches_only_what_matches_everything() -> None:
    assert rule(description="*").matches({}, "web:pacs")
    assert not rule(description="?*").matches({}, "web:pacs")


def test_the_first_rule_decides() -> None:
    rules = [rule(modality="MR"), rule(modality="CT", fit="fit"), rule()]
    assert first_match(rules, HEADER, "web:pacs") is rules[1]
    assert first_match(rules[:1], HEADER, "web:pacs") is None


def test_conditions_are_said_in_words() -> None:
    assert rule(modality=["CT", "MR"], peer="web:*").conditions() == (
        "modality CT or MR, peer web:*"
    )
    assert rule().conditions() == "every series"


def test_a_rule_that_restores_says_where_to() -> None:
    with pytest.raises(ConfigError, match="send_to is empty"):
        Rule(name="a")


def test_series_of_this_program_are_known(tmp_path: Path) -> None:
    header = make_slice(0)
    assert not made_here(header)
    header.DerivationDescription = "restore-rwkv 0.1.0: CT denoising"
    assert made_here(header)
    save(header, tmp_path / "a.dcm")
    assert is_made_here(tmp_path / "a.dcm")


def test_a_file_that_cannot_be_read_is_left_to_the_worker(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"broken")
    assert not is_made_here(tmp_path / "a.dcm")
    assert not is_made_here(tmp_path / "none.dcm")
