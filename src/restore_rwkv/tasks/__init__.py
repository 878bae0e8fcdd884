"""What a scan is taken for: its task, plane, unit and scaling, and how its modality is degraded.

Uses physics and io, and torch only once a scan is degraded; model, restoration, data and all rooms
above use it.
"""

from restore_rwkv.tasks.degradation import degrade, degrade_file
from restore_rwkv.tasks.modality import Degraded, DegradeOptions, Modality
from restore_rwkv.tasks.plane import PlaneChoice, slice_axis
from restore_rwkv.tasks.scaling import (
    FOREGROUND_LEVEL,
    Scaling,
    ScalingRule,
    onto_unit_range,
    robust_scaling,
)
from restore_rwkv.tasks.table import (
    ALL_IN_ONE,
    AUTO,
    MODALITIES,
    NOTICE,
    TASKS,
    Task,
    get_task,
    get_tasks,
    pick_task,
    task_of,
)

__all__ = [
    "ALL_IN_ONE",
    "AUTO",
    "FOREGROUND_LEVEL",
    "MODALITIES",
    "NOTICE",
    "TASKS",
    "DegradeOptions",
    "Degraded",
    "Modality",
    "PlaneChoice",
    "Scaling",
    "ScalingRule",
    "Task",
    "degrade",
    "degrade_file",
    "get_task",
    "get_tasks",
    "onto_unit_range",
    "pick_task",
    "robust_scaling",
    "slice_axis",
    "task_of",
]
