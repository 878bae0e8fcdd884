"""The benchmarks import, check what they time, and run at small sizes."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restore_rwkv import Volume
from restore_rwkv.data import PreparedSet, SetWriter
from restore_rwkv.evaluation import calibrate
from restore_rwkv.model import RestoreRWKV, read_info, save_weights
from restore_rwkv.restoration.planning import finer
from restore_rwkv.tasks import TASKS, Intervals, PlaceThreshold, ReportCalibration, ScalingRule
from tests.helpers import ROOT

MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))

linux = pytest.mark.skipif(sys.platform != "linux", reason="a mark that can be set back")


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def load(name: str) -> ModuleType:
    """A benchmark; skips the test where a package that only benchmarks need is missing."""
    try:
        return importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("benchmarks", "restore_rwkv"):
            raise
        pytest.skip(f"{error.name} is not installed")


@pytest.fixture
def ct_set(tmp_path: Path) -> Path:
    """A prepared set: squares of 40 HU with white noise of 20 HU."""
    generator = np.random.default_rng(0)
    with SetWriter(tmp_path / "ct-denoise", "squares", "ct-denoise") as writer:
        for split in ("train", "validation", "test"):
            high = np.full((4, 48, 40), -40.0)
            high[:, 10:30, 10:30] = 40
            low = high + 20 * generator.standard_normal(high.shape)
            writer.add(split, split, split, high, low)
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_imports(name: str) -> None:
    load(name)


@pytest.mark.slow
def test_times_are_within_the_budget() -> None:
    timing = load("timing")
    calls: list[float] = []
    found = timing.measured(lambda: calls.append(time.sleep(0.01) or 0.0), repeats=3)
    assert (len(found.seconds), len(calls)) == (3, 4)
    assert timing.figures(found.seconds).count("-") == 1
    assert timing.figures([0.00123456, 1.5, 1234.5]) == "1.50 (0.00123-1234)"
    one = timing.measured(lambda: time.sleep(0.01), budget=0.015)
    assert len(one.seconds) == 1
    assert timing.figures(one.seconds).endswith("(one call)")


@linux
def test_peak_is_that_of_the_call_alone() -> None:
    timing = load("timing")
    held = np.ones(4 << 20)
    peak = timing.peak_bytes(lambda: np.ones(8 << 20).sum())
    assert peak == pytest.approx(64 << 20, rel=0.05)
    assert held.sum() == 4 << 20


@linux
@pytest.mark.slow
def test_what_cannot_run_is_left_out_with_its_reason() -> None:
    timing = load("timing")
    with pytest.raises(timing.LeftOutError, match="no_such_package"):
        timing.in_fresh_process(importlib.import_module, "no_such_package")
    with pytest.raises(timing.LeftOutError, match="killed"):
        timing.in_fresh_process(os._exit, 1)
    with pytest.raises(TypeError) as raised:
        timing.in_fresh_process(int, None)
    assert "Traceback" in str(raised.value.__cause__)  # of the other process
    with pytest.raises(SystemExit, match="a check fails"):
        timing.in_fresh_process(sys.exit, "a check fails")
    with pytest.raises(TypeError, match="__import__: what it gives cannot be sent"):
        timing.in_fresh_process(__import__, "os")
    assert timing.in_fresh_process(int, "3") == 3


def test_slope_and_limits_of_scaling(tmp_path: Path) -> None:
    scaling, timing = load("scaling"), load("timing")
    done = {n: timing.Measured([2e-6 * n * n], 100 * n * n) for n in (64, 128, 256)}
    assert scaling.slope(done) == pytest.approx(1)
    assert scaling.too_much({}, 512, 1.0, "cpu") is None
    assert scaling.too_much(done, 512, 1.0, "cpu") is None
    assert "above --longest 0.5" in scaling.too_much(done, 512, 0.5, "cpu")
    assert "GiB" in scaling.too_much(done, 1 << 20, 1e9, "cpu")
    scaling.draw({"light": done, "base": done}, "title", tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["light", "Restormer-light"])
def test_scaling_checks_forms(name: str) -> None:
    if name != "light":
        pytest.importorskip("monai", reason="benchmarks only")
        pytest.importorskip("einops", reason="benchmarks only")
    assert load("scaling").check(name, "cpu") < 1e-4


@pytest.mark.parametrize("name", ["Re-WKV", "softmax, plain", "softmax, tiled"])
def test_quadratic_checks_each_attention(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quadratic = load("quadratic")
    assert quadratic.check(name, 8, "cpu") < 1e-5
    monkeypatch.setitem(quadratic.ATTENTIONS, name, lambda x: x.v)
    with pytest.raises(SystemExit, match="differs from its equation"):
        quadratic.check(name, 8, "cpu")


@linux
@pytest.mark.slow
def test_quadratic_says_where_the_plain_form_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    sizes = ["--sizes", "16", "32", "96", "--cap", "200MB", "--channels", "8"]
    load("quadratic").main([*sizes, "--only", "softmax, plain", "Re-WKV", "--out", str(plot)])
    printed = capsys.readouterr().out
    assert "| softmax, plain | 32 x 32 | 0.0" in printed
    assert "| softmax, plain | 96 x 96 | fails: asks for 0.3 GiB at once, 0.2 GiB are" in printed
    assert "| Re-WKV | 96 x 96 | 0.0" in printed
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_step_checks_its_loss(precision: str) -> None:
    pytest.importorskip("lightning_fabric")
    training_step = load("training_step")
    words = {"device": "cpu", "precision": precision}
    training_step.check("light", words)
    try:
        training_step.check("light, checkpointed", words)
    except load("timing").LeftOutError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["light", "DnCNN", "non-local means", "total variation"])
def test_peers_check_their_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in ("light", "DnCNN"):
        pytest.importorskip("skimage", reason="benchmarks only")
    peers = load("peers")
    peers.check(name, "cpu")
    monkeypatch.setattr(peers, "build", lambda *_: lambda stack: np.full_like(stack, np.nan))
    with pytest.raises(SystemExit, match="not finite"):
        peers.check(name, "cpu")


def test_fewer_slices_are_marked() -> None:
    peers, timing = load("peers"), load("timing")
    volume = timing.Measured([2.0], None)
    assert peers.of_volume(volume, 100, 100) == "2.00 (one call)"
    assert peers.of_volume(volume, 5, 100) == "per slice x 100: 40.0 (one call) (from 5 slices)"


def test_psnr_by_the_protocol_of_evaluation(ct_set: Path) -> None:
    pytest.importorskip("skimage", reason="benchmarks only")
    quality = load("quality")
    before = quality.input_psnr(ct_set)
    assert before == pytest.approx(20 * np.log10(80 / 20), abs=0.5)
    assert float(quality.psnr("total variation", ct_set, "cpu").split()[0]) > before + 6
    assert quality.psnr("DnCNN", ct_set, "cpu") == "untrained"
    assert float(quality.psnr("light", ct_set, "cpu")) > before


def test_a_coarse_scan_on_the_finer_grid_is_scored_at_the_places_of_the_truth() -> None:
    consistency = load("consistency")
    rows, columns = (np.linspace(0, 2 * np.pi, n, endpoint=False) for n in (40, 64))
    smooth = 900 + 300 * np.cos(2 * rows)[:, None] * np.sin(3 * columns + 1)
    high = Volume(smooth[..., None], modality="MR")
    fine = finer(consistency.coarse(high), 2, 4.0)
    assert consistency.scored(fine, high, True).psnr > 100
    assert consistency.scored(fine, high, False).psnr < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("scaling", ["--sizes", "32", "64", "--only", "light"], "| light | 64 x 64 |"),
        ("training_step", ["--size", "32", "--batch", "2", "--only", "light"], "| light | 0."),
        ("peers", ["--size", "48", "--slices", "3", "--only", "light", "DnCNN"], "| DnCNN | 0."),
    ],
)
def test_commands_print_their_tables(
    name: str,
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if name == "scaling":
        arguments = [*arguments, "--out", str(tmp_path / "plot.png")]
    load(name).main(arguments)
    printed = capsys.readouterr().out
    assert printed.startswith(f"`python -m benchmarks.{name} ")
    assert expected in printed
    assert "left out" not in printed


@pytest.mark.slow
def test_peers_print_the_psnr_of_a_set(ct_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("peers").main(
        ["--size", "32", "--slices", "2", "--only", "light", "--data", str(ct_set), "--cap", "1"]
    )
    printed = capsys.readouterr().out
    assert "PSNR of the input: 12." in printed
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_a_step_is_compared_with_plain_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    load("step").main(["--size", "16", "--batch", "1", "--repeats", "2"])
    printed = capsys.readouterr().out
    assert "largest errors of gradients" in printed
    assert "| all |" in printed


def test_the_strength_is_calibrated_from_the_scaled_noise_of_a_set(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    """A quarter of the dose adds sqrt(3) of the noise of full quality, here 10 HU."""
    strength = load("strength")
    generator = np.random.default_rng(1)
    with SetWriter(tmp_path / "noisy" / "ct-denoise", "squares", "ct-denoise") as writer:
        high = 10 * generator.standard_normal((3, 64, 64))
        low = high + 17.3 * generator.standard_normal(high.shape)
        for name, split in (("a", "validation"), ("b", "train")):
            writer.add(name, name, split, high, low)
    weights, rule = tmp_path / "w.safetensors", {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    save_weights(weights, tiny_network, scaling=rule, training={})
    task = TASKS["ct-denoise"]
    measured, reference = strength.measure(task, weights, tmp_path / "noisy")
    assert [gains.level for gains in measured] == list(strength.LEVELS)
    quarter = 1 + (np.array(strength.LEVELS) / 10) ** 2
    assert [gains.told.factor for gains in measured] == pytest.approx(quarter, rel=0.05)
    curve = calibrate(measured, reference)
    assert curve.reference == pytest.approx(10, rel=0.05)
    lines = strength.table(measured, curve, task)
    assert len(lines) == len(strength.LEVELS) + 4
    panels = strength.curves(measured, curve, task)
    assert [min(gain for _, gain in points) >= 0 for points in panels.popitem()[1].values()] == [
        False,
        True,
        True,
    ]


def test_ranges_are_measured_in_the_training_subjects_and_tell_other_images(
    tiny_network: RestoreRWKV, tmp_path: Path
) -> None:
    fit, generator = load("fit"), np.random.default_rng(1)
    with SetWriter(tmp_path / "noisy" / "ct-denoise", "squares", "ct-denoise") as writer:
        for name, split, added in (("a", "train", 18.0), ("b", "train", 24.0), ("c", "test", 20.0)):
            high = 8 * generator.standard_normal((3, 64, 64))
            writer.add(
                *(name, name, split, high, high + added * generator.standard_normal(high.shape)),
                spacing=(5.0, 0.7, 0.7),
            )
    weights, rule = tmp_path / "w.safetensors", {"ct-denoise": ScalingRule("fixed", 0.0, 40.0)}
    info = save_weights(weights, tiny_network, scaling=rule, training={})
    ranges = fit.ranges_of(info, tmp_path / "noisy")
    low, high_end = ranges["ct-denoise"]["noise"]
    assert (low, high_end) == pytest.approx((np.hypot(8, 18), np.hypot(8, 24)), rel=0.06)
    levels = {"recipe": {"data": {"noise": [2.0, 40.0]}}}
    told = fit.ranges_of(dataclasses.replace(info, training=levels), tmp_path / "noisy")
    found = told["ct-denoise"]["noise"]
    assert found == pytest.approx((np.hypot(8, 2), np.hypot(8, 40)), rel=0.06)
    prepared = PreparedSet.read(tmp_path / "noisy" / "ct-denoise")
    rows = fit.table(prepared, ranges["ct-denoise"], None)
    assert rows[2] == "| 1/4 of the dose | 2, 0, 0 | 1, 0, 0 |"
    assert rows[3] == "| full dose | 0, 2, 0 | 0, 1, 0 |"


def test_intervals_are_calibrated_and_stored_beside_what_the_weights_have(
    tiny_network: RestoreRWKV, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, generator = load("intervals"), np.random.default_rng(0)
    with SetWriter(tmp_path / "mri-sr", "blobs", "mri-sr") as writer:
        for split in ("train", "validation", "test"):
            high = gaussian_filter(generator.uniform(0, 1, (6, 48, 40)), (0, 2, 2)) - 0.45
            high = 4000 * high.clip(min=0) + generator.uniform(0, 5, high.shape)
            writer.add(split, split, split, high, spacing=(3.0, 1.0, 1.0))
    weights, places = (
        tmp_path / "w.safetensors",
        PlaceThreshold(threshold=3.0, false_alarms=0.1, slices=20),
    )
    known = Intervals(
        **{"method": "bootstrap", "level": 0.9, "factors": {"all": 1.0}, "floor": 0.1},
        **{"subjects": 1, "pixels": 9, "coverage": 0.9},
    )
    before = ReportCalibration(intervals=(known,), places=places)
    save_weights(
        weights,
        tiny_network,
        scaling={"mri-sr": ScalingRule("robust")},
        training={},
        report={"mri-sr": before},
    )
    words = ["intervals", str(weights), str(tmp_path), "--method", "turns", "--slices", "6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        module.main()
        assert read_info(weights).report == {"mri-sr": before}
        patch.setattr(sys, "argv", [*words, "--write"])
        module.main()
    printed = capsys.readouterr().out
    assert "## w, `mri-sr`, turns" in printed
    assert "| pixels | validation, held out: held % (95 %), 3 slices |" in printed
    after = read_info(weights).report["mri-sr"]
    assert after.places == places
    assert after.intervals_by("bootstrap") == known
    found = after.intervals_by("turns")
    assert found is not None
    assert set(found.factors) == {"background", "dark", "bright"}
    assert found.pixels == 3 * 48 * 40


@pytest.mark.slow
def test_another_scan_of_a_person_fits_and_another_person_does_not() -> None:
    module = load("other_person")
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (28, 32, 24)), indexing="ij"))
    near = ((place / np.array([0.6, 0.8, 0.7])[:, None, None, None]) ** 2).sum(0) < 1

    def person(seed: int) -> Volume:
        texture = gaussian_filter(np.random.default_rng(seed).normal(size=near.shape), 2)
        values = np.where(near, 300 + 100 * texture / texture.std(), 0).clip(0)
        return Volume(values.astype(np.float32), np.diag([-5.0, -5.0, 6.5, 1.0]))

    one, other = person(0), person(1)
    same = module.registered(module.body(one), module.body(module.again(one, other)))
    different = module.registered(module.body(one), module.body(other))
    assert same[0] > 0.9 > 0.6 > different[0]


def test_a_run_is_preceded_by_the_one_it_starts_from(tmp_path: Path) -> None:
    shipped = load("train_shipped")
    start, name = "light-mri-sr-start", "light-mri-sr"
    assert shipped.unfinished([name], tmp_path) == [start, name]
    for run in (start, name):
        (tmp_path / run).mkdir()
        iterations = shipped.recipe_of(run).training.iterations
        (tmp_path / run / "log.csv").write_text(f"iteration\n{iterations}\n")
        left = {start: [name], name: []}[run]
        assert shipped.unfinished([name], tmp_path) == left
    begins = shipped.recipe_of(name, tmp_path).training.init_from
    assert begins == str(tmp_path / start / "best.safetensors")
