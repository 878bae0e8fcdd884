"""The configuration of a network, and the two networks of this project; needs no PyTorch."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from restore_rwkv.errors import ConfigError

_CHOICES = {
    "scan_mixing": ("recurrent", "alternating", "sum"),
    "attention": ("bi-wkv", "uni-wkv"),
    "shift": ("omni", "quad", "uni"),
    "shift_kernel": (1, 3, 5, 7, 9),
    "shift_branches": (True, False),
}


@dataclasses.dataclass(frozen=True)
class RestoreRWKVConfig:
    """What defines a network; the defaults are the published `base` network.

    Attributes:
        in_channels: channels of the input image.
        out_channels: channels of the output; the same, as the network adds its input (residual).
        dim: C, channels at full size; doubled at each of the three levels below; even.
        num_blocks: blocks at the four levels, from full size to the latent.
        num_refinement_blocks: blocks after the last decoder level.
        hidden_rate: width of the channel mix in units of its channels.
        scans: directions of Re-WKV, "rows" or "columns"; M = len(scans) (table 6).
        scan_mixing: "recurrent", each scan reads the one before; "sum", a block adds up its scans;
            "alternating", successive blocks take one scan each in turn (table 7).
        attention: "bi-wkv", or the causal "uni-wkv"; with scans=("rows",) RWKV's (table 5).
        shift: "omni", "quad" (four neighbours) or "uni" (previous token) (table 5).
        shift_kernel: context of Omni-Shift in pixels: 1, 3, 5, 7 or 9 (table 8).
        shift_branches: False leaves the largest kernel of Omni-Shift alone (table 8).

    Raises:
        ConfigError: a value is out of range.
    """

    in_channels: int = 1
    out_channels: int = 1
    dim: int = 48
    num_blocks: tuple[int, ...] = (4, 6, 6, 8)
    num_refinement_blocks: int = 4
    hidden_rate: int = 4
    scans: tuple[str, ...] = ("rows", "columns")
    scan_mixing: str = "recurrent"
    attention: str = "bi-wkv"
    shift: str = "omni"
    shift_kernel: int = 5
    shift_branches: bool = True

    def __post_init__(self) -> None:
        for name in ("num_blocks", "scans"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise ConfigError(f"config: {name} is {value!r}; give a list")
            object.__setattr__(self, name, tuple(value))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            counts = value if isinstance(value, tuple) else (value,)
            if "int" in str(field.type) and any(type(n) is not int or n < 1 for n in counts):
                raise ConfigError(f"config: {field.name} is {value!r}; give whole numbers from 1")
        if len(self.num_blocks) != 4 or self.dim % 2:
            raise ConfigError("config: num_blocks must have 4 entries and dim be even; mend them")
        if self.in_channels != self.out_channels:
            raise ConfigError(
                f"config: in_channels is {self.in_channels} and out_channels {self.out_channels}; "
                "give equal numbers, the network adds its input to its output"
            )
        if not self.scans or any(scan not in ("rows", "columns") for scan in self.scans):
            raise ConfigError(f"config: scans is {self.scans}; list 'rows' and 'columns'")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices or type(value) is not type(choices[0]):
                raise ConfigError(f"config: {name} is {value!r}; choose from {choices}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RestoreRWKVConfig:
        """Build a configuration from plain values, as of JSON; absent keys keep their defaults.

        Raises:
            ConfigError: a key is unknown (the message names the nearest) or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
                raise ConfigError(f"config: unknown key {key!r}; did you mean {nearest!r}?")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` restores them."""
        values = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


PRESETS = {
    "base": RestoreRWKVConfig(),
    "light": RestoreRWKVConfig(dim=16, num_blocks=(1, 1, 2, 2), num_refinement_blocks=1),
}
"""`base` is the paper's network; `light` is our own, at the size of the paper's small variant."""
