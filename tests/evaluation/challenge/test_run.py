from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from restore_rwkv.data import SetWriter
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.challenge import (
    Challenge,
    ChallengeFiles,
    ChallengeRequest,
    Lesion,
    Rate,
    crossing_pairs,
    find_sites,
    run_challenge,
)
from restore_rwkv.evaluation.challenge.methods import unchanged
from restore_rwkv.evaluation.challenge.pairs import PairedScan
from restore_rwkv.io import Volume, write_volume
from restore_rwkv.physics.pet import reduce_dose, reduce_dose_with_added
from restore_rwkv.tasks import get_task
from tests.helpers.challenges import MRI, blurring, head, painting
from tests.helpers.ct_phantoms import ellipses
from tests.helpers.pet_discs import SCANNER, discs, generator


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Challenge:
    """Three methods on a phantom of MRI: one blurs, one paints, and one does nothing."""
    path = tmp_path_factory.mktemp("challenge") / "head.nii.gz"
    write_volume(head(), path)
    request = ChallengeRequest(
        scans=(path,), task="mri-sr", contrasts=(10, 20), radii=(6.0,), places=12, factor=2.0
    )
    return run_challenge(request, methods={"blurring": blurring, "painting": painting})


def test_a_network_that_blurs_scores_worse_than_the_identity(found: Challenge) -> None:
    scores = {each.method: each.score for each in found.overall}
    assert scores["input"] > 0.95
    assert scores["blur"] < scores["input"]
    assert scores["blurring"] < 0.7
    by_blur = [each for each in found.summaries if each.method == "blurring"]
    assert all(each.retained < 0.75 and each.invented.hits == 0 for each in by_blur)


def test_a_network_that_paints_is_caught(found: Challenge) -> None:
    faint = {each.method: each for each in found.summaries if each.contrast == 10}
    assert faint["painting"].invented.hits >= 5
    assert faint["painting"].score < faint["input"].score
    assert faint["input"].invented.hits == 0


def test_patches_of_a_network_that_paints_agree_less_with_the_truth(found: Challenge) -> None:
    flagged = {each.method: each.flagged for each in found.overall}
    assert flagged["input"].hits == 0
    assert flagged["painting"].hits > 0.2 * flagged["painting"].count


def test_methods_are_compared_on_the_same_lesions(found: Challenge) -> None:
    others = [(each.contrast, each.other) for each in found.comparisons]
    assert others == [(c, other) for c in (10, 20) for other in ("painting", "input", "blur")]
    for each in found.comparisons:
        mine, other = (
            {
                (row.scan, row.index): row.retained
                for row in found.lesions
                if (row.method, abs(row.contrast)) == (method, each.contrast)
            }
            for method in (each.method, each.other)
        )
        differences = [mine[place] - other[place] for place in mine]
        assert each.method == "blurring"
        assert each.retained == pytest.approx(np.mean(differences))
        assert each.interval is not None
        assert each.interval[0] <= each.retained <= each.interval[1]
        assert (each.lesions, each.scans) == (len(differences), 1)
        lost = [(mine[place] < 0.5, other[place] < 0.5) for place in mine]
        assert each.lost == lost.count((True, False))
        assert each.lost_by_other == lost.count((False, True))


def test_the_blur_of_mri_follows_the_factor_and_a_file_has_no_split(found: Challenge) -> None:
    assert found.provenance["blur_mm"] == {"head.nii.gz": 1.5}  # half a pixel at a factor of 2
    assert found.provenance["split"] is None


def test_examples_show_brighter_and_darker_lesions(found: Challenge) -> None:
    assert [each.contrast for each in found.examples] == [10, 20, -10, -20]
    assert list(found.examples[0].images) == ["truth", "blurring", "painting", "input", "blur"]


def test_stacks_of_prepared_sets_get_a_geometry(tmp_path: Path) -> None:
    data = np.moveaxis(head(96).data, 2, 0)
    with SetWriter(tmp_path / "set", "noise", "mri-sr") as writer:
        writer.add("one", "a", "test", data, spacing=(5.0, 1.5, 1.5))
        writer.add("two", "b", "validation", data)
    request = ChallengeRequest(scans=(tmp_path / "set",), contrasts=(10,), places=3)
    assert list(run_challenge(request, methods={"m": blurring}).scans) == ["one"]
    with pytest.raises(InputError, match="two: has no spacing"):
        run_challenge(replace(request, split="validation"), methods={"m": blurring})
    with pytest.raises(InputError, match="is for mri-sr, not ct-denoise"):
        run_challenge(replace(request, task="ct-denoise"), methods={"m": blurring})


def test_rows_and_summaries_are_of_the_same_lesions(found: Challenge) -> None:
    lesions = [row for row in found.lesions if row.method == "input"]
    assert len(lesions) == 2 * found.scans["head.nii.gz"][1]
    signs = np.sign([row.contrast for row in lesions])
    assert abs(signs.sum()) <= 2
    one = next(e for e in found.summaries if (e.method, e.contrast) == ("input", 20))
    retained = [row.retained for row in lesions if abs(row.contrast) == 20]
    assert one.retained == pytest.approx(np.mean(retained))
    assert one.lost_bright.count + one.lost_dark.count == one.lesions == len(retained)


def test_files_appear_together_and_hold_what_was_found(found: Challenge, tmp_path: Path) -> None:
    files = ChallengeFiles(tmp_path / "out")
    files.write(found)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["challenge.json", "lesions.csv", "lesions.png", "places.csv"]
    values = json.loads((tmp_path / "out" / "challenge.json").read_text())
    assert values["format"] == "restore-rwkv challenge 1"
    assert values["summaries"][0]["lost"]["count"] == found.summaries[0].lesions
    rows = (tmp_path / "out" / "lesions.csv").read_text().splitlines()
    assert len(rows) == 1 + len(found.lesions)
    with pytest.raises(InputError, match="exists already"):
        files.check()


def test_the_same_request_gives_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / "head.nii.gz"
    write_volume(head(96), path)
    request = ChallengeRequest(scans=(path,), task="mri-sr", contrasts=(10,), places=4)
    first, second = (run_challenge(request, methods={"m": blurring}) for _ in range(2))
    assert first.lesions == second.lesions
    assert first.places == second.places


def test_progress_counts_the_slices_of_all_passes(tmp_path: Path) -> None:
    path = tmp_path / "head.nii.gz"
    write_volume(head(96), path)
    seen: list[tuple[int, int]] = []
    request = ChallengeRequest(scans=(path,), task="mri-sr", contrasts=(10, 20), places=4)
    run_challenge(request, lambda done, every: seen.append((done, every)), methods={"m": blurring})
    assert seen[-1] == (18, 18)  # 6 slices, without lesions and with two kinds


def test_a_method_that_changes_the_grid_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.nii.gz"
    write_volume(head(96), path)
    request = ChallengeRequest(scans=(path,), task="mri-sr", contrasts=(10,))
    with pytest.raises(InputError, match="give one that keeps the grid"):
        run_challenge(request, methods={"m": lambda low: Volume(low.data[::2])})
    with pytest.raises(InputError, match="input: this name is taken"):
        run_challenge(request, methods={"input": blurring})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contrasts": (0.0,)}, "contrasts: 0 makes no lesion"),
        ({"contrasts": (5.0, 5.0)}, "given twice"),
        ({"radii": (-1.0,)}, "radii: -1 makes no lesion"),
        ({"radii": ()}, "radii: there are none"),
        ({"places": 0}, "places"),
        ({"radii": (10.0,)}, "apart is 35 mm, .* give at least 40"),
        ({"factor": 0.5}, "factor is 0.5"),
        ({"scans": ()}, "scans: there are none"),
    ],
)
def test_impossible_requests_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChallengeRequest(**({"scans": (Path("a.nii"),)} | values))  # type: ignore[arg-type]


def low_resolution(scan: Volume) -> Volume:
    return PairedScan.of(scan, MRI).made.low


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (low_resolution, "so it is of low quality already"),
        (lambda scan: Volume(scan.data[::4, ::4], np.diag([6, 6, 5, 1])), "below its pixels"),
    ],
)
def test_scans_that_cannot_be_used_are_refused(
    change: Callable[[Volume], Volume], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "scan.nii.gz"
    write_volume(change(head(192)), path)
    request = ChallengeRequest(scans=(path,), task="mri-sr", contrasts=(10,))
    with pytest.raises(InputError, match=message):
        run_challenge(request, methods={"m": blurring})


def test_crossing_pairs_share_their_noise_and_differ_by_the_lesions() -> None:
    scan = PairedScan.of(head(96), MRI, seed=3)
    sites = find_sites(scan.made.high, MRI, 4, 0)
    lesions = [Lesion(centre=site, radius=5, contrast=20, relative=True) for site in sites]
    pairs = crossing_pairs(scan, lesions, unchanged)
    removed, invented = pairs.removed(), pairs.invented()
    assert removed.before is invented.after
    assert removed.after is invented.before
    assert (removed.factor, removed.axis) == (4, 2)
    change = removed.before.data - removed.after.data
    assert all(change[site] > 40 for site in sites)  # of 120, less what the block does not hold
    assert np.array_equal(pairs.kept().after.data, pairs.before_with.data)
    with pytest.raises(InputError, match="lesions: there are none"):
        crossing_pairs(scan, [], unchanged)


def test_events_of_added_activity_are_added_to_the_same_scan() -> None:
    activity, _ = discs(2)
    added = torch.zeros_like(activity)
    added[:, 20:28, 20:28] = 1.0
    added[:, 12:16, 22:26] = -1.0
    low = reduce_dose(activity, scanner=SCANNER, generator=generator(1))
    same = reduce_dose_with_added(
        activity, torch.zeros_like(activity), scanner=SCANNER, generator=generator(1)
    )
    assert torch.equal(low, same)
    changed = reduce_dose_with_added(activity, added, scanner=SCANNER, generator=generator(1))
    other = reduce_dose(activity + added, scanner=SCANNER, generator=generator(2))
    paired, unpaired = ((image - low - added)[:, 20:28, 20:28].std() for image in (changed, other))
    assert paired < 0.6 * unpaired


@pytest.mark.slow
def test_the_mean_of_scans_with_added_activity_is_that_of_new_scans() -> None:
    activity, _ = discs(1)
    added = torch.zeros_like(activity)
    added[:, 20:28, 20:28] = 1.0
    added[:, 12:16, 22:26] = -1.0
    both = [
        torch.stack([make(seed) for seed in range(24)])
        for make in (
            lambda seed: reduce_dose_with_added(
                activity, added, scanner=SCANNER, generator=generator(seed)
            ),
            lambda seed: reduce_dose(
                activity + added, scanner=SCANNER, generator=generator(seed + 100)
            ),
        )
    ]
    for rows, columns in ((slice(20, 28), slice(20, 28)), (slice(12, 16), slice(22, 26))):
        ours, new = (scans[:, 0, rows, columns].mean(dim=(1, 2)) for scans in both)
        # A new scan of the same duration has 0.6 % more counts for its activity, as counts of a
        # scan are given; beside it are three standard errors.
        error = float((ours.var() / 24 + new.var() / 24).sqrt())
        assert abs(float(ours.mean() - new.mean())) < 3 * error + 0.02
        assert float(ours.std()) == pytest.approx(float(new.std()), rel=0.6)


@pytest.mark.slow
def test_the_noise_of_ct_is_the_same_with_a_faint_lesion() -> None:
    water = ellipses((128, 128), (2.5, 2.5), (0, 0, 130, 90, 40))
    noise = torch.randn((128, 128), generator=torch.Generator().manual_seed(0)) * 6
    data = (water + noise * (water > -500))[..., None].numpy().repeat(2, axis=2)
    scan = Volume(data, np.diag([2.5, 2.5, 5, 1]), unit="HU", modality="CT")
    task = get_task("ct-denoise")
    paired = PairedScan.of(scan, task)
    lesion = Lesion(centre=(64, 64, 0), radius=10, contrast=20, edge=0.8)
    pairs = crossing_pairs(paired, [lesion], unchanged)
    again = task.rules.degrade(
        pairs.truth_with, task, paired.options, torch.Generator().manual_seed(0)
    ).low
    ours = pairs.before_with.data - pairs.truth_with.data
    theirs = again.data - pairs.truth_with.data
    # 2.1 %, as the scanner is calibrated again for the scan with the lesion.
    assert float(np.std(ours - theirs)) < 0.03 * float(np.std(theirs))


def test_rates_have_exact_intervals() -> None:
    none, some = Rate(0, 20), Rate.of([True, False, True, False])
    assert none.interval == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    assert some.share == 0.5
    assert Rate(0, 0).interval is None
