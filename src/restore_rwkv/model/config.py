"""The configuration of a network, and the two networks of this project; needs no PyTorch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from restore_rwkv.errors import ConfigError
from restore_rwkv.options import Count, Expected, from_mapping, validated

STRIDE = 8
"""Tokens at full size per token of the lowest level, in each direction."""

_Blocks = Annotated[tuple[Count, ...], Expected("a list of 4 whole numbers from 1")]
_Scans = Annotated[
    tuple[Literal["rows", "columns"], ...], Expected("a list of 'rows' and 'columns'")
]

_Ranges = Annotated[tuple[float, float], Expected("two numbers, 1 <= shortest <= longest")]


# A file of any size can state these numbers: no network is begun that no machine could hold.
_WIDEST = 4096  # channels; the paper's network has 48
_DEEPEST = 1024  # blocks of all levels, or scans of a block


@validated("config")
@dataclasses.dataclass(frozen=True)
class RestoreRWKVConfig:
    """Configuration of a network; the defaults are the published `base` network.

    Attributes:
        in_channels: channels of the input image.
        out_channels: channels of the output; equal to `in_channels`, since the input is added.
        noise_level: whether the network is told how much of the noise of an image it is to remove,
            in one more input channel of that constant value (ours, after FFDNet, arXiv 1710.04026).
        patch: side in pixels of the square that becomes one token at full size: 1 in the paper; for
            2 and 4 (ours) the network works on pixel-unshuffled images of as many times fewer rows
            and columns.
        dim: C, channels at full size; doubled at each of the three levels below; even.
        num_blocks: blocks at the four levels, from full size to the latent.
        num_refinement_blocks: blocks after the last decoder level.
        hidden_rate: width of the channel mix in units of its channels.
        scans: directions of Re-WKV, "rows" or "columns"; M = len(scans) (table 6).
        scan_mixing: "recurrent", each scan reads the previous one; "sum", a block sums its scans;
            "alternating", successive blocks take turns with one scan each (table 7).
        attention: "bi-wkv", or the causal "uni-wkv", with scans=("rows",) that of RWKV (table 5).
        decay_range: (shortest, longest) range of the attention in pixels that training starts with,
            spread log-uniformly over the channels of each block, at least one token; the range of a
            channel then does not depend on the size of the image, and continues from the end of a
            row in the next (ours). None for the paper's: the decay is divided by the number of
            tokens, so that the range grows with the image, and is drawn from N(0, 1).
        shift: "omni", "quad" (four neighbours) or "uni" (previous token) (table 5).
        shift_kernel: context of Omni-Shift in pixels: 1, 3, 5, 7 or 9 (table 8).
        shift_branches: False keeps only the largest kernel of Omni-Shift (table 8).

    Raises:
        ConfigError: a value is out of range.
    """

    in_channels: Count = 1
    out_channels: Count = 1
    noise_level: bool = False
    patch: Annotated[int, Expected("1, 2 or 4")] = 1
    dim: Count = 48
    num_blocks: _Blocks = (4, 6, 6, 8)
    num_refinement_blocks: Count = 4
    hidden_rate: Count = 4
    scans: _Scans = ("rows", "columns")
    scan_mixing: Literal["recurrent", "alternating", "sum"] = "recurrent"
    attention: Literal["bi-wkv", "uni-wkv"] = "bi-wkv"
    decay_range: _Ranges | None = None
    shift: Literal["omni", "quad", "uni"] = "omni"
    shift_kernel: Annotated[int, Expected("1, 3, 5, 7 or 9")] = 5
    shift_branches: bool = True

    def __post_init__(self) -> None:
        if len(self.num_blocks) != 4 or self.dim % 2 or self.dim > _WIDEST:
            raise ConfigError(
                f"config: num_blocks is {self.num_blocks} and dim {self.dim}; "
                f"give 4 numbers of blocks, and an even dim of at most {_WIDEST}"
            )
        blocks = sum(self.num_blocks) + self.num_refinement_blocks
        for name, value, most in (
            ("num_blocks with num_refinement_blocks", blocks, _DEEPEST),
            ("number of scans", len(self.scans), _DEEPEST),
            ("in_channels", self.in_channels, _WIDEST),
            ("hidden_rate", self.hidden_rate, _WIDEST),
        ):
            if value > most:
                raise ConfigError(f"config: {name} is {value}; give at most {most}")
        if self.in_channels != self.out_channels:
            raise ConfigError(
                f"config: in_channels is {self.in_channels} and out_channels {self.out_channels}; "
                "give equal numbers, since the network adds its input to its output"
            )
        if not self.scans:
            raise ConfigError(f"config: scans is {self.scans}; list 'rows' and 'columns'")
        if self.patch not in (1, 2, 4):
            raise ConfigError(f"config: patch is {self.patch}; give 1, 2 or 4")
        if self.decay_range is not None:
            shortest, longest = self.decay_range
            if not 1 <= shortest <= longest < math.inf:
                raise ConfigError(
                    f"config: decay_range is {self.decay_range}; give two numbers, "
                    "1 <= shortest <= longest"
                )
        if self.shift_kernel not in (1, 3, 5, 7, 9):
            raise ConfigError(f"config: shift_kernel is {self.shift_kernel}; give 1, 3, 5, 7 or 9")

    @property
    def stride(self) -> int:
        """Pixels per token of the lowest level; height and width are at least as large."""
        return STRIDE * self.patch

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RestoreRWKVConfig:
        """Build a configuration from plain values, such as JSON; absent keys keep their defaults.

        Raises:
            ConfigError: a key is unknown (the message names the nearest) or a value out of range.
        """
        return from_mapping(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` restores them."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


PRESETS = {
    "base": RestoreRWKVConfig(),
    "light": RestoreRWKVConfig(dim=16, num_blocks=(1, 1, 2, 2), num_refinement_blocks=1),
    "patch2": RestoreRWKVConfig(patch=2, dim=28, num_blocks=(1, 1, 2, 2), num_refinement_blocks=1),
}
"""`base` is the network of the paper. Ours are `light`, about the size of its small variant, and
`patch2`, which works at half the rows and columns."""
