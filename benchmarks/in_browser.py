"""Time of the page that restores in the browser: `python -m benchmarks.in_browser`.

It needs `make try` before.

Opens the page in Chromium without a network, restores slices of 256 x 256 of noise-free structure
with each of its networks, and prints seconds per slice, the steps around the network included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import ROOT
from tests.helpers.odd_files.images import ct, mri, pet, save_nifti
from tests.helpers.site import chromium, served

SLICES = 8
SIZE = 256
_MINUTES = 10


def scan(task: str, folder: Path) -> Path:
    """Write a scan of 8 slices of 256 x 256 that a task takes by force."""
    shape = (SIZE, SIZE, SLICES) if task != "pet-synth" else (SIZE, SLICES, SIZE)
    values = {"mri-sr": mri, "ct-denoise": ct, "pet-synth": pet}[task](shape)
    affine = np.diag([-1.0, 1.0, 1.0 if task == "pet-synth" else 3.0, 1.0])
    path = folder / f"{task}.nii"
    save_nifti(path, values.astype(np.float32), affine)
    return path


def seconds(tab: Any, path: Path, task: str, weights: str) -> float:
    """Return the seconds that a slice takes."""
    tab.set_input_files("#file", path)
    tab.locator("#options").wait_for()
    tab.get_by_text(f"{path.name} was read").wait_for()
    tab.select_option("#task", value=task)
    tab.select_option("#weights", value=weights)
    tab.get_by_label("Restore it all the same").check()
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.get_by_text(f"{path.name} is restored").wait_for(timeout=_MINUTES * 60_000)
    with tab.expect_download() as waiting:
        tab.get_by_role("link", name="Download its record").click()
    record = json.loads(Path(waiting.value.path()).read_text(encoding="utf-8"))
    return float(record["seconds"]) / SLICES


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_browser", description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", default=ROOT / "build" / "try")
    folder = parser.parse_args(arguments).page
    if not (folder / "about.json").is_file():
        print(f"{folder}: is not the page; build it with make try", file=sys.stderr)
        return 1
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    print("| weights | task | seconds per 256 x 256 slice |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as made, served(folder) as address, chromium() as browser:
        tab = browser.new_page()
        tab.goto(address)
        for name, weights in about["weights"].items():
            for task in weights["scaling"]:
                took = seconds(tab, scan(task, Path(made)), task, name)
                print(f"| {name} | {task} | {took:.2f} |", flush=True)
        print(f"\nChromium {browser.version}, load of the machine {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
