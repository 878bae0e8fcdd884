"""The page of all measures of image quality, made from what the package states of them.

python -m benchmarks.measures > docs/measures.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator

from benchmarks import protocols
from restore_rwkv.evaluation.measures.catalogue import all_measures, measures_named
from restore_rwkv.evaluation.measures.measure import Measure
from restore_rwkv.evaluation.measures.protocols import PROTOCOLS
from restore_rwkv.evaluation.measures.similarity import SIMILARITY_MEASURES
from restore_rwkv.evaluation.physical import PHYSICAL_MEASURES
from restore_rwkv.tasks import TASKS

_RANGES = "\n".join(
    [
        "| task | unit | metric range | value range |",
        "|---|---|---|---|",
        *(
            f"| `{task.name}` | {task.unit} | {task.metric_range[0]:g} to {task.metric_range[1]:g} "
            f"| {task.value_range[0]:g} to {task.value_range[1]:g} |"
            for task in TASKS.values()
        ),
    ]
)

INTRODUCTION = f"""# Measures of image quality

`python -m benchmarks.measures > docs/measures.md` writes this page from what the package states of
each measure, {len(all_measures())} in all. In equations x is the restored image and y the truth, in
physical units; the *metric range* and the *value range* are those of the task:

{_RANGES}

A slice or scan without a value, such as a constant one, is never counted as 0: tables say why it
has none. No measure here sees whether an image serves a diagnosis.
"""

PAIR = """
## The same images under each protocol

PSNR, SSIM and RMSE of two papers compare only where their protocols do. These are the 12 slices of
the sample scan that comes with the package, degraded as `mri-sr` does, and what the shipped weights
make of them (`python -m benchmarks.protocols`). The images are the same in all rows. The last
column is NMSE for `per-volume`, and RMSE otherwise.
"""

NOTES = """
- `fixed-range` divides by 4095, more than this scan reaches, so its PSNR is higher and its SSIM
  hardly sees dim structure. In CT the range is 4096 HU instead of at most 400: for the same error
  20 dB more, or above.
- `skimage` has the PSNR of `paper` here, where nothing lies outside the metric range. In CT it has
  not: bone, lung and air count, and L is that of the whole slice.
- `per-volume` takes the mean square error over all slices before the logarithm, and L from the
  brightest voxel of the scan.
- SSIM differs by its window, its borders and L. Figures of one row say nothing about those of
  another.
"""


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    print("\n".join(page()))


def page() -> Iterator[str]:
    """Lines of the page."""
    yield INTRODUCTION
    yield from catalogue()
    yield PAIR
    yield from protocols.rows()
    yield NOTES.rstrip()


def catalogue() -> Iterator[str]:
    """Lines that describe every measure, from what the package states."""
    for protocol, names in PROTOCOLS.items():
        yield from _section(f"Protocol `{protocol}`", measures_named(names))
    yield from _section("Similarity", SIMILARITY_MEASURES)
    if PHYSICAL_MEASURES:
        yield from _section("Noise, sharpness, contrast and detectability", PHYSICAL_MEASURES)


def _section(title: str, measures: Iterable[Measure]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| measure | unit | range | better | of each | for |"
    yield "|---|---|---|---|---|---|"
    for measure in measures:
        suits = ", ".join(measure.modalities) or "all"
        yield (
            f"| `{measure.name}`: {measure.title} | {_unit(measure)} | {_range(measure)} "
            f"| {_BETTER[measure.better]} | {measure.of} | {suits} |"
        )
    yield "\n| measure | equation | source | blind to |"
    yield "|---|---|---|---|"
    for measure in measures:
        told = (measure.equation, measure.source, measure.blind_to)
        yield f"| `{measure.name}` | {' | '.join(_cell(text) for text in told)} |"
    yield ""


_BETTER = {"higher": "higher", "lower": "lower", "zero": "nearer to 0"}


def _unit(measure: Measure) -> str:
    return {"1": "none", "image": "of the image"}.get(measure.unit, measure.unit)


def _range(measure: Measure) -> str:
    low, high = measure.bounds
    if math.isinf(low) and math.isinf(high):
        return "any number"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"


def _cell(text: str) -> str:
    """Text in a cell of a table, where it would be read as Markdown otherwise."""
    for mark in "\\|*_<[":
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    main()
