"""The page of measures says of each what the package states, and its figures are measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import measures, protocols
from restore_rwkv.evaluation.measures.catalogue import all_measures
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")


def test_page_is_made_from_the_catalogue() -> None:
    assert "\n".join(measures.catalogue()) in PAGE, (
        "python -m benchmarks.measures > docs/measures.md"
    )


@pytest.mark.parametrize("name", all_measures())
def test_every_measure_has_its_rows(name: str) -> None:
    first, second = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
    assert len(first.split(" | ")) == 6
    assert len(second.split(" | ")) == 4
    measure = all_measures()[name]
    assert all((measure.equation, measure.source, measure.title, measure.unit))
    assert measure.blind_to.endswith(".")
    assert measure.bounds[0] < measure.bounds[1]


def cells(line: str) -> list[str]:
    return line.strip("| ").split(" | ")


@pytest.mark.slow
def test_figures_of_the_protocols_are_measured() -> None:
    found = [cells(line) for line in list(protocols.rows())[2:]]
    labels = {tuple(row[:2]) for row in found}
    stated = [cells(line) for line in PAGE.splitlines() if tuple(cells(line)[:2]) in labels]
    assert len(stated) == len(found) == 8
    for new, old in zip(found, stated, strict=True):
        assert new[:2] == old[:2]
        # Printed to 0.01 dB and four digits; processors differ in the last of them.
        assert np.allclose(*([float(cell) for cell in row[2:]] for row in (new, old)), rtol=2e-3)
