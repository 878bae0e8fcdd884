"""Jobs: what they write, how far they are, and how they end."""

from __future__ import annotations

from tests.helpers.pages import Visitor


def test_a_scan_of_the_folder_is_restored_and_shown(visitor: Visitor) -> None:
    (scan,) = visitor.scans()
    job = visitor.job(visitor.start(scan["id"])["id"])
    assert job["state"] == "done"
