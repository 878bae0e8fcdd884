"""Argument checks shared by the modalities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError


def check_positive(name: str, value: float) -> None:
    """Raise an OperatorError unless the value is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise OperatorError(f"{name} is {value:g}; give a finite number above 0")


def check_floating(name: str, x: Tensor) -> None:
    """Raise an OperatorError unless the tensor is float32 or float64."""
    if x.dtype not in (torch.float32, torch.float64):
        type_ = str(x.dtype).removeprefix("torch.")
        raise OperatorError(f"{name} has type {type_}; convert it to float32 or float64")
