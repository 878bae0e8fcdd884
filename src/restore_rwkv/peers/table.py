"""The table of the networks that ours is compared with; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """What is known of a network before it is built.

    Attributes:
        place: "module:Class" in this room, of the subclass of `PeerNetwork`.
        width: channels, by default; each class says of what.
        depth: numbers of layers or blocks, by default; each class says of what.
        bytes_per_channel: peak memory of the activations of its inference form, in bytes per pixel
            and unit of width, measured on a CPU (tests/peers/test_memory.py compares).
        stride: height and width are padded to multiples of it, inside the network.
        width_step: the width is a multiple of it.
        residual: whether the network adds its input to its output, by default.
        least_depth: least of each number of `depth`.
        recomputes: whether training can recompute activations in the backward pass.
    """

    place: str
    width: int
    depth: tuple[int, ...]
    bytes_per_channel: float
    stride: int = 1
    width_step: int = 1
    residual: bool = True
    least_depth: int = 1
    recomputes: bool = False


PEERS: dict[str, Peer] = {
    "unet": Peer("unet:UNet", 24, (), 46, stride=16, residual=False),
    "restormer": Peer("restormer:Restormer", 16, (1, 1, 2, 2, 1), 220, stride=8, width_step=8),
    "dncnn": Peer("dncnn:DnCNN", 96, (17,), 16, least_depth=2),
    "redcnn": Peer("redcnn:REDCNN", 80, (5,), 28),
    "edsr": Peer("edsr:EDSR", 64, (16,), 24, residual=False, recomputes=True),
    "srcnn": Peer("srcnn:SRCNN", 304, (), 10.2, width_step=2, residual=False),
    "nafnet": Peer(
        *("nafnet:NAFNet", 16, (1, 1, 1, 2, 1, 1, 1, 1, 1), 46), stride=16, recomputes=True
    ),
    "swinir-light": Peer(
        *("swinir:SwinIR", 64, (4, 4, 4, 4), 115), stride=8, width_step=16, recomputes=True
    ),
}
"""The default sizes are near that of our `light`, 1.17 million parameters."""
