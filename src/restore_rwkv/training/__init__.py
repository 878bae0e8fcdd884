"""Training of one network from a recipe: pairs, loop, state, validation and logs.

Imports evaluation, restoration, data and model; the apps import it.
"""

from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.recipe import DataRecipe, Recipe, TrainingRecipe

__all__ = ["DataRecipe", "Machine", "Recipe", "Step", "TrainingRecipe", "train"]
