"""The block of Restore-RWKV (arXiv 2407.11087, section 3.2) on channels-last tokens.

Every tensor here is an image of tokens (B, H, W, C), contiguous, so that the linear layers and
LayerNorm read the last axis and convolutions see a channels-last view, without copies.
Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from restore_rwkv.ops import bi_wkv, uni_wkv
from restore_rwkv.ops.cpu import mixes, pointwise, shift
from restore_rwkv.ops.eager import is_recorded, runs_kernels


class TokenConv(nn.Conv2d):
    """A square convolution with zero padding that keeps the size: (B, H, W, C) -> (B, H, W, C')."""

    def __init__(self, channels: int, out_channels: int, kernel: int, bias: bool = False) -> None:
        super().__init__(channels, out_channels, kernel, padding=kernel // 2, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve tokens (B, H, W, C); the result is contiguous."""
        if self.kernel_size == (1, 1):
            return F.linear(input, self.weight.flatten(1), self.bias)
        convolved = super().forward(input.permute(0, 3, 1, 2))
        # With one input channel the layout is ambiguous, and torch returns channels-first.
        return convolved.permute(0, 2, 3, 1).contiguous()


class Resample(nn.Module):
    """A 3x3 convolution, then a pixel (un)shuffle by 2, on (B, H, W, C).

    Args:
        channels: C.
        up: True for (B, H, W, C) -> (B, 2H, 2W, C/2), False for (B, H/2, W/2, 2C).
    """

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        out_channels = 2 * channels if up else channels // 2
        self.body = nn.Sequential(TokenConv(channels, out_channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Resample tokens."""
        return pixel_shuffle(self.body(x), 2) if self.up else pixel_unshuffle(self.body(x), 2)


# torch's own (un)shuffle returns channels-first, which would need a second copy.
def pixel_shuffle(x: Tensor, side: int) -> Tensor:
    """Turn channels into squares of pixels: (B, H, W, C s^2) -> (B, s H, s W, C)."""
    b, h, w, c = x.shape
    c //= side**2
    x = x.reshape(b, h, w, c, side, side).permute(0, 1, 4, 2, 5, 3)  # B, H, s, W, s, C
    return x.reshape(b, side * h, side * w, c)


def pixel_unshuffle(x: Tensor, side: int) -> Tensor:
    """Turn squares of pixels into channels: (B, H, W, C) -> (B, H/s, W/s, C s^2)."""
    b, h, w, c = x.shape
    h, w = h // side, w // side
    x = x.reshape(b, h, side, w, side, c).permute(0, 1, 3, 5, 2, 4)  # B, H/s, W/s, C, s, s
    return x.reshape(b, h, w, c * side**2)


class OmniShift(nn.Module):
    """Omni-Shift, the multi-scale depth-wise token shift (eq. 11).

    `alpha[0] * x + alpha[1] * DW1x1(x) + alpha[2] * DW3x3(x) + ...`, zero padded. The sum is linear
    in x, so the kernels of the branches are added first; training, too, needs one convolution.

    Args:
        channels: C.
        kernel_size: side of the largest branch: 1, 3, 5, 7 or 9 (table 8).
        branches: False keeps only the largest branch, without alpha and the identity (table 8).
        merged: hold one kernel instead of the branches (inference).
    """

    def __init__(
        self, channels: int, kernel_size: int = 5, branches: bool = True, merged: bool = False
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.branches = branches and not merged
        if self.branches:
            sides = range(1, kernel_size + 1, 2)
            self.alpha = nn.Parameter(torch.randn(1 + len(sides)))
        else:
            sides = range(kernel_size, kernel_size + 1)
        self._names = [f"conv{side}x{side}" for side in sides]
        self._names[-1] += "_reparam" if merged else ""
        for name, side in zip(self._names, sides, strict=True):
            convolution = nn.Conv2d(channels, channels, side, groups=channels, bias=False)
            self.add_module(name, convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Shift tokens (B, H, W, C)."""
        kernel = self.kernel()
        shifted = F.conv2d(
            x.permute(0, 3, 1, 2), kernel, padding=self.kernel_size // 2, groups=kernel.shape[0]
        )
        return shifted.permute(0, 2, 3, 1)

    def kernel(self) -> Tensor:
        """Return the one depth-wise kernel (C, 1, k, k) that equals identity and branches."""
        *smaller, kernel = self.branch_kernels()
        if not self.branches:
            return kernel
        size = self.kernel_size
        kernel = self.alpha[-1] * kernel
        for factor, weight in zip(self.alpha[1:-1], smaller, strict=True):
            kernel = kernel + F.pad(factor * weight, [(size - weight.shape[-1]) // 2] * 4)
        identity = F.pad(self.alpha[:1].reshape(1, 1, 1, 1), [size // 2] * 4)
        return kernel + identity

    @torch.no_grad()
    def split(self, kernel: Tensor) -> None:
        """Set the largest branch such that `kernel()` is the given one (C, 1, k, k).

        The other branches and their alpha stay; alpha of the largest becomes 1.
        """
        largest = self.branch_kernels()[-1].zero_()
        if self.branches:
            self.alpha[-1] = 1
            kernel = kernel - self.kernel()
        largest.copy_(kernel)

    def branch_kernels(self) -> list[Tensor]:
        """Return the kernels (C, 1, k, k) of the branches, the largest last."""
        return [cast(nn.Conv2d, self._modules[name]).weight for name in self._names]


class NeighbourShift(nn.Module):
    """The simpler token shifts that table 5 compares with Omni-Shift.

    `mix * x + (1 - mix) * neighbour(x)` with one learned weight per channel, initially 0.5. RWKV
    and Vision-RWKV learn separate weights for r, k and v; here they share one, as they share the
    output of Omni-Shift, so that only the shift is compared. Neighbours outside the image are 0.

    Args:
        channels: C.
        kind: "uni", the previous token in row-major order (RWKV), or "quad", a quarter of the
            channels each from the left, right, upper and lower neighbour (Vision-RWKV).
    """

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.mix = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Shift tokens (B, H, W, C)."""
        neighbour = _previous(x) if self.kind == "uni" else _from_four_sides(x)
        return torch.lerp(neighbour, x, self.mix)


def _previous(x: Tensor) -> Tensor:
    return F.pad(x.flatten(1, 2)[:, :-1], (0, 0, 1, 0)).view_as(x)


def _from_four_sides(x: Tensor) -> Tensor:
    quarters = torch.tensor_split(x, 4, dim=-1)
    left = F.pad(quarters[0][:, :, :-1], (0, 0, 1, 0))
    right = F.pad(quarters[1][:, :, 1:], (0, 0, 0, 1))
    upper = F.pad(quarters[2][:, :-1], (0, 0, 0, 0, 1, 0))
    lower = F.pad(quarters[3][:, 1:], (0, 0, 0, 0, 0, 1))
    return torch.cat([left, right, upper, lower], dim=-1)


def _norm_and_shift(x: Tensor, norm: nn.Module, token_shift: nn.Module) -> Tensor:
    """Return token_shift(norm(x)), by one kernel if there is one."""
    if type(token_shift) is OmniShift and isinstance(norm, nn.LayerNorm):
        alpha = token_shift.alpha if token_shift.branches else None
        kernels = token_shift.branch_kernels()
        parameters = kernels if alpha is None else [alpha, *kernels]
        # First, as torch.compile cannot look into the other questions.
        fused = runs_kernels(x, *norm.parameters(), *parameters)
        if fused and shift.takes(x, norm, *parameters) and not pointwise.has_hooks(token_shift):
            return shift.norm_and_shift(x, norm, kernels, alpha)
    shifted: Tensor = token_shift(norm(x))
    return shifted


class TokenMix(nn.Module):
    """Base of both mixes: applies functions of single tokens in bands that fit the cache."""

    def _each_token(
        self,
        function: Callable[..., Tensor],
        *inputs: Tensor,
        residual: Tensor,
        gamma: Tensor,
        whole: bool,
    ) -> Tensor:
        """Return `residual + gamma * function(*inputs)` for a function of single tokens.

        Unless `whole`, the tokens are processed in bands: a hidden layer of 4 C channels is then
        never in memory as a whole, and chains of cheap operations run from cache.

        Args:
            function: tensors (..., C) -> (..., C).
            inputs: (B, H, W, C).
            residual: (B, H, W, C).
            gamma: (C,).
            whole: process all tokens at once.
        """
        if whole:
            return torch.addcmul(residual, gamma, function(*inputs))
        out = torch.empty(residual.shape, dtype=residual.dtype, device=residual.device)
        channels = residual.shape[-1]
        target = out.view(-1, channels)
        tokens = [x.reshape(-1, channels) for x in inputs]
        residual = residual.reshape(-1, channels)
        size = _band(residual)
        for start in range(0, len(target), size):
            band = slice(start, start + size)
            y = function(*(x[band] for x in tokens))
            torch.addcmul(residual[band], gamma, y, out=target[band])
        return out


def _band(x: Tensor) -> int:
    """Tokens per band: on a CPU as many as its cache holds, elsewhere a bound on memory."""
    elements = 2**18 if x.device.type == "cpu" else 2**26
    return max(1, elements // x.shape[-1])


class SpatialMix(TokenMix):
    """Spatial mixing by Re-WKV attention (eq. 1-4, 8-10).

    Args:
        channels: C.
        shift: the token shift, (B, H, W, C) -> (B, H, W, C).
        scans: directions, "rows" or "columns", each with its own decay and bonus (M = len(scans)).
        summed: sum the scans of the same v (table 7) instead of feeding each scan to the next.
        causal: use Uni-WKV, where a token sees only itself and earlier tokens (table 5).
        ranges: (shortest, longest) initial range of the attention in tokens, spread log-uniformly
            over the channels; `spatial_decay` is then the logarithm of the range. None for the
            paper's decay and bonus, which are divided by the number of tokens.
    """

    def __init__(
        self,
        channels: int,
        shift: nn.Module,
        scans: Sequence[str] = ("rows", "columns"),
        summed: bool = False,
        causal: bool = False,
        ranges: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.scans = tuple(scans)
        self.summed = summed
        self.causal = causal
        self.ranges = ranges
        self.spatial_decay = nn.Parameter(torch.randn(len(self.scans), channels))
        self.spatial_first = nn.Parameter(torch.randn(len(self.scans), channels))
        self.omni_shift = shift
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)
        if ranges is not None:
            shortest, longest = (math.log(length) for length in ranges)
            with torch.no_grad():
                self.spatial_decay.copy_(torch.linspace(shortest, longest, channels))

    def forward(self, x: Tensor, norm: nn.Module, gamma: Tensor) -> Tensor:
        """Return x + gamma * mix(norm(x)) for tokens (B, H, W, C), mixed over the image."""
        shifted = _norm_and_shift(x, norm, self.omni_shift)
        layers = (self.key, self.value, self.receptance, self.output)
        weights = [layer.weight for layer in layers]
        decays = self._decays(x.shape[1] * x.shape[2])
        fused = runs_kernels(x, shifted, gamma, *decays, *weights)
        fused = fused and pointwise.takes(shifted, gamma, *layers)
        if fused and not (self.summed or self.causal):
            return mixes.mix_tokens(shifted, x, gamma, *decays, weights, self.scans)
        recorded = is_recorded(x, shifted, gamma, parameters=self.parameters())
        if fused and not recorded:
            key, value, receptance, output = weights
            y = self._scan(*pointwise.project(shifted, key, value), recorded)
            return pointwise.gate(shifted, y, receptance, output, x, gamma)[0]
        y = self._scan(self.key(shifted), self.value(shifted), recorded)
        return self._each_token(self._gated, shifted, y, residual=x, gamma=gamma, whole=recorded)

    def attended(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Return the output of Re-WKV (B, H, W, C) for the tokens that `forward` would mix."""
        shifted = _norm_and_shift(x, norm, self.omni_shift)
        return self._scan(self.key(shifted), self.value(shifted), recorded=True)

    def _gated(self, x: Tensor, y: Tensor) -> Tensor:
        gated: Tensor = self.output(self.receptance(x).sigmoid_() * y)
        return gated

    def _decays(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Decay and bonus (M, C) as the operator takes them, which divides them by the tokens."""
        if self.ranges is None:
            return self.spatial_decay, self.spatial_first
        return tokens * torch.exp(-self.spatial_decay), tokens * self.spatial_first

    def _scan(self, k: Tensor, v: Tensor, recorded: bool) -> Tensor:
        """Re-WKV: v(j) = BiWKV(k, v(j-1)), or the sum of all BiWKV(k, v)."""
        results = []
        out = None if recorded or self.summed else v
        decays = self._decays(k.shape[1] * k.shape[2])
        for direction, w, u in zip(self.scans, *decays, strict=True):
            results.append(self._attend(direction, w, u, k, v, out))
            if not self.summed:
                v = results.pop()
        return torch.stack(results).sum(0) if self.summed else v

    def _attend(
        self, direction: str, w: Tensor, u: Tensor, k: Tensor, v: Tensor, out: Tensor | None
    ) -> Tensor:
        if direction == "columns":
            k, v = k.transpose(1, 2), v.transpose(1, 2)
            out = None if out is None else out.transpose(1, 2)
        y = uni_wkv(w, u, k, v) if self.causal else bi_wkv(w, u, k, v, out=out)
        return y.transpose(1, 2) if direction == "columns" else y


class ChannelMix(TokenMix):
    """Channel mixing, a gated feed-forward network with a squared ReLU (eq. 5-7).

    Args:
        channels: C.
        shift: the token shift, (B, H, W, C) -> (B, H, W, C).
        hidden_rate: width of the hidden layer in units of C.
    """

    def __init__(self, channels: int, shift: nn.Module, hidden_rate: int = 4) -> None:
        super().__init__()
        self.omni_shift = shift
        self.key = nn.Linear(channels, hidden_rate * channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(hidden_rate * channels, channels, bias=False)

    def forward(self, x: Tensor, norm: nn.Module, gamma: Tensor) -> Tensor:
        """Return x + gamma * mix(norm(x)) for tokens (B, H, W, C), mixed over their channels."""
        shifted = _norm_and_shift(x, norm, self.omni_shift)
        layers = (self.key, self.receptance, self.value)
        weights = [layer.weight for layer in layers]
        fused = runs_kernels(x, shifted, gamma, *weights)
        if fused and pointwise.takes(shifted, gamma, *layers):
            return mixes.mix_channels(shifted, x, gamma, *weights)
        recorded = is_recorded(x, shifted, gamma, parameters=self.parameters())
        return self._each_token(self._mixed, shifted, residual=x, gamma=gamma, whole=recorded)

    def _mixed(self, x: Tensor) -> Tensor:
        k = _squared_relu(self.key(x))
        mixed: Tensor = self.receptance(x).sigmoid_() * self.value(k)
        return mixed


def _squared_relu(x: Tensor) -> Tensor:
    """Return max(x, 0)^2; overwrites x if no gradients are recorded."""
    if torch.is_grad_enabled():
        squared: Tensor = _SquaredReLU.apply(x)  # type: ignore[no-untyped-call]
        return squared
    return x.relu_().square_()


class _SquaredReLU(torch.autograd.Function):
    """Computes its gradient 2 max(x, 0) in two passes, autograd in four (10 % of a step)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        k = x.relu()
        ctx.save_for_backward(k)
        return k.square()

    @staticmethod
    @once_differentiable  # a second derivative would treat k as a constant
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (k,) = ctx.saved_tensors
        product: Tensor = gradient * k
        return product.mul_(2)


class Block(nn.Module):
    """One R-RWKV block: X + gamma1 * SpatialMix(LN1(X)), then X + gamma2 * ChannelMix(LN2(X)).

    Args:
        channels: C.
        att: the spatial mix.
        ffn: the channel mix.
    """

    def __init__(self, channels: int, att: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(channels)
        self.ln2 = nn.LayerNorm(channels)
        self.att = att
        self.ffn = ffn
        self.gamma1 = nn.Parameter(torch.ones(channels))
        self.gamma2 = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, H, W, C)."""
        x = self.att(x, self.ln1, self.gamma1)
        x = self.ffn(x, self.ln2, self.gamma2)
        return x
