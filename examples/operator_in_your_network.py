"""Use Bi-WKV attention, linear in the pixels, in a network of your own: denoising of stripes.

python examples/operator_in_your_network.py --steps 200
"""

import argparse

import torch
from torch import Tensor, nn

from restore_rwkv.ops import available_backends, bi_wkv


class RowsAndColumns(nn.Module):
    """Attention along rows, then along columns, gated; (B, H, W, C) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.key, self.value, self.gate = (nn.Linear(channels, channels) for _ in range(3))
        self.output = nn.Linear(channels, channels)
        reach = torch.linspace(0, 256, channels)  # of a channel: from all tokens to a few
        self.decay = nn.Parameter(reach.repeat(2, 1))  # w: how fast far tokens fade
        self.bonus = nn.Parameter(torch.zeros(2, channels))  # u: weight of the token itself

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(x)
        k, v = self.key(z), self.value(z)
        v = bi_wkv(self.decay[0], self.bonus[0], k, v)
        # Transposed, rows run along columns; the operator reads any strides without a copy.
        v = bi_wkv(self.decay[1], self.bonus[1], k.transpose(1, 2), v.transpose(1, 2))
        return x + self.output(torch.sigmoid(self.gate(z)) * v.transpose(1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    arguments = parser.parse_args()

    print("backends here:", ", ".join(name for name, here in available_backends().items() if here))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 16), RowsAndColumns(16), nn.Linear(16, 1))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(1, arguments.steps + 1):
        clean = torch.randn(8, 1, arguments.size, 1).expand(
            -1, arguments.size, -1, -1
        )  # B, H, W, C
        noisy = clean + torch.randn(clean.shape)
        loss = (network(noisy) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in (1, arguments.steps):
            print(f"step {step}: mean squared error {loss.item():.3f}; 1 without a network")


if __name__ == "__main__":
    main()
