"""Measures of the named protocols against their originals, and where they have no value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal
from skimage import metrics as skimage_metrics

from restore_rwkv import read_volume
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.measures.catalogue import all_measures, measures_named
from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting
from restore_rwkv.evaluation.measures.protocols import PROTOCOL_MEASURES, PROTOCOLS
from restore_rwkv.evaluation.metrics import paper_score
from restore_rwkv.model import sample_scan
from restore_rwkv.tasks import TASKS
from tests.helpers import GOLDEN

Image = NDArray[np.float64]
GOLDEN_ARRAYS = np.load(GOLDEN / "metrics_a.npz")
TASK_OF = {"MRI": "mri-sr", "CT": "ct-denoise", "PET": "pet-synth"}


def value(name: str, restored: Image, truth: Image, task: str = "mri-sr") -> float:
    """A measure of slices, or of volumes where arrays have three axes."""
    setting = Setting(task=TASKS[task], pixel_mm=None, peak=float(truth.max()))
    return measures_named([name])[0].compute(restored, truth, setting)


def pair(task: str, seed: int, shape: tuple[int, ...] = (40, 37)) -> tuple[Image, Image]:
    """Random images, smooth and noisy, that lie within the ranges of the task and beyond."""
    generator = np.random.default_rng(seed)
    low, high = TASKS[task].value_range
    waves = np.cumsum(generator.standard_normal(shape), axis=-1)
    truth = low + (high - low) * (0.4 + 0.2 * waves / np.abs(waves).max(initial=1e-9))
    truth.flat[:: truth.size // 5] = high * 1.3
    within = truth.flat[1::7]
    truth.flat[1::7] = np.linspace(*TASKS[task].metric_range, within.size)
    return truth + (high - low) * 0.02 * generator.standard_normal(shape), truth


def sample() -> tuple[Image, Image]:
    """The sample scan (N, H, W), and the scan with noise."""
    truth = np.moveaxis(read_volume(sample_scan()).data, 2, 0)[:3].astype(np.float64)
    noise = 40 * np.random.default_rng(5).standard_normal(truth.shape)
    return truth + noise, truth


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("modality", TASK_OF)
def test_paper_protocol_is_that_of_the_published_code(modality: str, seed: int) -> None:
    case, task = f"{modality}_{seed}", TASK_OF[modality]
    images = [GOLDEN_ARRAYS[f"{case}_{name}"].astype(float) for name in ("restored", "reference")]
    found = [value(name, *images, task) for name in PROTOCOLS["paper"]]
    # As for `paper_score`: 1.6e-6 relative, as the published code has a float32 window.
    assert found == pytest.approx(GOLDEN_ARRAYS[f"{case}_psnr_ssim_rmse"], rel=4e-6)
    score = paper_score(*images, TASKS[task].metric_range)
    assert found == [score.psnr, score.ssim, score.rmse]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_skimage_protocol_is_scikit_image(task: str, seed: int) -> None:
    restored, truth = pair(task, seed)
    span = float(np.ptp(truth))
    psnr = skimage_metrics.peak_signal_noise_ratio(truth, restored, data_range=span)
    ssim = skimage_metrics.structural_similarity(truth, restored, data_range=span)
    rmse = math.sqrt(skimage_metrics.mean_squared_error(truth, restored))
    found = [value(name, restored, truth, task) for name in PROTOCOLS["skimage"]]
    assert found == pytest.approx([psnr, ssim, rmse], rel=1e-9)


def test_skimage_protocol_is_scikit_image_on_a_scan() -> None:
    for restored, truth in zip(*sample(), strict=True):
        span = float(np.ptp(truth))
        ssim = skimage_metrics.structural_similarity(truth, restored, data_range=span)
        assert value("skimage.ssim", restored, truth) == pytest.approx(ssim, rel=1e-9)


def test_wangs_window_is_not_the_default_of_scikit_image() -> None:
    restored, truth = (stack[0] for stack in sample())
    wang = skimage_metrics.structural_similarity(
        truth,
        restored,
        data_range=float(np.ptp(truth)),
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    assert abs(value("skimage.ssim", restored, truth) - wang) > 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_per_volume_protocol_is_that_of_fastmri(task: str, seed: int) -> None:
    restored, truth = pair(task, seed, (4, 20, 17))
    peak = truth.max()
    psnr = skimage_metrics.peak_signal_noise_ratio(truth, restored, data_range=peak)
    slices = [
        skimage_metrics.structural_similarity(truth[k], restored[k], data_range=peak)
        for k in range(len(truth))
    ]
    nmse = np.linalg.norm(truth - restored) ** 2 / np.linalg.norm(truth) ** 2
    found = [value(name, restored, truth, task) for name in PROTOCOLS["per-volume"]]
    assert found == pytest.approx([psnr, np.mean(slices), nmse], rel=1e-9)


def ssim_by_definition(x: Image, y: Image, data_range: float) -> float:
    """SSIM with the paper's window by a plain two-dimensional convolution."""
    rows, columns = np.mgrid[-5:6, -5:6]
    window = np.exp(-(rows**2 + columns**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image: Image) -> Image:
        return signal.convolve2d(image, window, mode="same")

    mx, my = mean(x), mean(y)
    sxx, syy, sxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    numerator = (2 * mx * my + c1) * (2 * sxy + c2)
    return float((numerator / ((mx**2 + my**2 + c1) * (sxx + syy + c2))).mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_fixed_range_protocol_scores_normalised_values(task: str, seed: int) -> None:
    restored, truth = pair(task, seed)
    low, high = TASKS[task].value_range
    assert max(truth.max(), restored.max()) > high
    u, v = ((np.minimum(np.maximum(a, low), high) - low) / (high - low) for a in (restored, truth))
    square = ((u - v) ** 2).mean()
    expected = [-10 * np.log10(square), ssim_by_definition(u, v, 1.0), (high - low) * square**0.5]
    found = [value(name, restored, truth, task) for name in PROTOCOLS["fixed-range"]]
    assert found == pytest.approx(expected, rel=1e-9)


def test_fixed_range_is_not_the_metric_range() -> None:
    truth = np.full((20, 20), -900.0)
    truth[5:9] = 40
    restored = truth + np.where(truth < 0, 50.0, 0.0)  # in the lung, below the metric range
    with pytest.raises(NoScoreError, match="identical within the range"):
        value("psnr", restored, truth, "ct-denoise")
    assert value("rmse", restored, truth, "ct-denoise") == 0
    found = value("fixed-range.rmse", restored, truth, "ct-denoise")
    assert found == pytest.approx(50 * math.sqrt(16 / 20))


def test_protocols_name_every_measure_once() -> None:
    named = [name for names in PROTOCOLS.values() for name in names]
    assert named == [measure.name for measure in PROTOCOL_MEASURES]
    assert set(named) <= set(all_measures())
    for protocol, names in PROTOCOLS.items():
        assert all(
            "." not in name if protocol == "paper" else name.startswith(f"{protocol}.")
            for name in names
        )
    with pytest.raises(ConfigError, match=r"nearest is 'skimage\.ssim'"):
        measures_named(["skimage.sim"])


REASONS = [
    ("psnr", np.zeros((9, 9)), np.full((9, 9), 3.0), "constant within 0 to 4095"),
    ("psnr", np.full((9, 9), 2.0), -np.arange(81.0).reshape(9, 9), "constant within 0 to 4095"),
    ("ssim", np.zeros((9, 9)), np.full((9, 9), 3.0), "constant within 0 to 4095"),
    ("psnr", np.eye(9), np.eye(9), "identical within the range"),
    ("fixed-range.psnr", np.eye(9), np.eye(9), "images are identical, so PSNR is infinite"),
    ("skimage.psnr", np.eye(9), np.eye(9), "images are identical, so PSNR is infinite"),
    ("skimage.psnr", np.eye(9), np.ones((9, 9)), "the truth is constant"),
    ("skimage.ssim", np.eye(9), np.ones((9, 9)), "the truth is constant"),
    ("skimage.ssim", np.ones((6, 9)), np.eye(6, 9), "6 x 9 pixels, and this SSIM needs at least 7"),
    ("per-volume.psnr", np.eye(9)[None], np.eye(9)[None], "images are identical"),
    ("per-volume.psnr", np.eye(9)[None], -np.eye(9)[None], "truth is not above zero"),
    ("per-volume.ssim", np.eye(9)[None], -np.eye(9)[None], "truth is not above zero"),
    ("per-volume.ssim", np.ones((2, 9, 5)), np.ones((2, 9, 5)), "9 x 5 pixels"),
    ("per-volume.nmse", np.eye(9)[None], np.zeros((1, 9, 9)), "zero everywhere"),
]


@pytest.mark.parametrize(("name", "restored", "truth", "reason"), REASONS)
def test_an_image_without_a_value_has_a_reason(
    name: str, restored: Image, truth: Image, reason: str
) -> None:
    with pytest.raises(NoScoreError, match=reason):
        value(name, restored, truth)


@pytest.mark.parametrize("measure", all_measures().values(), ids=lambda measure: measure.name)
def test_values_that_are_not_finite_are_a_reason(measure: Measure) -> None:
    shape = (2, 180, 180) if measure.of == "volume" else (180, 180)
    truth = np.random.default_rng(0).random(shape)
    broken = truth.copy()
    broken.flat[3] = np.nan
    with pytest.raises(NoScoreError, match="restored image has values that are not finite"):
        value(measure.name, broken, truth)
    with pytest.raises(NoScoreError, match="the truth has values that are not finite"):
        value(measure.name, truth, broken)


@pytest.mark.parametrize("measure", all_measures().values(), ids=lambda measure: measure.name)
def test_images_of_other_shapes_are_refused(measure: Measure) -> None:
    # NumPy would stretch the first slice, row or image over all.
    stack = np.random.default_rng(0).random((3, 200, 200))
    whole, part = (stack, stack[:1]) if measure.of == "volume" else (stack[0], stack[0, :1])
    setting = Setting(task=TASKS["mri-sr"], pixel_mm=None, peak=1.0)
    other = stack[0] if measure.of == "volume" else stack
    for restored, truth in ((part, whole), (whole, part), (other, other), (whole[:0], whole[:0])):
        with pytest.raises((InputError, NoScoreError), match=r"equal|pixels, and"):
            measure.compute(restored, truth, setting)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.float32])
@pytest.mark.parametrize("measure", all_measures().values(), ids=lambda measure: measure.name)
def test_integers_do_not_wrap_around(measure: Measure, dtype: type[np.generic]) -> None:
    generator = np.random.default_rng(0)
    most = 250 if dtype is np.uint8 else 3500
    truth = np.broadcast_to(np.linspace(60, most, 200), (3, 200, 200)).round()
    truth = truth + generator.integers(0, 5, truth.shape)
    restored = truth + generator.integers(-50, 60, truth.shape).clip(None, 250 - most % 250)
    task = {"CT": "ct-denoise", "PT": "pet-synth"}.get((measure.modalities or ("MR",))[0], "mri-sr")
    setting = Setting(task=TASKS[task], pixel_mm=None, peak=float(truth.max()))
    kept = np.s_[:] if measure.of == "volume" else 0

    def outcome(x: Image, y: Image) -> float | str:
        try:
            return measure.compute(x[kept], y[kept], setting)
        except NoScoreError as reason:
            return str(reason)

    found = outcome(restored.astype(dtype), truth.astype(dtype))
    assert found == outcome(restored.astype(dtype).astype(float), truth.astype(dtype).astype(float))


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_ssim_of_windows_inside_keeps_its_digits_far_from_zero(offset: float) -> None:
    generator = np.random.default_rng(0)
    truth = generator.random((64, 64))
    restored = truth + 0.1 * generator.standard_normal(truth.shape)
    span = float(np.ptp(truth))
    # Without luminance, which is 1 there; scikit-image gives 118 at 1e8.
    found = value("skimage.ssim", restored + offset, truth + offset)
    near = skimage_metrics.structural_similarity(truth + 1e3, restored + 1e3, data_range=span)
    assert found == pytest.approx(near, abs=1e-5)


def _shaped(name: str, stack: Image) -> Image:
    return stack if all_measures()[name].of == "volume" else stack[0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), task=st.sampled_from(sorted(TASKS)))
@pytest.mark.parametrize("name", [measure.name for measure in PROTOCOL_MEASURES])
def test_values_are_within_bounds_and_inputs_unchanged(name: str, seed: int, task: str) -> None:
    restored, truth = (_shaped(name, stack) for stack in pair(task, seed, (3, 14, 19)))
    before = restored.copy(), truth.copy()
    low, high = all_measures()[name].bounds
    found = value(name, restored, truth, task)
    assert math.isfinite(found)
    assert low - 1e-12 <= found <= high + 1e-12
    assert (restored == before[0]).all()
    assert (truth == before[1]).all()


@pytest.mark.parametrize("task", TASKS)
def test_identical_images_have_the_best_ssim_and_no_error(task: str) -> None:
    _, stack = pair(task, 7, (3, 30, 30))
    for measure in PROTOCOL_MEASURES:
        truth = _shaped(measure.name, stack)
        if measure.name.endswith("ssim"):
            assert value(measure.name, truth, truth, task) == pytest.approx(1, abs=1e-12)
        elif not measure.name.endswith("psnr"):
            assert value(measure.name, truth, truth, task) == 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", [measure.name for measure in PROTOCOL_MEASURES])
def test_more_of_the_same_noise_is_worse(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = _shaped(name, 1500 + 400 * np.sin(np.arange(3 * 32 * 32) / 9).reshape(3, 32, 32))
    noise = generator.standard_normal(truth.shape)
    found = [value(name, truth + size * noise, truth) for size in (5.0, 25.0, 100.0)]
    better_first = sorted(found, reverse=all_measures()[name].better == "higher")
    assert found == better_first
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    "name", ["fixed-range.psnr", "fixed-range.ssim", "fixed-range.rmse", "rmse", "skimage.rmse"]
)
def test_what_takes_nothing_from_the_truth_is_symmetric(name: str) -> None:
    restored, truth = pair("ct-denoise", 3)
    first, second = value(name, restored, truth), value(name, truth, restored)
    assert first == pytest.approx(second, rel=1e-12)


def test_the_protocols_differ_on_the_same_images() -> None:
    restored, truth = sample()
    found = [
        value(name, _shaped(name, restored), _shaped(name, truth))
        for name in ("ssim", "fixed-range.ssim", "skimage.ssim", "per-volume.ssim")
    ]
    assert min(abs(a - b) for k, a in enumerate(found) for b in found[:k]) > 1e-3
