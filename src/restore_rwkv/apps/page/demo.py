"""The demo scan, which the page offers where no folder was given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

NAME = "demo-mri-of-low-resolution.nii.gz"


def make_demo_scan(folder: Path) -> None:
    """Write the sample scan at a quarter of its resolution, as `restore-rwkv demo` restores it.

    Args:
        folder: where to write it, as `NAME`; what is there is replaced.

    Raises:
        OSError: the folder cannot be written to.
    """
    from restore_rwkv.model.shipped import sample_scan
    from restore_rwkv.tasks import degrade_file

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    path = folder / NAME
    degrade_file(sample_scan(), path, task="mri-sr")
    side = path.with_name(NAME.removesuffix(".nii.gz") + ".json")
    side.write_text(json.dumps({"Modality": "MR"}), encoding="utf-8")
