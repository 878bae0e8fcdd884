"""Tasks: modality, plane, unit and scaling of a scan, and the degradation of each modality.

Imports physics and io, and torch only when a scan is degraded; model, restoration, data and all
rooms above import it. Names are imported at their first use: the table of tasks needs no NumPy.
"""

from typing import TYPE_CHECKING

from restore_rwkv.lazy import lazy_names

if TYPE_CHECKING:
    from restore_rwkv.tasks.again import MeasureAgain, RestoredScan
    from restore_rwkv.tasks.degradation import degrade, degrade_file
    from restore_rwkv.tasks.modalities import MODALITIES
    from restore_rwkv.tasks.modality import AxisFactor, Degraded, DegradeOptions, Modality
    from restore_rwkv.tasks.plane import PlaneChoice, slice_axis
    from restore_rwkv.tasks.report_calibration import (
        Intervals,
        PlaceThreshold,
        ReportCalibration,
        SpreadMethod,
    )
    from restore_rwkv.tasks.scaling import (
        FOREGROUND_LEVEL,
        Scaling,
        ScalingRule,
        onto_unit_range,
        robust_scaling,
    )
    from restore_rwkv.tasks.strength import AddedNoise, Strength
    from restore_rwkv.tasks.table import (
        ALL_IN_ONE,
        AUTO,
        NOTICE,
        TASKS,
        Task,
        get_task,
        get_tasks,
        pick_task,
        task_of,
    )
    from restore_rwkv.tasks.turns import TURNS, Turn

__all__ = [
    "ALL_IN_ONE",
    "AUTO",
    "FOREGROUND_LEVEL",
    "MODALITIES",
    "NOTICE",
    "TASKS",
    "TURNS",
    "AddedNoise",
    "AxisFactor",
    "DegradeOptions",
    "Degraded",
    "Intervals",
    "MeasureAgain",
    "Modality",
    "PlaceThreshold",
    "PlaneChoice",
    "ReportCalibration",
    "RestoredScan",
    "Scaling",
    "ScalingRule",
    "SpreadMethod",
    "Strength",
    "Task",
    "Turn",
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "restore_rwkv.tasks.again": ["MeasureAgain", "RestoredScan"],
        "restore_rwkv.tasks.degradation": ["degrade", "degrade_file"],
        "restore_rwkv.tasks.modalities": ["MODALITIES"],
        "restore_rwkv.tasks.modality": ["AxisFactor", "DegradeOptions", "Degraded", "Modality"],
        "restore_rwkv.tasks.plane": ["PlaneChoice", "slice_axis"],
        "restore_rwkv.tasks.scaling": [
            "FOREGROUND_LEVEL",
            "Scaling",
            "ScalingRule",
            "onto_unit_range",
            "robust_scaling",
        ],
        "restore_rwkv.tasks.report_calibration": [
            "Intervals",
            "PlaceThreshold",
            "ReportCalibration",
            "SpreadMethod",
        ],
        "restore_rwkv.tasks.strength": ["AddedNoise", "Strength"],
        "restore_rwkv.tasks.table": [
            "ALL_IN_ONE",
            "AUTO",
            "NOTICE",
            "TASKS",
            "Task",
            "get_task",
            "get_tasks",
            "pick_task",
            "task_of",
        ],
        "restore_rwkv.tasks.turns": ["TURNS", "Turn"],
    },
)
