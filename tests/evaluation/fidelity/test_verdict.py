"""The verdict: what it says follows from figures and places, and contradicts none of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from restore_rwkv.errors import OperatorError
from restore_rwkv.evaluation.fidelity import Figure, Place, RestoredPair
from restore_rwkv.evaluation.fidelity.reasons import reason_of
from restore_rwkv.evaluation.fidelity.results import Support
from restore_rwkv.evaluation.fidelity.verdict import overall, places_by, verdict_on
from restore_rwkv.io import Volume
from restore_rwkv.tasks import TASKS

MAIN = {"ct-denoise": "largest_score", "pet-synth": "region_shift", "mri-sr": "consistency"}


def pair_of(task: str) -> RestoredPair:
    first = Volume(np.zeros((4, 4, 2), dtype=np.float32), None, None, TASKS[task].modality)
    second = first.with_data(first.data + 1)
    return RestoredPair(before=first, after=second, task=TASKS[task], axis=2)


def figure(name: str, support: Support, value: float | None = 1.0, says: str = "It is.") -> Figure:
    return Figure(
        name=name,
        title=name,
        value=value,
        unit="",
        support=support,
        expected="",
        says=says,
        blind_to="",
        reason="" if value is not None else "the scan has no geometry",
    )


def place(*, flagged: bool) -> Place:
    return Place(
        index=(0, 0, 0),
        world=None,
        slice=0,
        score=3.0,
        flagged=flagged,
        radius_mm=5.0,
        before=0.0,
        after=1.0,
        says="",
    )


def said(task: str, figures: list[Figure], places: list[Place]) -> tuple[Support, str]:
    pair = pair_of(task)
    support = overall(pair, figures, places)
    return support, verdict_on(pair, support, figures, places)


@pytest.mark.parametrize("task", MAIN)
def test_a_supported_image_says_what_supports_it(task: str) -> None:
    support, text = said(task, [figure(MAIN[task], "supported")], [place(flagged=False)])
    assert support == "supported"
    assert text.startswith(("What was removed looks like the noise", "The restored image agrees"))
    assert "None of the 1 place" not in text
    assert "not flagged" in text


@pytest.mark.parametrize("task", MAIN)
def test_without_its_main_figure_an_image_is_not_called_supported(task: str) -> None:
    figures = [figure(MAIN[task], "unknown", None), figure("clipped", "supported", 0.0)]
    support, text = said(task, figures, [])
    assert support == "unknown"
    assert text.startswith(
        "Whether the scan supports the restored image is not known: the scan has"
    )
    assert said(task, [figure("clipped", "supported")], [])[0] == "unknown"


def test_the_worst_figure_decides_and_is_named() -> None:
    figures = [
        figure("largest_score", "look", says="Up to 9 were removed."),
        figure("shift_bone", "unsupported", says="The mean of bone changed."),
    ]
    support, text = said("ct-denoise", figures, [place(flagged=True), place(flagged=False)])
    assert support == "unsupported"
    assert text.startswith(
        "The scan does not support the restored image: the mean of bone changed."
    )
    assert "1 of the 2 places to look at first is flagged." in text
    support, text = said("ct-denoise", figures[:1], [])
    assert (support, text.split(": ")[1][:22]) == ("look", "up to 9 were removed. ")


def test_a_doubt_without_the_main_figure_says_that_the_rest_is_not_known() -> None:
    figures = [figure("largest_score", "unknown", None), figure("clipped", "look", says="Cut.")]
    support, text = said("ct-denoise", figures, [])
    assert support == "look"
    assert "The rest is not known: the scan has no geometry." in text


def test_a_flagged_place_alone_deserves_a_look() -> None:
    support, text = said("mri-sr", [figure("consistency", "supported")], [place(flagged=True)] * 2)
    assert support == "look"
    assert "with exceptions. 2 of the 2 places to look at first are flagged." in text


def test_figures_without_a_value_do_not_count_against_an_image() -> None:
    figures = [figure("consistency", "supported"), figure("seams", "unsupported", None)]
    assert said("mri-sr", figures, [])[0] == "supported"


def test_how_places_were_found_is_said() -> None:
    pair = pair_of("ct-denoise")
    detector: Any = SimpleNamespace(simulated_threshold=4.2)
    some = [place(flagged=False)]
    assert "above 4.20" in places_by(pair, detector, some, "")
    assert places_by(pair, None, [], "it is odd") == "No places were looked for: it is odd."
    assert places_by(pair, detector, [], "").startswith("No place is listed")
    detector.simulated_threshold = None
    assert "no threshold is known" in places_by(pair, detector, some, "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("hu has no noise in soft tissue; set it", "the scan has no noise in soft tissue"),
        ("images are constant, without power; give others", "slices are constant, without power"),
        ("images has shape (2, 2); give more", "the scan has shape (2, 2)"),
        ("the truth has 2 regions, too few", "the scan has 2 regions, too few"),
    ],
)
def test_reasons_are_about_the_scan_and_name_no_argument(error: str, reason: str) -> None:
    assert reason_of(OperatorError(error)) == reason
