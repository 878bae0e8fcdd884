"""Folders of training runs, as `train` leaves them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore_rwkv.training.recipe import Recipe

DIGESTS = {"mri-sr": "a" * 64, "ct-denoise": "b" * 64, "pet-synth": "c" * 64}
NETWORK = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "hidden_rate": 2}


def write_run(
    folder: Path,
    gains: Sequence[float | None] = (0.5, 1.5, 1.0),
    *,
    task: str = "mri-sr",
    seed: int = 0,
    dataset: str = "balls",
    **training: Any,
) -> Path:
    """Write the record and the log of a run.

    Args:
        folder: of the run, which is made.
        gains: of each validation, in dB, every 100 iterations; without any there is no log.
        task: of the recipe.
        seed: of the recipe.
        dataset: name of its data.
        training: of the recipe; the run is done after 300 iterations, unless it says otherwise.
    """
    folder.mkdir(parents=True)
    plan = Recipe.from_dict(
        {
            "task": task,
            "network": NETWORK,
            "seed": seed,
            "training": {"iterations": 300, "validate_every": 100, **training},
        }
    )
    tasks = [one.name for one in plan.tasks]
    data = [{"dataset": dataset, "task": x, "manifest_sha256": DIGESTS[x]} for x in tasks]
    content = {"recipe": plan.to_dict(), "data": data, "starts": []}
    (folder / "run.json").write_text(json.dumps(content))
    if not gains:
        return folder
    with (folder / "log.csv").open("w", newline="") as file:
        columns = [f"{name}.{key}" for name in tasks for key in ("psnr", "gain")]
        writer = csv.writer(file)
        writer.writerow(["iteration", "loss", "cpu_hours", *columns])
        for number, gain in enumerate(gains, start=1):
            scores = ["" if x is None else x for x in (gain and 30 + gain, gain)] * len(tasks)
            writer.writerow([100 * number, 1 / number, 0.25 * number, *scores])
    return folder
