"""Make pairs of CT or PET scans at low and full dose, as train_on_your_pairs.py takes them.

python examples/make_low_dose_data.py full-dose pairs --task ct-denoise --factor 4
"""

import argparse
import json
from pathlib import Path

from restore_rwkv import DegradeOptions, degrade, read_volume, write_volume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of .nii or .nii.gz files at full dose")
    parser.add_argument("output", type=Path, help="gets the folders LQ and HQ, and records.json")
    parser.add_argument("--task", choices=("ct-denoise", "pet-synth"), default="ct-denoise")
    parser.add_argument(
        "--factor", type=float, help="4 keeps a quarter of the dose; the task's own if left out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first scan; each has its own")
    arguments = parser.parse_args()

    for quality in ("LQ", "HQ"):
        (arguments.output / quality).mkdir(parents=True, exist_ok=True)
    options = DegradeOptions(factor=arguments.factor)
    records = {}
    for number, scan in enumerate(sorted(arguments.source.glob("*.nii*"))):
        # The physics needs HU for CT and SUV or Bq/ml for PET. With photons=None, the default,
        # the noise of the scan itself says how many photons it had.
        pair = degrade(read_volume(scan), arguments.task, options, seed=arguments.seed + number)
        write_volume(pair.low, arguments.output / "LQ" / scan.name)
        write_volume(pair.high, arguments.output / "HQ" / scan.name)
        records[scan.name] = dict(pair.record)
        print(f"{scan.name}: noise of 1/{pair.record['factor']:g} of the dose")
    (arguments.output / "records.json").write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
