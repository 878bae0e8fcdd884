"""Checkpoints of a training run: safetensors, which hold data and no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from restore_rwkv.errors import ConfigError
from restore_rwkv.io import atomic_file

if TYPE_CHECKING:
    from restore_rwkv.training import Trainer

_PROGRESS = "progress"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(trainer: Trainer, path: Path, data: list[dict[str, Any]]) -> None:
    """Write a checkpoint from which `load_checkpoint` goes on as if there had been no stop.

    Args:
        trainer: its network, moving average, optimiser and progress are kept.
        path: file to write; an existing one is replaced.
        data: record of the data that it is trained on.
    """
    state = trainer.optimizer.state_dict()["state"]
    tensors = {
        **{f"network.{key}": value for key, value in trainer.network.state_dict().items()},
        **{f"average.{key}": value for key, value in trainer.average.state_dict().items()},
        **{f"{name}.{i}": x for i, entry in state.items() for name, x in entry.items()},
    }
    progress = {
        "iteration": trainer.iteration,
        "best_psnr": trainer.best_psnr,
        "recipe": trainer.recipe.to_dict(),
        "data": data,
    }
    metadata = {_PROGRESS: json.dumps(progress)}  # one entry: the order of several is random
    with atomic_file(path) as temporary:
        save_file({k: x.cpu().contiguous() for k, x in tensors.items()}, temporary, metadata)


def load_checkpoint(trainer: Trainer, path: Path, data: list[dict[str, Any]]) -> None:
    """Go on from a checkpoint of the same task, network, seed and data.

    Raises:
        ConfigError: the file is no checkpoint, or one of another recipe or other data.
    """
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()[_PROGRESS])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        before, data_before = progress["recipe"], progress["data"]
        iteration, best_psnr = int(progress["iteration"]), float(progress["best_psnr"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: no checkpoint ({error}); delete it to start anew") from error
    now = json.loads(json.dumps(trainer.recipe.to_dict()))
    kept = ("task", "network", "data", "scaling", "seed")
    changed = [key for key in kept if before.get(key) != now[key]]
    if data_before != data:
        changed.append("set of data")
    if changed:
        raise ConfigError(
            f"{path}: was trained with another {', '.join(changed)}; use another output folder"
        )
    trainer.iteration, trainer.best_psnr = iteration, best_psnr
    trainer.network.load_state_dict(_below(tensors, "network"))
    trainer.average.load_state_dict(_below(tensors, "average"))
    moments = {name: _below(tensors, name) for name in _MOMENTS}
    state = trainer.optimizer.state_dict()
    state["state"] = {
        int(i): {name: entries[i] for name, entries in moments.items()} for i in moments["step"]
    }
    trainer.optimizer.load_state_dict(state)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}
