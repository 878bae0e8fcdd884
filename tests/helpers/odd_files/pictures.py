"""PNG and TIFF of every kind, and what is only named so."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from tests.helpers.odd_files.case import Check, Family, Make, Refused, Restored
from tests.helpers.odd_files.images import Array, mri

FAMILY = Family("pictures", "restore {source} -o out.png -t mri-sr")

_GREY = np.rint(mri()[..., 0] / 4).astype(np.uint8)
_GREY16 = (mri()[..., 0] * 30).astype(np.uint16)
_FLOAT = mri()[..., 0].astype(np.float32)
_PNG = ("out.png", "out.restoration.json")
_TIFF = ("out.tif", "out.restoration.json")


def _kept(values: Array, name: str = "out.png") -> Check:
    def check(folder: Path) -> None:
        got = np.asarray(Image.open(folder / name)).astype(float)
        assert got.shape == values.shape, f"shape {got.shape}"
        worst = float(np.abs(got - values).max())
        assert worst <= max(1.0, 1e-4 * float(values.max())), f"values differ by up to {worst:g}"

    return check


def _png(name: str, make: Make, *right: Restored | Refused) -> None:
    FAMILY.add(name, make, *right, source="scan.png", outputs=_PNG)


def _tiff(name: str, make: Make, *right: Restored | Refused, needs: tuple[str, ...] = ()) -> None:
    words = "restore scan.tif -o out.tif -t mri-sr"
    FAMILY.add(name, make, *right, words=words, outputs=_TIFF, needs=needs)


def _saved(image: Image.Image, name: str = "scan.png", **options: object) -> Make:
    return lambda folder: image.save(folder / name, **options)


_image = Image.fromarray(_GREY)
_grey = Restored(_kept(_GREY))
_colour = Refused((3,), "colou?r|palette|alpha|transparen|grey")
_png("8 bits", _saved(_image), _grey)
_png("16 bits", _saved(Image.fromarray(_GREY16)), Restored(_kept(_GREY16)))
_png("a palette", _saved(_image.convert("P")), _colour)
_png("colours", _saved(_image.convert("RGB")), _colour)
_png("colours and transparency", _saved(_image.convert("RGBA")), _colour)
_png("grey and transparency", _saved(_image.convert("LA")), _colour)
_png("one bit", _saved(_image.convert("1")), Refused((3,), "pixels|bit|kind"))
_png("a transparent grey", _saved(_image, transparency=0), _grey, _colour)


def _with_text(folder: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "a" * 10_000_000, zip=True)
    _image.save(folder / "scan.png", pnginfo=notes)


_png("ten megabytes of text inside", _with_text, _grey, Refused((3,), "text|large|decod"))
_png("a gamma", _saved(_image, gamma=0.5), _grey)


def _changed(change: object) -> Make:
    """Return a function that writes the picture with its bytes changed."""

    def make(folder: Path) -> None:
        _image.save(folder / "scan.png")
        content = (folder / "scan.png").read_bytes()
        (folder / "scan.png").write_bytes(change(content))  # type: ignore[operator]

    return make


def _flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


_damaged = Refused((3,), "empty|JPEG|decod|truncated|damaged|not a PNG|broken|large|pixels")
_png("half of it", _changed(lambda c: c[: len(c) // 2]), _damaged)
_png("no bytes", _changed(lambda c: b""), _damaged)
_png("its signature only", _changed(lambda c: c[:8]), _damaged)
_png("a flipped byte", _changed(_flipped), _damaged)
_png("text behind its end", _changed(lambda c: c + b"text" * 99), _grey)
_png("text with its suffix", _changed(lambda c: b"this is no picture"), _damaged)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _claims(folder: Path, width: int, height: int, content: bytes) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    (folder / "scan.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def _bomb(folder: Path) -> None:
    press = zlib.compressobj(9)
    body = b"".join(press.compress(bytes(40001)) for _ in range(40000)) + press.flush()
    _claims(folder, 40000, 40000, body)


_too_large = Refused((3, 6), "bomb|large|pixels|memory|decod")
_png("a bomb of 1.6 GB", _bomb, _too_large)
_png("2 x 2 billion pixels claimed", lambda f: _claims(f, 2**31 - 1, 2**31 - 1, b""), _too_large)
_png("no pixels", lambda f: _claims(f, 0, 0, zlib.compress(b"")), _damaged)
_png(
    "fewer rows than it says",
    lambda f: _claims(f, 40, 48, zlib.compress((b"\0" + bytes(range(40))) * 9)),
    _damaged,
)
_png(
    "several frames",
    _saved(_image, save_all=True, append_images=[_image.rotate(90)]),
    _grey,
    Refused((3,), "pages|frames|several"),
)
_png(
    "9 x 1 pixels", _saved(Image.fromarray(_GREY[:9, 20:21])), Refused((3, 4), "small|least|pixels")
)
_png("all black", _saved(Image.fromarray(_GREY * 0)), Refused((4,), "all values|nothing"))

for _suffix, _format in {"jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "webp": "WEBP"}.items():
    FAMILY.add(
        f"a {_format}",
        _saved(_image, f"scan.{_suffix}"),
        Refused((3,), "unknown|kind|format|lossy|PNG"),
        source=f"scan.{_suffix}",
    )


def _renamed(folder: Path) -> None:
    _image.convert("RGB").save(folder / "scan.jpg")
    shutil.move(folder / "scan.jpg", folder / "scan.png")


_png("a JPEG named PNG", _renamed, _damaged)
_png("a TIFF named PNG", lambda f: _image.save(f / "scan.png", "TIFF"), _grey, _damaged)


def _by_tifffile(data: Array, **options: object) -> Make:
    def make(folder: Path) -> None:
        import tifffile

        tifffile.imwrite(folder / "scan.tif", data, **options)

    return make


_floats = Restored(_kept(_FLOAT, "out.tif"))
_TOOL = ("module tifffile",)
_tiff("TIFF in 8 bits", _saved(_image, "scan.tif"), Restored(_kept(_GREY, "out.tif")))
_tiff(
    "TIFF in 16 bits",
    _saved(Image.fromarray(_GREY16), "scan.tif"),
    Restored(_kept(_GREY16, "out.tif")),
)
_tiff("TIFF in float32", _saved(Image.fromarray(_FLOAT), "scan.tif"), _floats)
_tiff("TIFF in float64", _by_tifffile(_FLOAT.astype(float)), _floats, needs=_TOOL)
_int16 = Restored(_kept(_FLOAT, "out.tif"))
_kind = Refused((3,), "kind|pixels|bit|not a PNG or TIFF")
_tiff("TIFF in int16", _by_tifffile(_FLOAT.astype(np.int16)), _int16, _kind, needs=_TOOL)
_tiff("TIFF in float16", _by_tifffile(_FLOAT.astype(np.float16)), _int16, _kind, needs=_TOOL)
_tiff("big endian TIFF", _by_tifffile(_FLOAT, byteorder=">"), _floats, needs=_TOOL)
_tiff("BigTIFF", _by_tifffile(_FLOAT, bigtiff=True), _floats, _kind, _damaged, needs=_TOOL)
_tiff("TIFF in tiles", _by_tifffile(_FLOAT, tile=(16, 16)), _floats, needs=_TOOL)
_tiff(
    "TIFF with LZW",
    _saved(_image, "scan.tif", compression="tiff_lzw"),
    Restored(_kept(_GREY, "out.tif")),
)
_tiff(
    "TIFF with JPEG",
    _saved(_image, "scan.tif", compression="jpeg", quality=95),
    Restored(lambda f: None),
    Refused((3,), "JPEG|lossy"),
)
_tiff(
    "TIFF of three pages",
    _saved(_image, "scan.tif", save_all=True, append_images=[_image] * 2),
    Refused((3,), "pages"),
)
_tiff(
    "TIFF where white is 0",
    _by_tifffile(_GREY, photometric="miniswhite"),
    Refused((3,), "black|white"),
    needs=_TOOL,
)
_tiff("TIFF in colours", _saved(_image.convert("RGB"), "scan.tif"), _colour, Refused((3,), "black"))
_nan = _FLOAT.copy()
_nan[20, 20] = np.nan
_tiff("TIFF with NaN", _saved(Image.fromarray(_nan), "scan.tif"), Refused((3,), "finite|NaN"))


def _tiff_of(*entries: tuple[int, int, int, int]) -> Make:
    """Return a function that writes a TIFF of these (tag, type, count, value), without pixels."""
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    return lambda folder: (folder / "scan.tif").write_bytes(
        struct.pack("<2sHI", b"II", 42, 8) + body + bytes(4) + bytes(64)
    )


_sizes = ((256, 4, 1, 48), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
_strip = ((273, 4, 1, 100), (277, 3, 1, 1), (278, 4, 1, 48), (279, 4, 1, 2304))
_broken = Refused((3,), "decod|TIFF|truncated|damaged|large|black|pixels")
_tiff("TIFF without its pixels", _tiff_of(*_sizes, *_strip), _broken)
_tiff("TIFF without any tag", _tiff_of(), _broken)
_tiff(
    "TIFF of 4 billion rows",
    _tiff_of((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), *_sizes[2:], *_strip),
    _broken,
)
_tiff(
    "TIFF with 2 billion values in a tag",
    _tiff_of(*_sizes, (273, 4, 2**31 - 1, 8), *_strip[1:]),
    _broken,
)


def _loop(folder: Path) -> None:
    _tiff_of(*_sizes, *_strip)(folder)
    content = bytearray((folder / "scan.tif").read_bytes())
    struct.pack_into("<I", content, 10 + 12 * 9, 8)  # the next page is the first
    (folder / "scan.tif").write_bytes(content)


_tiff("TIFF whose pages go round", _loop, Refused((3,), "pages|decod|TIFF|truncated"))
FAMILY.add(
    "grey picture given as CT",
    _saved(_image),
    Refused((2, 3, 4), "HU|CT|unit|air"),
    words="restore scan.png -o out.png -t ct-denoise",
    outputs=_PNG,
)
FAMILY.add(
    "picture to NIfTI",
    _saved(_image),
    Refused((3,), "geometry"),
    words="restore scan.png -o out.nii.gz -t mri-sr",
)
