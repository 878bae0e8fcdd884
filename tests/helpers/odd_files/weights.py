"""Weight files that are damaged, of another kind, or run code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from tests.helpers.odd_files.arrays import Evil
from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import plain
from tests.helpers.odd_files.running import save_identity

_RESTORE = "restore scan.nii.gz -o out.nii.gz -t mri-sr --weights {source}"
FAMILY = Family("weights", _RESTORE)

_refused = Refused((5,), "weight|safetensors|file|trained|sha|damaged")


def _changed(change: object) -> Make:
    """Return a function that writes a scan, and weights with their bytes changed."""

    def make(folder: Path) -> None:
        plain(folder)
        path = save_identity(folder / "w.safetensors")
        path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]

    return make


def _beside(write: object, name: str = "w.safetensors") -> Make:
    """Return a function that writes a scan, and a file by ``write(path)``."""

    def make(folder: Path) -> None:
        plain(folder)
        write(folder / name)  # type: ignore[operator]

    return make


def _header(content: bytes, change: object) -> bytes:
    """Return a weight file after ``change(header)``."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)  # type: ignore[operator]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _recorded(**values: object) -> Make:
    """Return a function that changes entries of the record in the header."""

    def change(header: dict[str, dict[str, str]]) -> None:
        record = json.loads(header["__metadata__"]["restore_rwkv"])
        for name, value in values.items():
            inner, _, field = name.rpartition("__")
            (record[inner] if inner else record)[field] = value
        header["__metadata__"]["restore_rwkv"] = json.dumps(record)

    return _changed(lambda content: _header(content, change))


_SAFE = "w.safetensors"


def _add(name: str, make: Make, *right: Restored | Refused, source: str = _SAFE) -> None:
    FAMILY.add(name, make, *(right or (_refused,)), source=source)


_add("sound", _changed(lambda c: c), Restored())
_add("half of them", _changed(lambda c: c[: len(c) // 2]))
_add("half of the header", _changed(lambda c: c[:300]))
_add("a flipped bit", _changed(lambda c: c[:-5] + bytes([c[-5] ^ 64]) + c[-4:]))
_add("bytes behind the end", _changed(lambda c: c + b"text"))
_add("no bytes", _changed(lambda c: b""))
_add("seven bytes", _changed(lambda c: c[:7]))
_add("a header of 2 TB claimed", _changed(lambda c: struct.pack("<Q", 2 << 40) + c[8:]))
_add("a header of 2 ** 64 bytes claimed", _changed(lambda c: b"\xff" * 8 + c[8:]))
_add("a header of brackets", _changed(lambda c: struct.pack("<Q", 90_000) + b"[" * 90_000))
_add("a header that is a list", _changed(lambda c: struct.pack("<Q", 2) + b"[]"))
_add(
    "tensors beyond the end",
    _changed(
        lambda c: _header(
            c, lambda h: [v.update(data_offsets=[0, 1 << 50]) for k, v in h.items() if k[0] != "_"]
        )
    ),
)
_add(
    "places of one number",
    _changed(
        lambda c: _header(
            c, lambda h: [v.update(data_offsets=[0]) for k, v in h.items() if k[0] != "_"]
        )
    ),
)
_add(
    "shapes of 2 ** 60",
    _changed(
        lambda c: _header(
            c, lambda h: [v.update(shape=[1 << 60]) for k, v in h.items() if k[0] != "_"]
        )
    ),
)
_add("no record", _changed(lambda c: _header(c, lambda h: h.pop("__metadata__"))))
_add("another version of the record", _recorded(format=99))
_add("a record without its network", _recorded(config=None))
_add("a network of 2 billion channels", _recorded(config__dim=2_000_000_000))
_add("a network of 2 billion blocks", _recorded(config__num_blocks=[2_000_000_000, 1, 1, 1]))
_add("a network of text", _recorded(config__dim="wide"))
_add("no scaling", _recorded(scaling={}))
_add("a scaling of text", _recorded(scaling={"mri-sr": "some"}))
_add(
    "weights of CT",
    _recorded(scaling={"ct-denoise": {"kind": "robust"}}),
    Refused((2, 5), "ct-denoise|scaling"),
)
_add("a wrong digest", _recorded(sha256="0" * 64))


def _with_tensor(value: float, dtype: type) -> Make:
    def make(folder: Path) -> None:
        plain(folder)
        path = save_identity(folder / _SAFE)
        content = path.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        record = json.loads(content[8 : 8 + length])["__metadata__"]
        tensors = load_file(path)
        first = sorted(tensors)[0]
        tensors[first] = np.full_like(tensors[first], value).astype(dtype)
        save_file(tensors, path, record)

    return make


_add("NaN", _with_tensor(np.nan, np.float32))
_add("whole numbers", _with_tensor(1, np.int32))
_add("weights of another network", _beside(lambda p: save_file({"a": np.zeros(3, np.float32)}, p)))
_add("text", _beside(lambda p: p.write_text("weights? no.")))
_add("a folder", _beside(lambda p: p.mkdir()))
_add("a pipe", _beside(lambda p: os.mkfifo(p)))
_add("an image", plain, source="scan.nii.gz")
_add("none", plain, Refused((2, 5), "no such|unknown"), source="nowhere.safetensors")
_add("a name with an error", plain, Refused((2, 5), "light-mri|unknown"), source="light-mri")
_add("weights shipped for CT", plain, Refused((2, 5), "ct-denoise"), source="light-ct-denoise")


def _torch_file(path: Path) -> None:
    torch.save({"params": Evil()}, path)


def _torch_weights(path: Path) -> None:
    torch.save({"other.weight": torch.zeros(3)}, path)


def _zip_bomb(path: Path) -> None:
    _torch_weights(path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("w/data/1", "w", force_zip64=True) as member,
    ):
        for _ in range(128):
            member.write(bytes(1 << 24))


for _name, _write in {
    "a pickle that runs code": lambda p: p.write_bytes(pickle.dumps(Evil())),
    "a checkpoint that runs code": _torch_file,
    "a checkpoint of other weights": _torch_weights,
    "half a checkpoint": lambda p: (_torch_weights(p), p.write_bytes(p.read_bytes()[:300])),
    "a checkpoint with a bomb": _zip_bomb,
    "text named pth": lambda p: p.write_text("weights? no."),
    "a folder named pth": lambda p: p.mkdir(),
    "a pipe named pth": lambda p: os.mkfifo(p),
    "a checkpoint that is a number": lambda p: torch.save(3, p),
    "a checkpoint of nothing": lambda p: torch.save({}, p),
    "a checkpoint of strings": lambda p: torch.save({"params": {"a": "b"}}, p),
    "a checkpoint with other keys": lambda p: torch.save({3: torch.zeros(3)}, p),
    "a checkpoint of a whole network": lambda p: torch.save(torch.nn.Linear(3, 3), p),
}.items():
    _add(_name, _beside(_write, "w.pth"), source="w.pth")
    FAMILY.add(
        f"{_name}, to convert",
        _beside(_write, "w.pth"),
        Refused((5,), "checkpoint|weight|file|pickle|tensor|damaged|regular|pth"),
        words="convert w.pth -o w.safetensors",
    )
_add("a checkpoint that runs code, named safetensors", _beside(_torch_file))
FAMILY.add(
    "nothing to convert",
    plain,
    Refused((5, 3), "no such"),
    words="convert none.pth -o w.safetensors",
)
FAMILY.add(
    "converting to pth",
    _beside(_torch_weights, "w.pth"),
    Refused((2, 3, 5), "safetensors|weight"),
    words="convert w.pth -o v.pth",
)
FAMILY.add(
    "converting onto itself",
    _beside(lambda p: shutil.copy(__file__, p), "w.safetensors"),
    Refused((2, 3, 5), "same|exists"),
    words="convert w.safetensors -o w.safetensors -f",
)
