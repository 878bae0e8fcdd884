from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from restore_rwkv.data import SetWriter
from restore_rwkv.errors import ConfigError, InputError, TrainingError
from restore_rwkv.model import load_weights
from restore_rwkv.tasks import ScalingRule
from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.recipe import Recipe, TrainingRecipe
from restore_rwkv.training.state import Trainer, learning_rate

NETWORK = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "hidden_rate": 2}

# Settings with which the network is better than its input after one validation.
LEARNS = {"start_at_identity": True}


def ball(slices: int, seed: int = 0) -> np.ndarray:
    """Return slices (N, 40, 40) of a textured ball in air."""
    x = np.linspace(-1, 1, 40)
    inside = x[:, None] ** 2 + x**2 < 0.7
    texture = np.random.default_rng(seed).uniform(300, 900, (slices, 40, 40))
    return np.rint(inside * texture).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write a prepared set for each task into one folder."""
    folder = tmp_path / "data"
    for task in ("mri-sr", "ct-denoise", "pet-synth"):
        with SetWriter(folder / task, "balls", task) as writer:
            for split, patient in (("train", "a"), ("validation", "b")):
                high = ball(6, len(split)) / {"mri-sr": 1, "ct-denoise": 10, "pet-synth": 100}[task]
                shift = {"ct-denoise": 4, "pet-synth": 0.05}.get(task)
                low = None if shift is None else high + np.float32(shift)
                writer.add(patient, patient, split, high, low)  # type: ignore[arg-type]
    return folder


def recipe(iterations: int = 6, task: str = "mri-sr", **settings: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "task": task,
            "network": NETWORK,
            "seed": 3,
            "scaling": "own",
            "data": {"crop": 32, "validation_slices": 2, "augment": True, "balance": "tasks"},
            "training": {
                "iterations": iterations,
                "batch_size": 2,
                "learning_rate": 2e-3,
                "validate_every": 2,
                "ema": 0.5,
                **settings,
            },
        }
    )


def trainer_of(plan: Recipe) -> Trainer:
    return Trainer(plan, Machine().fabric(plan.training.precision))


def log_without_times(path: Path) -> list[dict[str, str]]:
    times = ("seconds", "waiting", "cpu_hours")
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in times} for row in csv.DictReader(file)]


class _KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "settings"),
    [
        ("32-true", {}),
        ("bf16-mixed", {}),
        ("32-true", {"optimizer": "muon", "matrix_rate": 0.02}),
        ("32-true", {"optimizer": "adamw", "weight_decay": 0.1, "matrix_rate": 1e-3}),
    ],
)
def test_a_killed_run_goes_on_bit_exactly(
    data: Path, tmp_path: Path, precision: str, settings: dict[str, Any]
) -> None:
    def kill(step: Step) -> None:
        if step.iteration == 5:
            raise _KilledError

    plan = recipe(6, "ct-denoise", clip=1.0, precision=precision, **LEARNS, **settings)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(plan, [data], whole)
    with pytest.raises(_KilledError):
        train(plan, [data], halves, report=kill)
    train(plan, [data], halves)
    for name in ("last.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes(), name
    rows = [log_without_times(run / "log.csv") for run in (whole, halves)]
    assert [row["iteration"] for row in rows[0]] == ["2", "4", "6"]
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_that_resumes_bit_exactly(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt(step: Step) -> None:
        if step.iteration == 3 and not stopped:
            stopped.append(step.iteration)
            os.kill(os.getpid(), number)

    stopped: list[int] = []
    plan = recipe(6, "ct-denoise", validate_every=5, optimizer="muon", matrix_rate=0.02, **LEARNS)
    train(plan, [data], tmp_path / "whole")
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as ended:
        train(plan, [data], tmp_path / "halves", report=interrupt)
    assert signal.getsignal(number) == before
    if number == signal.SIGTERM:
        assert ended.value.code == 128 + signal.SIGTERM  # type: ignore[attr-defined]
    steps: list[Step] = []
    train(plan, [data], tmp_path / "halves", report=steps.append)
    assert steps[0].iteration == 4
    for name in ("last.safetensors", "best.safetensors"):
        files = [(tmp_path / run / name).read_bytes() for run in ("whole", "halves")]
        assert files[0] == files[1], name
    logs = [(tmp_path / run / "log.csv").read_text().splitlines() for run in ("whole", "halves")]
    for row, other in zip(*map(csv.DictReader, logs), strict=True):
        assert (row["loss"], row["psnr"]) == (other["loss"], other["psnr"])
    record = json.loads((tmp_path / "halves" / "run.json").read_text())
    assert [start["iteration"] for start in record["starts"]] == [0, 3]
    assert Recipe.from_dict(record["recipe"]) == plan
    assert record["starts"][0]["versions"]["torch"] == torch.__version__


@pytest.mark.slow
def test_training_starts_from_other_weights(data: Path, tmp_path: Path) -> None:
    first = train(recipe(2, "ct-denoise", **LEARNS), [data], tmp_path / "first")
    assert first is not None
    network, info = load_weights(first)
    plan = recipe(2, "ct-denoise", init_from=str(first))
    image = torch.rand(1, 1, 32, 32)
    started = trainer_of(plan)
    torch.testing.assert_close(started.network(image), network(image))
    assert not started.network.is_merged
    second = train(plan, [data], tmp_path / "second")
    assert second is not None
    assert load_weights(second)[1].training["started_from"]["sha256"] == info.sha256
    other = dataclasses.replace(plan, network=dataclasses.replace(plan.network, dim=8))
    with pytest.raises(ConfigError, match=r"init_from .* is of another network"):
        trainer_of(other)
    first.unlink()  # a run that resumes does not need it
    longer = dataclasses.replace(plan, training=dataclasses.replace(plan.training, iterations=8))
    resumed = train(longer, [data], tmp_path / "second")
    assert resumed is not None
    assert load_weights(resumed)[1].training["started_from"]["sha256"] == info.sha256


@pytest.mark.slow
def test_weights_that_lose_to_the_input_are_not_kept(data: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    assert train(recipe(2), [data], tmp_path / "run", report=steps.append) is None
    assert steps[-1].validation is not None
    assert not steps[-1].validation.beats_input
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_another_optimizer_does_not_resume(data: Path, tmp_path: Path) -> None:
    train(recipe(2), [data], tmp_path / "run")
    with pytest.raises(ConfigError, match="was trained with another optimizer"):
        train(recipe(4, optimizer="muon", matrix_rate=0.02), [data], tmp_path / "run")


def test_weights_in_the_loss_scale_the_errors() -> None:
    low, high = torch.rand(2, 2, 1, 32, 32)
    whole, half, none = (
        trainer_of(recipe(start_at_identity=True)).step(low, high, weight)
        for weight in (None, torch.full_like(low, 0.5), torch.zeros_like(low))
    )
    assert half == pytest.approx(whole / 2)
    assert none == 0


def test_the_loss_is_the_mean_absolute_or_squared_error() -> None:
    low, high = torch.rand(2, 2, 1, 32, 32)
    weight = torch.rand(2, 1, 32, 32)
    for loss, power in (("l1", 1), ("l2", 2)):
        for weights in (None, weight):
            trainer = trainer_of(recipe(start_at_identity=True, loss=loss))
            errors = (low - high).abs() ** power
            expected = errors.mean() if weights is None else (weights * errors).mean()
            assert trainer.step(low, high, weights) == pytest.approx(float(expected))


def test_a_network_is_trained_with_the_level_of_the_noise() -> None:
    """The level has a gradient of its own, so that it changes the result."""
    plan = recipe(learning_rate=1e-2)
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, noise_level=True))
    low, high = torch.rand(2, 2, 1, 32, 32)
    trainers = [trainer_of(plan) for _ in range(2)]
    for trainer, levels in zip(trainers, ([-1.0, 1.0], [1.0, -1.0]), strict=True):
        trainer.step(low, high, noise_level=torch.tensor(levels))
    first, second = (trainer.network.patch_embed.weight[:, 1] for trainer in trainers)
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_steps_on_one_batch_lower_its_loss() -> None:
    trainer = trainer_of(recipe(60, learning_rate=1e-2))
    high = 10 * torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = [trainer.step(0.7 * high + 1, high) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_network_can_start_at_the_identity() -> None:
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(trainer_of(recipe(start_at_identity=True)).network(image), image)
    assert not torch.equal(trainer_of(recipe()).network(image), image)


def test_checkpoints_of_activations_make_the_same_steps() -> None:
    low, high = torch.rand(2, 2, 1, 16, 16)
    weights = []
    for checkpointed in (False, True):
        trainer = trainer_of(recipe(checkpoint_activations=checkpointed))
        assert trainer.network.checkpoint_activations is checkpointed
        for _ in range(2):
            trainer.step(low, high)
        weights.append(trainer.network.state_dict())
    assert all(torch.equal(x, weights[1][name]) for name, x in weights[0].items())


def test_clipping_bounds_the_first_step_of_the_average_gradient() -> None:
    low, high = torch.ones(2, 1, 32, 32), torch.full((2, 1, 32, 32), 500.0)
    trainer = trainer_of(recipe(clip=1e-3))
    trainer.step(low, high)
    norms = [parameter.grad.norm() for parameter in trainer.network.parameters()]
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.slow
def test_one_network_for_all_tasks(data: Path, tmp_path: Path) -> None:
    """Each task keeps its scaling, and is validated in its own units."""
    steps: list[Step] = []
    plan = recipe(2, "all-in-one", **LEARNS | {"learning_rate": 1e-4})
    best = train(plan, [data], tmp_path / "run", report=steps.append)
    assert best is not None
    network, info = load_weights(best)
    assert network.is_merged
    assert info.scaling == {
        "mri-sr": ScalingRule("robust"),
        "ct-denoise": ScalingRule("fixed", 0.0, 40.0),
        "pet-synth": ScalingRule("fixed", 0.0, 0.5),
    }
    assert info.training["iteration"] == 2
    assert info.training["recipe"]["seed"] == 3
    assert [entry["task"] for entry in info.training["data"]] == [
        "ct-denoise",
        "mri-sr",
        "pet-synth",
    ]
    assert steps[0].validation is None
    assert steps[-1].validation is not None
    last = steps[-1].validation.columns
    psnr = [last[f"{task}.psnr"] for task in info.scaling]
    assert last["psnr"] == pytest.approx(sum(psnr) / 3)
    assert last["pet-synth.rmse"] < 5 < last["mri-sr.rmse"]  # SUV, and units of some hundred


def test_a_run_leaves_logs_and_pictures(data: Path, tmp_path: Path) -> None:
    train(recipe(4), [data], tmp_path / "run")
    folder = tmp_path / "run"
    with Image.open(folder / "curve.png") as curve, Image.open(folder / "validation.png") as grid:
        assert curve.width > 500
        assert grid.width > 500
    rows = log_without_times(folder / "log.csv")
    assert float(rows[-1]["mri-sr.gain"]) < 100
    (events,) = (folder / "tensorboard").iterdir()
    scalars = tags_of(events)
    assert {"loss", "psnr", "mri-sr.ssim", "waiting"} <= scalars


def tags_of(path: Path) -> set[str]:
    """Return the names of the scalars in a TensorBoard event file."""
    from tensorboardX.proto.event_pb2 import Event

    content, tags, place = path.read_bytes(), set(), 0
    while place < len(content):  # records: length (8 bytes), checksum (4), data, checksum (4)
        length = int.from_bytes(content[place : place + 8], "little")
        event = Event.FromString(content[place + 12 : place + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        place += 16 + length
    return tags


def test_each_iteration_tells_its_share_of_waiting(data: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    train(recipe(6), [data], tmp_path / "run", report=steps.append)
    assert all(0 < step.waiting < 1 for step in steps)


@pytest.mark.slow
def test_workers_give_the_same_batches(data: Path, tmp_path: Path) -> None:
    train(recipe(2), [data], tmp_path / "single")
    train(recipe(2), [data], tmp_path / "worker", machine=Machine(workers=1))
    first, second = (
        (tmp_path / run / "last.safetensors").read_bytes() for run in ("single", "worker")
    )
    assert first == second


def on_two_processes(plan: Recipe, data: Path, output: str, folder: Path) -> Any:
    """Train on the CPU over gloo in two processes, as torchrun starts them.

    `RANK` in `output` is replaced by the rank of each process.
    """
    script = folder / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "from restore_rwkv.training.recipe import Recipe\n"
        "from restore_rwkv.training.loop import train\n"
        "plan = Recipe.from_dict(json.loads(open(sys.argv[1]).read()))\n"
        "train(plan, [sys.argv[2]], sys.argv[3].replace('RANK', os.environ['RANK']))\n"
    )
    (folder / "plan.json").write_text(json.dumps(plan.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [script, folder / "plan.json", data, folder / output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*command, *map(str, words)], capture_output=True, text=True, timeout=240, env=environment
    )


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(data: Path, tmp_path: Path) -> None:
    plan = recipe(4, "all-in-one", batch_size=4, clip=1.0)
    train(plan, [data], tmp_path / "one")
    result = on_two_processes(plan, data, "two", tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    first, second = (load_file(tmp_path / run / "last.safetensors") for run in ("one", "two"))
    for name, tensor in first.items():
        if name.startswith("network"):
            # The sum of two means differs in its last bits, and Adam divides by small numbers.
            torch.testing.assert_close(second[name], tensor, rtol=0, atol=2e-4)
    rows = [log_without_times(tmp_path / run / "log.csv") for run in ("one", "two")]
    for a, b in zip(*rows, strict=True):
        for column in a:
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-3), column


@pytest.mark.slow
@pytest.mark.parametrize("workers", [-1, 99999])
def test_a_storm_of_workers_is_refused(workers: int) -> None:
    with pytest.raises(ConfigError, match=rf"workers is {workers}; give a whole number from 0 to "):
        Machine(workers=workers)


@pytest.mark.slow
def test_processes_that_find_different_checkpoints_are_refused(data: Path, tmp_path: Path) -> None:
    """Simulate two machines without a shared file system."""
    train(recipe(2), [data], tmp_path / "run0")
    result = on_two_processes(recipe(4), data, "runRANK", tmp_path)
    assert result.returncode != 0
    assert "use an output folder that all machines share" in result.stderr
    assert not (tmp_path / "run1" / "last.safetensors").exists()


def test_the_rate_warms_up_then_anneals_to_the_final_rate() -> None:
    settings = TrainingRecipe(iterations=100, learning_rate=1e-3, warm_up=9)
    rates = [learning_rate(settings, i) for i in range(101)]
    assert rates[0] == pytest.approx(1e-4, rel=1e-3)
    assert max(rates) == rates[9]
    assert rates[100] == pytest.approx(1e-6)
    assert all(a > b for a, b in pairwise(rates[9:]))


def test_a_checkpoint_of_another_recipe_or_other_data_is_refused(
    data: Path, tmp_path: Path
) -> None:
    train(recipe(2), [data], tmp_path / "run")
    other = dataclasses.replace(recipe(4), seed=4)
    with pytest.raises(ConfigError, match="trained with another seed"):
        train(other, [data], tmp_path / "run")
    with SetWriter(tmp_path / "more" / "mri-sr", "other", "mri-sr") as writer:
        writer.add("a", "a", "train", ball(3, 1))
        writer.add("b", "b", "validation", ball(3, 2))
    with pytest.raises(ConfigError, match="trained with another set of data"):
        train(recipe(4), [tmp_path / "more"], tmp_path / "run")


def test_a_broken_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match=r"last\.safetensors: not a checkpoint"):
        train(recipe(2), [data], tmp_path / "run")


def test_a_loss_that_is_not_finite_names_the_batch_and_changes_nothing() -> None:
    trainer = trainer_of(recipe())
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    batch = torch.rand(1, 1, 32, 32)
    with pytest.raises(TrainingError, match="iteration 0: the loss is nan, on the batch a slice 3"):
        trainer.step(batch * torch.nan, batch, names=lambda: "a slice 3")
    for old, new in zip(before, trainer.network.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("name", ["output.weight", "latent.0.att.key.weight"])
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_and_changes_nothing(
    clip: float, optimizer: str, name: str
) -> None:
    trainer = trainer_of(recipe(clip=clip, optimizer=optimizer, matrix_rate=0.02))
    weight = trainer.network.get_parameter(name)
    weight.register_hook(lambda gradient: gradient * torch.inf)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    batch = torch.rand(1, 1, 32, 32)
    with pytest.raises(TrainingError, match="iteration 0: the norm of the gradient is"):
        trainer.step(batch, 2 * batch)
    for old, new in zip(before, trainer.network.parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_clipping_bounds_the_gradient_of_all_weights(optimizer: str) -> None:
    trainer = trainer_of(recipe(clip=1e-3, optimizer=optimizer, matrix_rate=0.02))
    trainer.step(*torch.rand(2, 2, 1, 32, 32))
    gradients = [parameter.grad for parameter in trainer.network.parameters()]
    assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(1e-3, rel=1e-3)


def test_weights_of_an_earlier_run_are_not_taken_for_those_of_a_new_one(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="is of an earlier run without a checkpoint; move it"):
        train(recipe(2), [data], run)
    assert (run / "best.safetensors").read_bytes() == b"precious"


def test_a_start_that_changes_nothing_on_resuming_is_said(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(recipe(2), [data], tmp_path / "run")
    caplog.clear()
    train(recipe(4, start_at_identity=True), [data], tmp_path / "run")
    assert "training.start_at_identity changes nothing, since the run goes on" in caplog.text


def test_without_clipping_the_gradient_stays_as_it_is() -> None:
    low, high = torch.rand(2, 2, 1, 32, 32)
    trainer = trainer_of(recipe())
    trainer.step(low, high)
    stepped = [parameter.grad for parameter in trainer.network.parameters()]
    plain = trainer_of(recipe()).network
    torch.nn.functional.l1_loss(plain(low), high).backward()
    for one, parameter in zip(stepped, plain.parameters(), strict=True):
        assert torch.equal(one, parameter.grad)


def test_a_run_that_diverges_names_stack_slice_and_crop(data: Path, tmp_path: Path) -> None:
    def ruin(step: Step) -> None:
        if step.iteration == 1:
            np.save(path, np.full((6, 40, 40), np.inf, np.float32))

    path = data / "ct-denoise" / "train" / "a.high.npy"
    with pytest.raises(TrainingError, match=r"ct-denoise a slice \d at row \d+, column \d+"):
        train(recipe(9, "ct-denoise", validate_every=9), [data], tmp_path / "run", report=ruin)


def test_the_average_follows_the_weights_faster_at_first() -> None:
    trainer = trainer_of(recipe(ema=0.15))
    low = torch.rand(1, 1, 32, 32)
    average = trainer.network.output.weight.detach().clone()
    for decay in (1 / 10, 0.15, 0.15):
        trainer.step(low, low.square())
        average = decay * average + (1 - decay) * trainer.network.output.weight.detach()
        torch.testing.assert_close(trainer.average.output.weight, average)


def test_a_run_that_nothing_validates_stops(tmp_path: Path) -> None:
    with SetWriter(tmp_path / "data", "constant", "ct-denoise") as writer:
        writer.add("a", "a", "train", ball(3), ball(3))
        flat = np.full((3, 40, 40), 7.0)
        writer.add("b", "b", "validation", flat, flat)
    with pytest.raises(TrainingError, match="no slice has a score"):
        train(recipe(task="ct-denoise"), [tmp_path / "data"], tmp_path / "run")


def test_what_is_missing_is_said_before_a_folder_is_made(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no set for pet-synth; there are: .*mri-sr"):
        train(recipe(task="pet-synth"), [data / "mri-sr"], tmp_path / "run")
    with SetWriter(tmp_path / "only", "balls", "mri-sr") as writer:
        writer.add("a", "a", "train", ball(3))
    with pytest.raises(ConfigError, match="no validation slices"):
        train(recipe(), [tmp_path / "only"], tmp_path / "run")
    sets = [tmp_path / "only", data / "ct-denoise", data / "pet-synth"]
    with pytest.raises(ConfigError, match="mri-sr: its sets have no validation slices"):
        train(recipe(task="all-in-one"), sets, tmp_path / "run")
    with pytest.raises(ConfigError, match="device 'tpux'"):
        train(recipe(), [data], tmp_path / "run", machine=Machine("tpux"))
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_holds_the_gradient_scaler(tmp_path: Path) -> None:
    """Mixed precision in float16 scales its loss by a factor that it adapts."""
    scales = []
    for factor in (1024.0, 2.0):
        # Float16 needs a GPU; bfloat16 stands for it.
        trainer = Trainer(recipe(precision="16-mixed"), Machine().fabric("bf16-mixed"))
        trainer.fabric.strategy.precision.scaler = torch.amp.GradScaler("cpu", init_scale=factor)
        if not scales:
            trainer.step(torch.ones(2, 1, 32, 32), torch.ones(2, 1, 32, 32))
            trainer.save(tmp_path / "last.safetensors", [])
        else:
            trainer.load(tmp_path / "last.safetensors", [])
        scales.append(trainer.fabric.strategy.precision.state_dict())
    assert scales[0]["scale"] == 1024
    assert scales[0] == scales[1]
