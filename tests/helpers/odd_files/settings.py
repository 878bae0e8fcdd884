"""Options and arguments out of range, of the wrong kind, or in the wrong place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.helpers.odd_files.case import Family, Refused, Restored
from tests.helpers.odd_files.images import ct, mri, plain, save_nifti

FAMILY = Family("settings")

_RESTORE = "restore scan.nii.gz -o out.nii.gz -t mri-sr"
_DEGRADED = ("out.degradation.json", "out.nii.gz")


def _ct(folder: Path) -> None:
    save_nifti(folder / "scan.nii.gz", ct().astype(np.int16))


def _wrong(options: str, says: str, codes: tuple[int, ...] = (2,)) -> None:
    FAMILY.add(f"restore {options}", plain, Refused(codes, says), words=f"{_RESTORE} {options}")


for _value in ("0.5", "1", "9", "nan", "inf", "-2", "1e300", "four"):
    _wrong(f"--scale {_value}", "scale")
for _value in ("0", "1kB", "lots", "-1GB", "1e9", "''", "9" * 30):
    _wrong(f"--memory {_value}", "memory", (2, 6))
FAMILY.add(
    "restore --memory 999999TB",
    plain,
    Restored(),
    Refused((2, 6), "memory"),
    words=f"{_RESTORE} --memory 999999TB",
)
for _value in ("gpu", "cpu:7", "tpu", "''"):
    _wrong(f"--device {_value}", "device")
if not torch.cuda.is_available():
    _wrong("--device cuda", "device|cuda|GPU", (2, 6))
_wrong("--dtype int8", "dtype")
_wrong("--scaling none", "scaling")
_wrong("--plane oblique", "plane")
_wrong("--unit kg", "unit")
_wrong("--unit SUV", "unit|SUV|PET", (2, 3))
for _value in ("MRI", "''", "all-in-one", "mri-super", "MRI-SR"):
    FAMILY.add(
        f"restore --task {_value}",
        plain,
        Refused((2,), "task|weights"),
        words=f"restore scan.nii.gz -o out.nii.gz --task {_value}",
    )
for _value in ("-1", "2.5", "many", "9" * 30):
    _wrong(f"--consistency {_value}", "consistency|large")
for _value in ("0.5", "0", "nan", "-4", "inf", "1e300"):
    _wrong(f"--factor {_value} --consistency 5", "factor", (2, 3))
_wrong("--strength 0.5", "strength|CT", (2, 3))
_wrong("--series 3", "series", (2, 3))
_wrong("--denoise", "denoise|option")
_wrong("--overwrite=perhaps", "overwrite|option")
_wrong("second.nii.gz", "argument|unexpected|second")
for _value in ("2", "nan", "-0.1", "inf"):
    FAMILY.add(
        f"restore CT --strength {_value}",
        _ct,
        Refused((2,), "strength"),
        words=f"restore scan.nii.gz -o out.nii.gz -t ct-denoise --strength {_value}",
    )
FAMILY.add(
    "restore CT --scale 2",
    _ct,
    Refused((2, 3), "scale|MRI"),
    words="restore scan.nii.gz -o out.nii.gz -t ct-denoise --scale 2",
)
FAMILY.add("no output", plain, Refused((2,), "output|-o"), words="restore scan.nii.gz -t mri-sr")
FAMILY.add("no input", plain, Refused((2,), "IN|source|argument"), words="restore -o out.nii.gz")
FAMILY.add("unknown command", plain, Refused((2,), "restor|command"), words="restor scan.nii.gz")
for _words in ("--help", "-h", "--version", "restore --help", "info", "info --json", ""):
    FAMILY.add(
        f"restore-rwkv {_words}".strip(), lambda f: None, Restored(), words=_words, outputs=()
    )

_DEGRADE = "degrade scan.nii.gz -o out.nii.gz -t "
FAMILY.add("degrade", plain, Restored(), words=_DEGRADE + "mri-sr", outputs=_DEGRADED)
for _value in ("2", "0", "-1", "nan", "inf"):
    FAMILY.add(
        f"degrade --dose {_value}",
        _ct,
        Refused((2,), "dose"),
        words=f"{_DEGRADE}ct-denoise --dose {_value}",
    )
for _option, _says in {
    "--factor 0.5": "factor",
    "--factor 1000": "factor",
    "--factor nan": "factor",
    "--sigma nan": "sigma",
    "--sigma -1": "sigma",
    "--sigma inf": "sigma",
    "--seed -1": "seed",
    "--seed 1e23": "seed",
    "--seed one": "seed",
    "--dose 0.5": "dose",
    "--truth out.nii.gz": "truth|same",
    "--truth scan.nii.gz": "truth|same|exists|input",
}.items():
    FAMILY.add(
        f"degrade {_option}", plain, Refused((2, 3), _says), words=f"{_DEGRADE}mri-sr {_option}"
    )
FAMILY.add(
    "degrade --seed 10 ** 23",
    plain,
    Refused((2,), "seed"),
    Restored(),
    words=f"{_DEGRADE}mri-sr --sigma 0.1 --seed 1{'0' * 23}",
    outputs=_DEGRADED,
)
FAMILY.add(
    "degrade zeros",
    lambda f: save_nifti(f / "scan.nii.gz", np.zeros(mri().shape, np.int16)),
    Refused((3, 4), "zero|nothing|all values|constant|noise|air|photons|HU"),
    words=_DEGRADE + "ct-denoise",
)
FAMILY.add(
    "evaluate --seed 10 ** 23",
    plain,
    Refused((2,), "seed"),
    Restored(),
    words=f"evaluate scan.nii.gz -t mri-sr --seed 1{'0' * 23}",
    outputs=(),
)
_no_file = Refused((2, 3), "no such|task|modality|empty|neither|set|scan")
for _words in (
    "evaluate nowhere -t mri-sr",
    "evaluate empty -t mri-sr",
    "evaluate scan.nii.gz",
    "data check empty",
    "data prepare folder empty -o set --task mri-sr",
    "data prepare ixi empty -o set",
):
    FAMILY.add(_words, lambda f: (plain(f), (f / "empty").mkdir()), _no_file, words=_words)
FAMILY.add(
    "evaluate --split dev",
    plain,
    Refused((2,), "split"),
    words="evaluate scan.nii.gz -t mri-sr --split dev",
)
_recipe = Refused((2, 3, 7), "recipe|no such|TOML|toml|\\.nii")
FAMILY.add("train nothing", plain, _recipe, words="train nowhere.toml --data nowhere -o run")
FAMILY.add("train an image", plain, _recipe, words="train scan.nii.gz --data nowhere -o run")
FAMILY.add(
    "prepare with half a pattern",
    lambda f: (f / "scans" / "a").mkdir(parents=True) or plain(f / "scans" / "a"),
    Refused((2,), "pattern|patient"),
    words="data prepare folder scans -o set --task mri-sr --patient '('",
)
FAMILY.add(
    "prepare onto a folder that exists",
    lambda f: (f / "scans" / "a").mkdir(parents=True) or plain(f / "scans" / "a"),
    Refused((2, 3), "exists"),
    words="data prepare folder scans -o scans --task mri-sr",
)
