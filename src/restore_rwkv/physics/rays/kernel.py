"""Window of the ramp filter in filtered back-projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restore_rwkv.errors import OperatorError
from restore_rwkv.physics.checks import check_positive

WINDOWS = ("ram-lak", "shepp-logan", "cosine", "hann")


@dataclass(frozen=True)
class Kernel:
    """Window that multiplies the ramp filter of filtered back-projection.

    With f the frequency as a fraction of `cutoff` times the Nyquist frequency of the detector, the
    windows are 1 (ram-lak), sinc(f / 2) (shepp-logan), cos(pi f / 2) (cosine) and
    (1 + cos(pi f)) / 2 (hann); all are 0 above f = 1.

    Attributes:
        window: one of `WINDOWS`.
        cutoff: frequency at which the window ends, over the Nyquist frequency; above 0. Above 1 the
            window is truncated at the Nyquist frequency before it reaches 0.
    """

    window: str = "hann"
    cutoff: float = 1.0

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise OperatorError(
                f"reconstruction window is {self.window!r}; give one of {', '.join(WINDOWS)}"
            )
        check_positive("kernel cutoff", self.cutoff)

    def response(self, frequency: Tensor) -> Tensor:
        """Evaluate the window at fractions of the Nyquist frequency (any shape, at least 0)."""
        f = frequency / self.cutoff
        inside = f <= 1
        if self.window == "ram-lak":
            return inside.to(f)
        if self.window == "shepp-logan":
            return torch.sinc(f / 2) * inside
        if self.window == "cosine":
            return torch.cos(torch.pi / 2 * f) * inside
        return (0.5 + 0.5 * torch.cos(torch.pi * f)) * inside
