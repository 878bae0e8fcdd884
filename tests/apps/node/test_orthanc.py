"""The node's ways out beside a real archive: Orthanc with DICOMweb, in a network of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apps.node import orthanc_scenarios as scenarios
from tests.helpers.namespace import call, needs_namespace
from tests.helpers.orthanc import needs_orthanc
from tests.helpers.tools import needs

pytestmark = [*needs_orthanc(), needs_namespace()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dimse", "web"])
def test_every_kind_of_image_arrives_as_it_was_sent(tmp_path: Path, kind: str) -> None:
    assert call(scenarios.sends_every_kind, folder=str(tmp_path), kind=kind) == []


@pytest.mark.slow
def test_an_archive_killed_while_it_receives_gets_the_rest_later(tmp_path: Path) -> None:
    found = call(scenarios.goes_on_after_a_restart, folder=str(tmp_path), kind="dimse")
    assert found == {"before": 40, "transient": [True, True], "accepted": 200, "same": True}


@pytest.mark.slow
def test_an_archive_killed_during_a_request_gets_all_of_it_later(tmp_path: Path) -> None:
    found = call(scenarios.goes_on_after_a_restart, folder=str(tmp_path), kind="web")
    assert found == {"before": 0, "transient": [True, True], "accepted": 200, "same": True}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dimse", "web"])
def test_an_archive_without_room_gets_the_rest_later(tmp_path: Path, kind: str) -> None:
    found = call(scenarios.waits_for_room, folder=str(tmp_path), kind=kind)
    assert found == {"some before": True, "transient": [True], "accepted": 100, "same": True}


def test_an_archive_of_another_name_refuses_for_good(tmp_path: Path) -> None:
    message, transient = call(scenarios.wrong_title, folder=str(tmp_path))
    assert message.startswith("pacs: rejects the association (Called AE title not recognised)")
    assert not transient


@pytest.mark.slow
@needs("storescu")
def test_series_are_searched_by_modality_and_day_and_retrieved(tmp_path: Path) -> None:
    assert call(scenarios.searches_and_retrieves, folder=str(tmp_path)) == {
        "all": [["1.2.840.7", "CT", 3], ["1.2.840.8", "CT", 2], ["1.2.840.9", "MR", 4]],
        "CT of two days": ["1.2.840.7", 3],
        "MR": ["1.2.840.9"],
        "XA": 0,
        "header": ["1.2.840.7"],
        "same": True,
    }


@pytest.mark.slow
def test_series_are_fetched_when_they_are_complete_and_our_own_are_not(tmp_path: Path) -> None:
    found = call(scenarios.watches, folder=str(tmp_path))
    assert found["same"]
    uids = [f"1.2.840.7.{number}" for number in range(6)]
    assert found["uids"] == [*uids, "1.2.840.9.0", "1.2.840.9.1"]
    assert set(found["announced"]) <= {2, 4, 6}  # of a series that was quiet while it grew


def test_the_archive_of_the_tests_keeps_what_it_has_through_a_kill(tmp_path: Path) -> None:
    assert call(scenarios.survives_a_kill, folder=str(tmp_path)) == {
        "series": ["1.2.840.7"],
        "instances": 6,
        "of": 6,
        "peers": ["node"],
    }
