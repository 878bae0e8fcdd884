"""Sums of linear interpolations, their adjoint, and gradients of linear maps.

A weighted `embedding_bag` computes the sums: its bags are rays (or pixels), and its table has one
row per pixel (or detector), with the images of the batch in adjacent columns. A batch therefore
costs little more than one image, sums have a fixed order, and no state is kept between calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LinearMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Taps:
    """Two neighbouring cells of a table for each sample of each bag, and their weights."""

    lower: Tensor  # (bags, samples), int32
    below: Tensor  # (bags, samples), weight of cell `lower`
    above: Tensor  # (bags, samples), weight of cell `lower + 1`

    @classmethod
    def at(cls, u: Tensor, count: int, base: Tensor) -> Taps:
        """Taps at positions u (overwritten) on lines of `count` cells, padded by 1 before, 2 after.

        `base` is the index of each line's first padding cell.
        """
        u.clamp_(0, count + 1)
        lower = u.int()
        u -= lower
        return cls(lower.add_(base), 1 - u, u)

    def scaled(self, weight: Tensor) -> Taps:
        """Taps with their weights multiplied by `weight`."""
        return Taps(self.lower, self.below * weight, self.above * weight)

    def gather(self, table: Tensor) -> Tensor:
        """Weighted sum of cells per bag: (cells, B) -> (bags, B)."""
        below = F.embedding_bag(self.lower, table, mode="sum", per_sample_weights=self.below)
        above = F.embedding_bag(self.lower + 1, table, mode="sum", per_sample_weights=self.above)
        sums: Tensor = below + above
        return sums

    def spread(self, values: Tensor, table: Tensor) -> None:
        """Add the adjoint of `gather` on values (bags, B) to a table (cells, B), in fixed order."""
        if values.shape[1] < 4 and values.device.type == "cpu":  # faster here than sorting
            for column, value in zip(table.unbind(1), values.unbind(1), strict=True):
                for cells, weight in ((self.lower, self.below), (self.lower + 1, self.above)):
                    column.index_add_(0, cells.flatten(), (weight * value[:, None]).flatten())
            return
        cells, order = self.lower.flatten().sort()
        bags = (order // self.lower.shape[1]).int()
        ends = torch.bincount(cells, minlength=len(table)).cumsum(0).int()
        offsets = F.pad(ends[:-1], (1, 0))
        below, above = (
            F.embedding_bag(
                bags, values, offsets, mode="sum", per_sample_weights=weight.flatten()[order]
            )
            for weight in (self.below, self.above)
        )
        table += below
        table[1:] += above[:-1]


class _Linear(torch.autograd.Function):
    """Linear map whose gradient is its adjoint, and vice versa."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: LinearMap, adjoint: LinearMap) -> Tensor:
        ctx.maps = forward, adjoint
        return forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        forward, adjoint = ctx.maps
        return apply_linear(gradient.contiguous(), adjoint, forward), None, None


def apply_linear(x: Tensor, forward: LinearMap, adjoint: LinearMap) -> Tensor:
    """Apply a linear map; differentiable any number of times, through its adjoint."""
    result: Tensor = _Linear.apply(x, forward, adjoint)  # type: ignore[no-untyped-call]
    return result


def fold(x: Tensor) -> Tensor:
    """Reshape (..., a, b) to a contiguous (a b, B), one column per image of the batch."""
    return x.reshape(-1, x.shape[-2] * x.shape[-1]).t().contiguous()


def unfold(x: Tensor, like: Tensor, rows: int) -> Tensor:
    """Reshape (a b, B) to (..., a, b), with the batch axes of `like` and a = `rows`."""
    return x.t().reshape(*like.shape[:-2], rows, -1)
