"""`python -m benchmarks.quadratic`: our attention beside quadratic self-attention over all pixels.

Re-WKV as the network runs it (a scan along the rows, then one along the columns), and softmax
attention of one head, both on (1, H, W, C) without their projections, forward only. Softmax
attention runs as PyTorch's plain form, which holds the T x T matrix, and as its tiled form, which
does not. Both are checked first: Re-WKV against the equation itself, softmax attention against
float64. Each size is measured in a process of its own, whose address space is capped at --cap above
what Python and PyTorch take. A size that fails ends its row, with the reason; so does one that the
size before it predicts to take longer than --longest.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.scaling import Results, Styles, draw, print_slopes
from benchmarks.timing import (
    LeftOutError,
    Measured,
    command,
    figures,
    header,
    in_fresh_process,
    machine,
    measured,
    mebibytes,
    row,
)
from restore_rwkv.model.measuring import kibibytes
from restore_rwkv.ops import bi_wkv
from restore_rwkv.options import parse_memory

SHOWN: Styles = {
    "Re-WKV": ("-", "o", "0.0"),
    "softmax, plain": ("--", "s", "0.45"),
    "softmax, tiled": ("--", "D", "0.0"),
}
SIZES = [32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048]
_CHECKED = 24  # pixels per side
_POWER = {"Re-WKV": 1, "softmax, plain": 2, "softmax, tiled": 2}


class Inputs(NamedTuple):
    """Query, key and value (1, H, W, C), and decay and bonus (2, C) of both scans."""

    q: Tensor
    k: Tensor
    v: Tensor
    w: Tensor
    u: Tensor

    @classmethod
    def draw(cls, side: int, channels: int, device: str = "cpu") -> Inputs:
        torch.manual_seed(0)
        tokens = [torch.randn(1, side, side, channels, device=device) for _ in range(3)]
        return cls(*tokens, *(torch.randn(2, channels, device=device) for _ in range(2)))


def re_wkv(x: Inputs, backend: str = "auto") -> Tensor:
    """Return Re-WKV of two scans (eq. 9 and 10), the second in place, as in the network."""
    y = bi_wkv(x.w[0], x.u[0], x.k, x.v, backend=backend)
    turned = y.transpose(1, 2)
    bi_wkv(x.w[1], x.u[1], x.k.transpose(1, 2), turned, backend=backend, out=turned)
    return y


def softmax(x: Inputs, form: SDPBackend) -> Tensor:
    """Return softmax attention of one head over all pixels."""
    q, k, v = (tokens.flatten(1, 2)[:, None] for tokens in (x.q, x.k, x.v))
    with sdpa_kernel(form):
        return F.scaled_dot_product_attention(q, k, v).reshape(x.v.shape)


ATTENTIONS: dict[str, Callable[[Inputs], Tensor]] = {
    "Re-WKV": re_wkv,
    "softmax, plain": lambda x: softmax(x, SDPBackend.MATH),
    "softmax, tiled": lambda x: softmax(x, SDPBackend.FLASH_ATTENTION),
}


def check(name: str, channels: int, device: str) -> float:
    """Return the error of an attention on a small image, relative in root mean square."""
    x = Inputs.draw(_CHECKED, channels, device)
    double = Inputs(*(tensor.double() for tensor in x))
    if name == "Re-WKV":
        truth = re_wkv(double, backend="reference")
    else:
        q, k, v = (tokens.flatten(1, 2) for tokens in double[:3])
        weights = torch.einsum("btc,bsc->bts", q, k) / math.sqrt(channels)
        truth = torch.einsum("bts,bsc->btc", weights.softmax(-1), v).reshape(x.v.shape)
    result = ATTENTIONS[name](x)
    error = float((result - truth).norm() / truth.norm())
    if not error < 1e-5:
        raise SystemExit(f"{name}: differs from its equation by {error:.1e} of its size")
    return error


def measure(name: str, side: int, channels: int, cap: int, device: str) -> Measured:
    """Measure one attention on side x side pixels. Call it in a fresh process.

    Raises:
        LeftOutError: it does not fit below the cap.
    """
    x = Inputs.draw(side, channels, device)
    with torch.inference_mode():
        ATTENTIONS[name](Inputs.draw(8, channels, device))  # one-time initialisation
        if device == "cpu":
            limit_address_space(cap)
        try:
            return measured(lambda: ATTENTIONS[name](x), budget=30, device=device)
        except (MemoryError, RuntimeError) as error:
            wanted = re.search(r"allocate (\d+) bytes", str(error))
            if wanted is None and not re.search("memory", str(error) or "memory"):
                raise
            size = f"{int(wanted[1]) / 2**30:.1f} GiB" if wanted else "more memory"
            raise LeftOutError(
                f"fails: asks for {size} at once, {cap / 2**30:.1f} GiB are allowed"
            ) from error


def limit_address_space(cap: int) -> None:
    """Allow this process so many bytes of address space above what it has; only on Linux."""
    try:
        import resource

        held = 1024 * kibibytes(Path("/proc/self/status"), "VmSize")
        resource.setrlimit(resource.RLIMIT_AS, (held + cap, held + cap))
    except (ImportError, OSError) as error:
        raise LeftOutError("this system has no limit of the address space") from error


def measure_sizes(name: str, words: argparse.Namespace) -> Results:
    """Print and return time and memory of each size, up to the first that fails."""
    done: Results = {}
    for size in sorted(words.sizes):
        try:
            if done:
                last = max(done)
                expected = (size / last) ** (2 * _POWER[name]) * done[last].median
                if expected > words.longest:
                    raise LeftOutError(f"about {expected:.0f} s, above --longest {words.longest:g}")
            found = in_fresh_process(
                measure, name, size, words.channels, parse_memory(words.cap), words.device
            )
        except LeftOutError as error:
            row(name, f"{size} x {size}", f"{error}", "")
            break
        done[size] = found
        row(name, f"{size} x {size}", figures(found.seconds), mebibytes(found.peak))
    return done


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--only", nargs="+", choices=SHOWN, default=list(SHOWN))
    parser.add_argument("--cap", default="8GiB", help="address space above PyTorch's")
    parser.add_argument("--longest", type=float, default=120, help="seconds of one call")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("docs/quadratic.png"))
    words = parser.parse_args(arguments)
    about = f"{machine(words.device)}, float32, {words.channels} channels"
    print(f"{command('benchmarks.quadratic', arguments)}\n\n{about}\n")
    for name in words.only:
        error = check(name, words.channels, words.device)
        print(f"{name}: {error:.0e} from its equation on {_CHECKED} x {_CHECKED}")
    print()
    header("attention", "pixels", "seconds", "peak above the inputs, MiB")
    results = {name: measure_sizes(name, words) for name in words.only}
    results = {name: done for name, done in results.items() if done}
    print_slopes(results)
    if results:
        draw(results, about, words.out, shown=SHOWN, below="inputs")
        print(f"\n{words.out}")


if __name__ == "__main__":
    main()
