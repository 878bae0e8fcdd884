"""`python -m benchmarks.bi_wkv`: time of the operator on a CPU beside one exponential per element.

Each row is checked against float64 before it is timed. Times are median (min-max) in ms.
"""

from __future__ import annotations

import torch

from benchmarks.timing import machine, milliseconds, ratio, shown
from restore_rwkv.ops import bi_wkv
from restore_rwkv.ops.reference import bi_wkv_rows

SHAPES = ((256, 384), (1024, 192), (4096, 96), (16384, 48), (65536, 48), (262144, 48))


def check(w: torch.Tensor, u: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> float:
    """Relative RMS error of 64 outputs of 8 channels against the equation in float64."""
    rows = torch.randint(0, k.shape[1], (64,))
    part = [x[..., :8].double() for x in (w, u, k, v)]
    truth = bi_wkv_rows(*part, rows)
    error = bi_wkv(w, u, k, v)[:, rows, :8].double() - truth
    relative = float((error.square().mean() / truth.square().mean()).sqrt())
    if not relative < 1e-5:
        raise SystemExit(f"T = {k.shape[1]}: relative RMS error {relative:.1e} is above 1e-5")
    return relative


def main() -> None:
    torch.manual_seed(0)
    print(machine())
    print("| T | C | error | exp(k - max) | forward | / exp | columns | backward | / exp | torch |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tokens, channels in SHAPES:
        side = int(tokens**0.5)
        w, u = torch.randn(channels), torch.randn(channels)
        k, v = (torch.randn(1, tokens, channels) for _ in range(2))
        error = check(w, u, k, v)
        image_k, image_v = (x.view(1, side, side, channels).transpose(1, 2) for x in (k, v))
        with torch.no_grad():
            floor = milliseconds(lambda: torch.exp(k - k.amax(1, keepdim=True)))
            forward = milliseconds(lambda: bi_wkv(w, u, k, v))
            columns = milliseconds(lambda: bi_wkv(w, u, image_k, image_v))
            plain = milliseconds(lambda: bi_wkv(w, u, k, v, backend="torch"), 3)
        arguments = [x.clone().requires_grad_() for x in (w, u, k, v)]
        y, gy = bi_wkv(*arguments), torch.randn_like(k)
        backward = milliseconds(lambda: torch.autograd.grad(y, arguments, gy, retain_graph=True))
        print(
            f"| {tokens} | {channels} | {error:.0e} | {shown(floor)} | {shown(forward)} | "
            f"{ratio(forward, floor)} | {shown(columns)} | {shown(backward)} | "
            f"{ratio(backward, floor)} | {shown(plain)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
