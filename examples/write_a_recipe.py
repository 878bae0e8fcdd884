"""Write a recipe: a shipped one with another network and a longer training, checked and counted.

python examples/write_a_recipe.py wide.toml --extends recipes/light-mri-sr.toml --dim 32
"""

import argparse
import os
from pathlib import Path

from restore_rwkv import Recipe, RestoreRWKV


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the recipe to write, .toml")
    parser.add_argument("--extends", type=Path, required=True, help="the recipe to start from")
    parser.add_argument("--dim", type=int, default=32, help="channels at full size, even")
    parser.add_argument("--iterations", type=int, default=50_000)
    parser.add_argument("--crop", type=int, default=128, help="side of a training crop in pixels")
    arguments = parser.parse_args()

    # A recipe needs only the keys that differ. `extends` is relative to the new file.
    base = Path(os.path.relpath(arguments.extends, arguments.output.parent)).as_posix()
    arguments.output.write_text(
        f'extends = "{base}"\n'
        f"\n[network]\ndim = {arguments.dim}\n"
        f"\n[data]\ncrop = {arguments.crop}\n"
        f"\n[training]\niterations = {arguments.iterations}\n",
        encoding="utf-8",
    )

    recipe = Recipe.read(arguments.output)  # refuses unknown keys and impossible values
    parameters = sum(p.numel() for p in RestoreRWKV(recipe.network).merged().parameters())
    crops = recipe.training.iterations * recipe.training.batch_size
    print(f"{arguments.output}: {', '.join(task.title for task in recipe.tasks)}")
    print(f"network: {parameters:,} parameters once merged, blocks {recipe.network.num_blocks}")
    print(f"training: {crops:,} crops of {recipe.data.crop} x {recipe.data.crop} pixels")
    print(f"next: restore-rwkv train {arguments.output} --data PREPARED -o runs/{recipe.task}")


if __name__ == "__main__":
    main()
