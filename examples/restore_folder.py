"""Restore every NIfTI file of a folder, with the weights loaded once.

python examples/restore_folder.py scans restored --task mri-sr
"""

import argparse
import sys
from pathlib import Path

from restore_rwkv import TASKS, RestoreError, Restorer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of .nii or .nii.gz files, at any depth")
    parser.add_argument("output", type=Path, help="folder for the restored scans")
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--weights", help="shipped weights by name, or a file; the task's own if left out"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    arguments = parser.parse_args()

    restorer = Restorer(arguments.task, weights=arguments.weights, device=arguments.device)
    scans = sorted(arguments.source.rglob("*.nii*"))
    failed = 0
    for number, scan in enumerate(scans, 1):
        target = arguments.output / scan.relative_to(arguments.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            restored = restorer.file(scan, target, overwrite=arguments.overwrite)
        except RestoreError as error:  # one bad scan does not stop the others
            print(f"[{number}/{len(scans)}] error: {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"[{number}/{len(scans)}] {target}: {restored.volume.data.shape}")
    print(f"{len(scans) - failed} of {len(scans)} scans restored")
    return 1 if failed or not scans else 0


if __name__ == "__main__":
    sys.exit(main())
