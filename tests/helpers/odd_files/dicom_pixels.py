"""Stored pixels of DICOM: compressed, with bits above those stored, damaged, and odd formats."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.helpers.odd_files.case import Family, Make, Refused, Restored
from tests.helpers.odd_files.images import Array, keeps, mri
from tests.helpers.odd_files.series import (
    COUNT,
    CT,
    Edit,
    affine,
    enhanced,
    only,
    series,
    set_pixels,
    setting,
    without,
    write,
)

FAMILY = Family("DICOM pixels", "restore {source} -o out.nii.gz -t ct-denoise")

_same = Restored(keeps(CT, affine()))
_ENCODERS = {
    "JPEG-LS": (JPEGLSLossless, ("module jpeg_ls",)),
    "JPEG 2000": (JPEG2000Lossless, ("module openjpeg",)),
    "RLE": (RLELossless, ()),
}


def _add(name: str, make: Edit | None, *right: Restored | Refused) -> None:
    FAMILY.add(name, lambda folder: series(folder / "series", make), *right, source="series")


def compress(d: Dataset, syntax: str) -> None:
    """Compress the pixels of one slice without loss."""
    if syntax != JPEG2000Lossless:
        d.compress(syntax, generate_instance_uid=False)
        return
    from openjpeg.utils import encode_array  # pydicom would need another package to find it

    stream = encode_array(d.pixel_array, bits_stored=d.BitsStored, photometric_interpretation=2)
    d.file_meta.TransferSyntaxUID = syntax
    d.PixelData = encapsulate([stream])
    d["PixelData"].VR = "OB"
    d["PixelData"].is_undefined_length = True


def _compressed(syntax: str) -> Make:
    def make(folder: Path) -> None:
        for file in series(folder / "series").iterdir():
            d = dcmread(file)
            compress(d, syntax)
            d.save_as(file)

    return make


for _name, (_syntax, _needs) in _ENCODERS.items():
    FAMILY.add(_name, _compressed(_syntax), _same, source="series", needs=_needs)


def _through(program: str, *options: str) -> Make:
    """Return a function that writes the series through a program of DCMTK."""

    def make(folder: Path) -> None:
        (folder / "series").mkdir()
        for file in sorted(series(folder / "plain").iterdir()):
            target = folder / "series" / file.name
            subprocess.run([program, *options, file, target], check=True, capture_output=True)
        shutil.rmtree(folder / "plain")

    return make


for _name, _options in {
    "JPEG Lossless, first order": ("+e1",),
    "JPEG Lossless, process 14": ("+el",),
    "JPEG Lossless, predictor 6": ("+el", "+sv", "6"),
}.items():
    FAMILY.add(_name, _through("dcmcjpeg", *_options), _same, source="series", needs=("dcmcjpeg",))
FAMILY.add("JPEG-LS of DCMTK", _through("dcmcjpls"), _same, source="series", needs=("dcmcjpls",))

# Bits above those stored: an overlay in bit 12, or a sign that is not extended.
_BASE = np.random.default_rng(0).integers(0, 2000, (32, 32, 4))
_OVERLAY = _BASE | (0x1000 * ((np.indices(_BASE.shape)[:2] - 12 < 4).all(0)))
_UNEXTENDED = (_BASE - 1000) & 0xFFF


def _high_bits(stored: Array, signed: int, intercept: int, syntax: str | None) -> Make:
    """Return a function that writes a series of 12 stored bits, compressed as 16."""

    def edit(d: Dataset, k: int) -> None:
        set_pixels(d, stored[..., k].astype(np.uint16))
        d.RescaleIntercept = intercept
        d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 15, 0
        if syntax is not None:
            compress(d, syntax)
        d.BitsStored, d.HighBit = 12, 11
        d.PixelRepresentation = signed

    return lambda folder: series(folder / "series", edit, values=_BASE.astype(float))


for _name, (_syntax, _needs) in {"uncompressed": (None, ()), **_ENCODERS}.items():
    FAMILY.add(
        f"an overlay above the stored bits, {_name}",
        _high_bits(_OVERLAY, 0, -1024, _syntax),
        Restored(keeps(_BASE - 1024.0, affine())),
        source="series",
        needs=_needs,
    )
    FAMILY.add(
        f"a sign that is not extended, {_name}",
        _high_bits(_UNEXTENDED, 1, 0, _syntax),
        Restored(keeps(_BASE - 1000.0, affine())),
        source="series",
        needs=_needs,
    )


def _eight_bits(d: Dataset) -> None:
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit, d.PixelRepresentation = 7, 0


_GREY = np.rint(mri((48, 40, COUNT)) / 5)


@FAMILY.case(
    Restored(keeps(_GREY, affine(), close=0.05)), words="restore series -o out.nii.gz -t mri-sr"
)
def JPEG_baseline(folder: Path) -> None:
    def edit(d: Dataset, k: int) -> None:
        _eight_bits(d)
        stream = io.BytesIO()
        Image.fromarray(_GREY[..., k].T.astype(np.uint8)).save(stream, "JPEG", quality=95)
        d.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        d.PixelData = encapsulate([stream.getvalue()])
        d["PixelData"].VR = "OB"
        d["PixelData"].is_undefined_length = True

    series(folder / "series", edit, "MR", _GREY)


def _claiming(syntax: str) -> Edit:
    """Return an edit that names a compression, and encapsulates the plain pixels."""

    def edit(d: Dataset, k: int) -> None:
        d.file_meta.TransferSyntaxUID = syntax
        d.PixelData = encapsulate([d.PixelData])
        d["PixelData"].VR = "OB"
        d["PixelData"].is_undefined_length = True

    return edit


_undecodable = Refused((3,), "decod|pixel|JPEG|compress")
_add("plain pixels named JPEG Lossless", _claiming(JPEGLosslessSV1), _undecodable)
_add("plain pixels named JPEG 2000", _claiming(JPEG2000), _undecodable)
_add("plain pixels named JPEG-LS", _claiming(JPEGLSLossless), _undecodable)
_add("plain pixels named RLE", _claiming(RLELossless), _undecodable)
_add("a video", _claiming("1.2.840.10008.1.2.4.102"), _undecodable)


@FAMILY.case(Refused((3,), "syntax|decod|pixel"), source="series")
def an_unknown_transfer_syntax(folder: Path) -> None:
    for file in series(folder / "series", _claiming("1.2.840.10008.1.2.4.102")).iterdir():
        content = file.read_bytes()
        file.write_bytes(content.replace(b"10008.1.2.4.102", b"10008.9.9.9.999"))


def _cut(syntax: str) -> Make:
    """Return a function that shortens the stream of one slice."""

    def edit(d: Dataset, k: int) -> None:
        compress(d, syntax)
        if k == 3:
            stream = d.PixelData[16:]
            d.PixelData = encapsulate([stream[: len(stream) // 3]])

    return lambda folder: series(folder / "series", edit)


for _name, (_syntax, _needs) in _ENCODERS.items():
    FAMILY.add(
        f"{_name}, a third of a slice", _cut(_syntax), _undecodable, source="series", needs=_needs
    )


def _slopes(d: Dataset, k: int) -> None:
    d.RescaleSlope, d.RescaleIntercept = 1 - 0.1 * k, 7 * k


_SCALED = np.stack([CT[..., k] * (1 - 0.1 * k) + 7 * k for k in range(COUNT)], -1)
_add("a slope of its own for each slice", _slopes, Restored(keeps(_SCALED, affine())))
_add("an intercept of 24", setting(RescaleIntercept=24), Restored(keeps(CT + 24, affine())))
_slope = Refused((3, 4), "slope|Rescale|finite|all values|cannot have")
_add("slope 0", setting(RescaleSlope=0), _slope)
_add("slope 1e300", setting(RescaleSlope="1e300"), _slope)
_add("MONOCHROME1", setting(PhotometricInterpretation="MONOCHROME1"), _same)
_add("values for display only", setting(WindowCenter=40, WindowWidth=1), _same)


def _padded(d: Dataset, k: int) -> None:
    values = CT[..., k].astype(np.int16)
    values[:3] = -2000
    set_pixels(d, values)
    d.PixelPaddingValue = -2000


_PADDED = CT.copy()
_PADDED[:3] = -2000
_add("padding of -2000", _padded, Restored(keeps(_PADDED, affine())))

_pixels = Refused((3,), "pixel|shape|decod|Bits|damaged|no DICOM images")
_add("no pixels", without("PixelData"), _pixels)
_add("pixels of no bytes", setting(PixelData=b""), _pixels)
_add("too few pixels in one slice", only(2, setting(PixelData=bytes(100))), _pixels)
_add(
    "too many pixels", lambda d, k: setattr(d, "PixelData", d.PixelData + bytes(64)), _same, _pixels
)
_add("0 bits stored", setting(BitsStored=0), _pixels)
_add("17 of 16 bits stored", setting(BitsStored=17), _pixels)
_add("12 bits allocated", setting(BitsAllocated=12), _pixels)
_add("64 bits allocated", setting(BitsAllocated=64), _pixels)
_add("1 bit allocated", setting(BitsAllocated=1, BitsStored=1, HighBit=0), _pixels)
_add("a high bit of 3", setting(HighBit=3), _same, _pixels)
_add("a sign of 7", setting(PixelRepresentation=7), _pixels, _same)
_colour = Refused((3,), "colou?r|grey|palette|Samples")
_add(
    "colours",
    setting(
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=bytes(48 * 40 * 3),
    ),
    _colour,
)
_add("a palette", setting(PhotometricInterpretation="PALETTE COLOR"), _colour)
_add("two samples", setting(SamplesPerPixel=2), _colour)
_add("no photometric interpretation", without("PhotometricInterpretation"), _same, _colour)


@FAMILY.case(
    Restored(keeps(CT, affine())), Refused((3,), "pixel|float|Bits|decod"), source="series"
)
def pixels_in_float32(folder: Path) -> None:
    def edit(d: Dataset, k: int) -> None:
        del d.PixelData
        d.FloatPixelData = CT[..., k].T.astype(np.float32).tobytes()
        d.BitsAllocated = 32
        del d.BitsStored, d.HighBit, d.PixelRepresentation

    series(folder / "series", edit)


@FAMILY.case(_pixels, words="restore scan.dcm -o out.nii.gz -t mri-sr")
def fewer_pixels_than_frames(folder: Path) -> None:
    d = enhanced(COUNT)
    d.PixelData = d.PixelData[: len(d.PixelData) // 2]
    write(d, folder / "scan.dcm")
