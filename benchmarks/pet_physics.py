"""`python -m benchmarks.pet_physics T1.nii.gz [AXES] [PICTURE.png]`: measurements on simulated PET.

Prints the laws of the simulator on the head of a T1-weighted MRI as a Markdown table: noise over
realisations, in grey and white matter and wherever the image is above 2 SUV. AXES are the
directions of the array's axes, such as PIR, for a file whose affine is wrong.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore_rwkv.io import Volume, atomic_file, read_volume
from restore_rwkv.physics.pet.activity import Uptake, activity_map, attenuation_map, sample_uptake
from restore_rwkv.physics.pet.dose import simulate_pair
from restore_rwkv.physics.pet.head import Head, segment_head
from restore_rwkv.physics.pet.scanner import PETScanner, PETSystem, acquire

_DOSE = 1 / 12
_REALISATIONS = 6
_PLAIN = Uptake(grey=9.0, white=3.0, csf=0.5, soft=1.5)  # regions of one value


def stack(volume: Volume) -> Tensor:
    """Return axial slices (Z, X, Y) of a volume."""
    return torch.from_numpy(np.moveaxis(volume.data, 2, 0).copy())


def pair(activity: Tensor, mu: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return simulate_pair(activity, mu, dose=_DOSE, generator=torch.Generator().manual_seed(seed))


def counting(activity: Tensor, mu: Tensor) -> list[tuple[str, str]]:
    """Return checks of prompts, thinned events and the adjoint."""
    system = PETSystem(PETScanner(), mu)
    seeds = range(len(activity))
    scan = acquire(activity, system, seeds)
    kept = scan.thinned(_DOSE, [seed + 1000 for seed in seeds]).prompts
    # Expected counts, from the model; the axial blur is left out on both sides by spacing 0.
    flat = PETSystem(replace(PETScanner(), slice_spacing=0.0), mu)
    still = acquire(activity, flat, seeds)
    rate = still.scale * flat.A(activity) + still.background
    thin = still.thinned(_DOSE, [seed + 1000 for seed in seeds]).prompts
    seen = rate > 5
    residual = (thin - _DOSE * rate)[seen].double()
    lost = (still.prompts - thin - (1 - _DOSE) * rate)[seen].double()
    part = system.part(slice(0, 1))
    x, y = torch.rand(1, 128, 128), torch.rand(kept[:1].shape)
    there, back = (part.A(x) * y).double().sum(), (x * part.A_adjoint(y)).double().sum()
    correlation = torch.corrcoef(torch.stack([residual, lost]))[0, 1]
    return [
        ("prompts per slice, full", f"{scan.prompts.double().sum() / len(activity):.0f}"),
        ("thinned events / (dose x prompts)", f"{kept.sum() / scan.prompts.sum() / _DOSE:.4f}"),
        (
            "variance / mean of thinned events",
            f"{(residual.square() / (_DOSE * rate[seen])).mean():.4f}",
        ),
        ("correlation of kept with discarded events", f"{correlation:+.4f}"),
        ("adjoint error, float32", f"{abs(there - back) / there:.0e}"),
    ]


def images(head: Head) -> list[tuple[str, str]]:
    """Return totals, means and noise of full and low-dose images over realisations."""
    activity, mu = stack(activity_map(head, _PLAIN)), stack(attenuation_map(head))
    pairs = [pair(activity, mu, seed) for seed in range(_REALISATIONS)]
    full, low = (torch.stack([images[k] for images in pairs]) for k in (0, 1))
    inner = torch.zeros_like(activity, dtype=torch.bool)
    inner[8:-8] = True  # the filter mirrors the end slices
    regions = {
        "grey matter": (stack(Volume(head.grey, head.affine)) > 0.9) & inner,
        "white matter": (stack(Volume(head.white, head.affine)) > 0.95) & inner,
        "brain above 2 SUV": (full.mean(0) > 2) & inner,
        "CSF": (stack(Volume(head.csf, head.affine)) > 0.95) & inner,
    }
    rows = []
    for name, image in (("full", full), ("1/12", low)):
        totals = image.sum(dim=(1, 2, 3)) / activity.sum()
        rows.append((f"total / true, {name}", f"{totals.mean():.4f} +- {totals.std():.4f}"))
    for name, region in regions.items():
        means = [image.mean(0)[region].mean().item() for image in (full, low)]
        noise = [image.var(0)[region].mean().sqrt().item() for image in (full, low)]
        spread = [sd / mean for sd, mean in zip(noise, means, strict=True)]
        rows += [
            (
                f"{name}: SUVmean true, full, 1/12",
                f"{activity[region].mean():.2f}, {means[0]:.2f}, {means[1]:.2f}",
            ),
            (
                f"{name}: CoV full, 1/12; ratio of sd",
                f"{spread[0]:.3f}, {spread[1]:.3f}; {noise[1] / noise[0]:.2f}",
            ),
        ]
    peaks = [image.amax(dim=(1, 2, 3)).mean().item() for image in (full, low)]
    rows.append(
        ("SUVmax true, full, 1/12", f"{activity.max():.1f}, {peaks[0]:.1f}, {peaks[1]:.1f}")
    )
    return rows


def picture(head: Head, path: Path) -> None:
    """Draw activity, full dose, 1/12 and difference; axial and coronal; only the brain."""
    from matplotlib.figure import Figure

    uptake = sample_uptake(head, torch.Generator().manual_seed(7))
    activity = stack(activity_map(head, uptake))
    full, low = pair(activity, stack(attenuation_map(head)), 0)
    brain = stack(Volume(head.grey + head.white + head.csf, head.affine))
    # Only the brain is drawn, since a face can be recognised.
    near = torch.nn.functional.max_pool3d(brain[None, None], 5, 1, 2)[0, 0] > 0
    shown = [torch.where(near, x, torch.nan).numpy() for x in (activity, full, low, low - full)]
    z, _, y = (int(places.float().median()) for places in near.nonzero().unbind(1))
    left, right = near.any(0).any(1).nonzero()[[0, -1], 0].tolist()
    back, front = near.any(0).any(0).nonzero()[[0, -1], 0].tolist()
    views = [
        [image[z + 4, left : right + 1, back : front + 1].T for image in shown],
        [image[:, left : right + 1, y] for image in shown],
    ]
    ratio = [view[0].shape[0] for view in views]
    width = 4 * (right - left + 1)
    figure = Figure(figsize=(11, 11 * sum(ratio) / width + 0.5), layout="constrained")
    grid = figure.subplots(2, 4, height_ratios=ratio)
    titles = ("activity", "simulated PET, full dose", "simulated PET, 1/12", "1/12 - full")
    for column, title in enumerate(titles):
        colours = ("RdBu_r", -8, 8) if column == 3 else ("gray_r", 0, 12)
        for axes, view in zip(grid[:, column], views, strict=True):
            cmap, low_end, high_end = colours
            drawn = axes.imshow(view[column], cmap, vmin=low_end, vmax=high_end, origin="lower")
            axes.set_axis_off()
        grid[0, column].set_title(title, fontsize=11)
        if column > 1:
            bar = {"location": "bottom", "shrink": 0.8, "aspect": 30, "label": "SUV"}
            figure.colorbar(drawn, ax=grid[1, column], **bar)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=90)


def main() -> None:
    torch.set_num_threads(1)
    path, axes, *rest = [*sys.argv[1:], None]
    began = time.process_time()
    head = segment_head(read_volume(Path(str(path))), axes=axes)
    segmented = time.process_time() - began
    activity, mu = stack(activity_map(head, _PLAIN)), stack(attenuation_map(head))
    began = time.process_time()
    pair(activity, mu, 0)
    simulated = time.process_time() - began
    rows = [*counting(activity, mu), *images(head)]
    rows.append(("segmentation, CPU time", f"{segmented:.1f} s"))
    rows.append((f"pair of {len(activity)} slices, CPU time", f"{simulated:.1f} s"))
    print("| law | measured |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows))
    if rest and rest[0]:
        picture(head, Path(rest[0]))


if __name__ == "__main__":
    main()
