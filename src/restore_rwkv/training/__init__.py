"""Training of one network from a recipe: pairs, loop, state, validation and logs.

Imports evaluation, restoration, data and model; the apps import it.
"""

from restore_rwkv.training.comparison import Comparison, Run, compare_runs, draw_runs, read_runs
from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.networks import NamedNetwork, open_network
from restore_rwkv.training.recipe import DataRecipe, Recipe, TrainingRecipe

__all__ = [
    "Comparison",
    "DataRecipe",
    "Machine",
    "NamedNetwork",
    "Recipe",
    "Run",
    "Step",
    "TrainingRecipe",
    "compare_runs",
    "draw_runs",
    "open_network",
    "read_runs",
    "train",
]
