"""Training of one network from a recipe: pairs, loop, state, validation and logs.

Imports evaluation, restoration, data and model; the apps import it.
"""

from restore_rwkv.training.comparison import Comparison, compare_runs, draw_runs
from restore_rwkv.training.fields import NamedField, draw_fields, network_fields
from restore_rwkv.training.log import Step
from restore_rwkv.training.loop import Machine, train
from restore_rwkv.training.networks import NamedNetwork, open_network
from restore_rwkv.training.recipe import DataRecipe, Recipe, TrainingRecipe
from restore_rwkv.training.runs import Run, read_runs

__all__ = [
    "Comparison",
    "DataRecipe",
    "Machine",
    "NamedField",
    "NamedNetwork",
    "Recipe",
    "Run",
    "Step",
    "TrainingRecipe",
    "compare_runs",
    "draw_fields",
    "draw_runs",
    "network_fields",
    "open_network",
    "read_runs",
    "train",
]
