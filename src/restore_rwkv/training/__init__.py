"""One network from a recipe: the pairs, the loop, its state, validation and logs.

Uses evaluation, restoration, data and model; apps start it.
"""

from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.recipe import DataRecipe, Recipe, TrainingRecipe

__all__ = ["DataRecipe", "Machine", "Recipe", "Step", "TrainingRecipe", "train"]
