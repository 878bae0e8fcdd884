"""What waits for a GPU: packed slices, the plan of the time, and the figures, on a CPU."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu_published, gpu_rows, gpu_summary, gpu_training, on_gpu, pack
from benchmarks.gpu_machine import missing
from benchmarks.train_shipped import SHIPPED, recipe_of
from restore_rwkv.data import PreparedSet, SetWriter
from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.ops import bi_wkv
from restore_rwkv.training.pairs import Batch


def test_packed_slices_become_prepared_sets_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "EVERY", {"ct-denoise": 2})
    generator = np.random.default_rng(0)
    with SetWriter(tmp_path / "sets" / "ct-denoise", "squares", "ct-denoise") as writer:
        for split in ("train", "validation", "test"):
            high = generator.integers(-100, 100, (4, 24, 20)).astype(np.int16)
            low = high + 20 * generator.standard_normal(high.shape)
            writer.add(split, split, split, high, low)
    said = pack.pack(tmp_path / "sets", tmp_path / "x.zip")
    assert "2 slices for train, 4 slices for validation" in said
    (folder,) = pack.unpack(tmp_path / "x.zip", tmp_path / "again")
    before, after = PreparedSet.read(writer.folder), PreparedSet.read(folder)
    after.verify()
    assert [stack.split for stack in after.stacks] == ["train", "validation"]
    for stack, slices in zip(after.stacks, ([1, 3], [0, 1, 2, 3]), strict=True):
        whole = next(x for x in before.stacks if x.name == stack.name)
        assert stack.robust_scale == whole.robust_scale
        assert stack.origin["packed_slices"] == slices
        np.testing.assert_array_equal(
            after.images(stack, "high"), before.images(whole, "high")[slices]
        )
        low = before.images(whole, "low")[slices]
        assert np.abs(after.images(stack, "low") - low).max() <= 0.5
    with pytest.raises(InputError, match="more than"):
        pack.pack(tmp_path / "sets", tmp_path / "x.zip", megabytes=1e-3)
    (tmp_path / "y.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match="not a packed file"):
        pack.unpack(tmp_path / "y.zip", tmp_path / "never")


def test_stages_share_the_time_and_pass_on_what_they_leave(tmp_path: Path) -> None:
    assert set(on_gpu.RECIPES) == set(SHIPPED)
    words = on_gpu.options().parse_args(["--out", str(tmp_path), "--device", "cpu", "--batch", "2"])
    stages = on_gpu.stages(words, tmp_path / "work")
    assert [stage.name for stage in stages] == ["tests", "operator", "network", *on_gpu.RECIPES]
    weights = [stage.weight for stage in stages]
    left, seconds = 780.0, []
    for i in range(len(stages)):
        seconds.append(on_gpu.allowance(left, weights[i:]))
        left -= seconds[-1] / 2
    assert seconds[0] == pytest.approx(90)
    assert seconds[1] > 60
    assert left > 0
    assert on_gpu.allowance(-5.0, weights) == 0


def test_a_schedule_fits_the_time_of_steps_and_validations() -> None:
    for per_step, per_validation in ((0.05, 0.5), (0.05, 20.0), (2.0, 0.1)):
        schedule = gpu_training.Schedule.within(240.0, per_step, per_validation)
        validations = -(-schedule.iterations // schedule.validate_every)
        took = schedule.iterations * per_step + validations * per_validation
        assert 200 < took <= 240
    recipe = gpu_training.gpu_recipe(
        recipe_of("patch2-mri-sr"), gpu_training.Schedule(5000, 900), 32, 128
    )
    assert (recipe.data.stages, recipe.data.crop_at(0)) == ((), 128)
    assert recipe.training.batch_size == 32
    assert recipe.training.optimizer == "muon"
    fine = gpu_training.gpu_recipe(
        recipe_of("light-mri-sr"), gpu_training.Schedule(5000, 900), 32, 128
    )
    assert (fine.training.init_from, fine.training.matrix_rate) == ("", 0.02)


def test_what_is_not_installed_is_named() -> None:
    assert "no-such-package" in missing({"no_such_module": "no-such-package"}, cuda=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="groups of processes")
def test_a_stage_is_cut_off_and_leaves_what_it_has(tmp_path: Path) -> None:
    results = on_gpu.Results(tmp_path / "out", tmp_path / "zips", tmp_path)
    results.write("machine.json", {"device": "none"})
    code = "import time; print('began', flush=True); time.sleep(60)"
    row = on_gpu.run(on_gpu.Stage("tests", 1.0, ["-c", code]), 2.0, results)
    assert row["ended"] == "cut off"
    assert row["seconds"] < 5
    assert (tmp_path / "out" / "tests.txt").read_text().startswith("began")
    results.stages.append(row)
    results.update()
    assert "| tests |" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "zips" / "results.zip").is_file()


def test_figures_on_a_gpu_are_rows_of_json(tmp_path: Path) -> None:
    table = gpu_rows.Rows(tmp_path / "operator.json", time.time() + 60)
    operator = bi_wkv
    table.add({"backend": "auto"}, lambda: gpu_rows.gradient_errors(operator))
    shape = (2, 64, 8)
    named = {"backend": "auto", "batch": 2, "tokens": 64, "channels": 8, "dtype": "float32"}
    table.add(named, lambda: gpu_rows.operator_row(operator, "auto", shape, torch.float32, "cpu"))
    wrong = gpu_rows.operator_row(lambda w, u, k, v: k, "wrong", shape, torch.float32, "cpu")
    assert "left_out" in wrong
    table.add({"backend": "broken"}, lambda: [][0])
    assert table.rows[0]["correct"]
    page = gpu_summary.summary(tmp_path)
    assert "| auto | 2 | 64 | 8 | float32 |" in page
    assert "broken: left out: IndexError" in page
    with pytest.raises(ConfigError, match="holds no published kernel"):
        gpu_published.operator(tmp_path)


@pytest.mark.parametrize("weight", [None, torch.ones(2)])
def test_a_batch_is_moved_whole_with_and_without_weights(weight: torch.Tensor | None) -> None:
    """Lightning moves it to a GPU in the same way; the device without memory stands for one."""
    utilities = pytest.importorskip("lightning_fabric.utilities")
    batch = Batch(torch.ones(2), torch.zeros(2), weight)
    moved = utilities.move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.low.is_meta
    assert moved.high.is_meta
    assert moved.weight is None if weight is None else moved.weight.is_meta
