"""Train a network on pairs of your own: real low-quality scans and their good partners.

The folder holds LQ/NAME.nii.gz and HQ/NAME.nii.gz on the same grid, or folders of DICOM files.
The patient is read from the name up to the first "_", so that no patient is in two splits.

python examples/train_on_your_pairs.py pairs run --recipe recipes/light-ct-denoise.toml
"""

import argparse
import sys
from pathlib import Path

from restore_rwkv import Recipe, Restorer, train
from restore_rwkv.data import PreparedSet
from restore_rwkv.data.sources import FolderOptions, prepare_folder
from restore_rwkv.evaluation import evaluate_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path, help="folder with LQ and HQ")
    parser.add_argument("output", type=Path, help="gets the prepared set and the run")
    parser.add_argument(
        "--recipe",
        type=Path,
        required=True,
        help="for one task, such as recipes/light-ct-denoise.toml",
    )
    parser.add_argument("--validation", type=float, default=0.1, help="share of the patients")
    parser.add_argument("--test", type=float, default=0.1, help="share of the patients")
    arguments = parser.parse_args()

    recipe = Recipe.read(arguments.recipe)
    data, run = arguments.output / "data", arguments.output / "run"
    if not data.exists():  # a second call goes on where the first one stopped
        options = FolderOptions(
            task=recipe.task, validation=arguments.validation, test=arguments.test
        )
        prepare_folder(arguments.pairs, data, options)
    best = train(recipe, [data], run)
    if best is None:
        sys.exit(f"{run}: no validation was better than the input; train longer")

    restorer = Restorer(recipe.task, weights=best)
    for patient, scores in evaluate_set(PreparedSet.read(data), restorer, "test").items():
        before, after = scores["input"].psnr, scores["restored"].psnr
        print(f"{patient}: {before:.2f} dB as it is, {after:.2f} dB restored")
    print(f"weights: {best}")


if __name__ == "__main__":
    main()
