"""What the header of a DICOM series says against restoring its images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from restore_rwkv.io.decoding import DECODING_ERRORS
from restore_rwkv.io.findings import Finding, Level

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Deep Resolve (Siemens) stands in the image type; where that of an enhanced file is the standard's,
# in a private one. AIR Recon DL (GE) has a private element, such as 0.75\High. Both are documented
# with example scans in https://github.com/neurolabusc/dcm_qa_cs_dl.
_SIEMENS_IMAGE_TYPE = 0x00211175
_GE_DEEP_LEARNING = 0x004310CA
_GE_LEVELS = ("LOW", "MEDIUM", "HIGH")

STATEMENT_FIELDS: tuple[str | int, ...] = (
    "BurnedInAnnotation",
    "ComplexImageComponent",
    "ContributingEquipmentSequence",
    "DerivationCodeSequence",
    "DerivationDescription",
    "ImageType",
    "Modality",
    "PresentationIntentType",
    "RescaleIntercept",
    "RescaleType",
    "SOPClassUID",
    "SeriesDescription",
    "SharedFunctionalGroupsSequence",
    "Units",
    0x00210011,  # creator of the private elements of Siemens
    _SIEMENS_IMAGE_TYPE,
    0x00430010,  # creator of those of GE
    _GE_DEEP_LEARNING,
)
"""Keywords and tags of the DICOM elements that `findings_of` reads."""

RESTORED_BY = "restore-rwkv"
"""How the manufacturer, and the derivation description, of a restored series begin."""

_MAPS = (
    {"CBF", "CBV", "MTT", "PBP", "RCBF", "RCBV", "RELCBF", "RELCBV", "RELCMTT", "RELMTT"}
    | {"REGIONAL_CBF", "REGIONAL_CBV", "TMAX", "TTD", "TTP"}
    | {"ADC", "COLFA", "DIFFUSION_ANISO", "EADC", "FA", "TENSOR"}
    | {"B0 MAP", "B1 MAP", "FIELD MAP", "PD MAP", "R1 MAP", "R2 MAP", "R2_STAR MAP", "T1 MAP"}
    | {"QSM", "T2 MAP", "T2_STAR MAP", "T2STAR MAP"}
    | {"FAT FRACTION", "FAT_FRACTION", "FF", "PDFF"}
    | {"DIVISION", "PARAMETRIC", "STD_DEVIATION", "SUB", "SUBTRACT", "SUBTRACTION", "T-TEST"}
    | {"T_TEST", "Z-SCORE", "ZSCORE"}
)
# Words of an image type from its third value on: level, kind, and what they say.
_TYPES: tuple[tuple[set[str], Level, str, str], ...] = (
    (
        {"LOCALIZER", "SCANOGRAM", "SCOUT", "SURVEY", "TOPO", "TOPOGRAM"},
        *("unfit", "localizer", "a localizer; give the scan itself"),
    ),
    (
        {"AVERAGE IP", "MAX IP", "MAXIMUM", "MEAN IP", "MIN IP", "MINIMUM", "MINIP", "MIP", "MNIP"}
        | {"PROJECTION IMAGE", "SSD", "VRT"},
        *("unfit", "projection", "a projection of slices; give the slices"),
    ),
    (
        {"SCREEN SAVE", "SCREENSAVE", "SCREENSHOT", "SECONDARY CAPTURE"},
        *("unfit", "screen-capture", "a picture of a screen; give the scan"),
    ),
    (
        {"LABEL", "LABELMAP", "MASK", "SEGMENTATION"},
        *("unfit", "label-map", "labels; give the image itself"),
    ),
    (_MAPS, "unfit", "derived-map", "a map computed from images; give the images"),
    (
        {"TRACE", "TRACEW"},
        *("doubtful", "trace", "a mean over diffusion images, which has less noise than one"),
    ),
)
# Words that original images have too, of which they say how the images were taken.
_DERIVED_MAPS = {"PERFUSION", "VELOCITY"}
_REFORMATTED = {"CSA MPR", "CURVED", "MPR", "MPR THICK", "REFORMATTED", "RESAMPLED"}
_MATERIALS = {"IODINE", "IODINE MAP", "VIRTUAL UNENHANCED", "VMI", "VNC", "WATER"}
_PHASES = {"PHASE", "PHASE MAP", "PHASE_MAP"}
_COMPONENTS = {"I": "imaginary", "IMAGINARY": "imaginary", "P": "phase", "R": "real"}
_COMPONENTS |= {"REAL": "real"} | dict.fromkeys(_PHASES, "phase")
_DEEP_RESOLVE = {"DRB": "Boost", "DRG": "Gain", "DRS": "Sharp"}

# Of CT the standard names HU; "US" is unspecified. Of MR those of maps, of any vendor.
_CT_UNSURE = {"HU_MOD", "US"}
_MR_MAPS = {"%", "10^-6 MM2/S", "CM/S", "DEG", "HZ", "MILLIRADIANS", "ML/100ML/MIN", "MM2/S"}
_MR_MAPS |= {"MS", "PCT", "PPM", "RAD", "S", "S-1", "1/S"}
# Units of PET that are neither activity, counts nor uptake (DICOM PS3.3, C.8.9.1.1.3).
_PET_MAPS = {"1CM", "CM2", "MGMINML", "MLG", "MLMING", "MLMINML", "MLML", "PCNT", "STDDEV"}
_PET_MAPS |= {"UMOLMINML", "UMOLML"}
_FILTERED = {"113085": "resampled", "113087": "smoothed", "113089": "edge-enhanced"}  # of CID 7203

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and those of several frames below it
_OF_CLASS: dict[str, tuple[str, str]] = {
    "1.2.840.10008.5.1.4.1.1.30": ("derived-map", "a parametric map"),
    "1.2.840.10008.5.1.4.1.1.66.4": ("label-map", "a segmentation"),
    "1.2.840.10008.5.1.4.1.1.66.7": ("label-map", "a segmentation"),
}
_ARTIFICIAL_INTELLIGENCE = "123110"  # code of the DICOM dictionary
# Names that vendors give to reconstructions or filters by networks, as they stand in descriptions.
_BRANDS = re.compile(
    r"air recon dl|\baice\b|advanced intelligent clear-iq|deep resolve|subtle(?:pet|mr|ct)|"
    r"truefidelity|\bdlir\b",
    re.IGNORECASE,
)


def findings_of(headers: Sequence[Dataset]) -> tuple[Finding, ...]:
    """Return what the headers of a series say against restoring it.

    Args:
        headers: of the slices, or the one of a multi-frame file, with `STATEMENT_FIELDS`.

    Returns:
        One finding of each kind and text; where only some slices say so, the text counts them.
    """
    places: dict[Finding, int] = {}
    for header in headers:
        for finding in dict.fromkeys(_of_header(header)):
            places[finding] = places.get(finding, 0) + 1
    return tuple(
        finding
        if count == len(headers)
        else Finding(
            finding.level, finding.kind, f"{count} of {len(headers)} slices: {finding.text}"
        )
        for finding, count in places.items()
    )


def image_type_findings(values: Iterable[str]) -> tuple[Finding, ...]:
    """Return what an image type says against restoring an image.

    Args:
        values: those of ImageType, in order: original or derived, primary or secondary, and what
            the modality and the vendor add.
    """
    words = [str(value).strip().upper() for value in values]
    where, further = "ImageType " + "\\".join(words), set(words[2:])
    found = [
        _finding(level, kind, f"{where}: {text}")
        for known, level, kind, text in _TYPES
        if further & known
    ]
    derived = words[:1] == ["DERIVED"]
    unnamed = any(word.endswith(" MAP") for word in further - _PHASES - _MAPS)
    if unnamed or (derived and further & _DERIVED_MAPS):
        found.append(_finding("unfit", "derived-map", f"{where}: a map; give the images"))
    if further & _MATERIALS:
        text = f"{where}: an image of one material or energy, unlike those of the training"
        found.append(_finding("doubtful", "spectral", text))
    if derived and further & _REFORMATTED:
        text = f"{where}: interpolated slices; give those that were acquired"
        found.append(_finding("doubtful", "reformatted", text))
    # One letter means a part of a complex image only where it stands in the third place.
    parts = [word for word in words[2:] if len(word) > 1 or word == words[2]]
    parts += [word[0] for word in words[2:3] if re.match("[IPR]_", word)]  # as I_FFE of Philips
    component = next((_COMPONENTS[word] for word in parts if word in _COMPONENTS), None)
    if component is not None:
        found.append(_component(component, where))
    return (*found, *_deep_resolve(further, where))


def deep_learning(words: str) -> Finding:
    """Return the finding for an image that the scanner reconstructed with a network.

    Args:
        words: where it says so, and with which.
    """
    return _finding(
        "doubtful",
        "deep-learning",
        f"{words}: already reconstructed by a network; give the conventional reconstruction",
    )


def already_restored(where: str) -> Finding:
    """Return the finding for an image that this program made; `where` says what tells it."""
    return _finding(
        "unfit",
        "already-restored",
        f"{where}: restored by this program already; give the scan that it was made from",
    )


def _of_header(header: Dataset) -> list[Finding]:
    modality = _text(header, "Modality")
    found = list(image_type_findings(_values(header, "ImageType")))
    if not any(finding.kind == "deep-learning" for finding in found):
        private = {value.upper() for value in _values(header, _SIEMENS_IMAGE_TYPE)}
        found += _deep_resolve(private, "private element (0021,1175)")
    component = _COMPONENTS.get(_text(header, "ComplexImageComponent").upper())
    if component is not None and not any(f.kind == component for f in found):
        found.append(_component(component, "ComplexImageComponent"))
    steps: tuple[Callable[[Dataset], list[Finding]], ...] = (_of_class, _of_derivation, _of_vendor)
    for step in steps:
        found += step(header)
    found += _of_rescaling(header, modality)
    if _text(header, "BurnedInAnnotation").upper() == "YES":
        found.append(
            _finding(
                "doubtful",
                "annotated",
                "BurnedInAnnotation YES: writing in the pixels, which gets changed",
            )
        )
    if _text(header, "PresentationIntentType").upper() == "FOR PRESENTATION":
        found.append(
            _finding(
                "doubtful",
                "for-presentation",
                "PresentationIntentType FOR PRESENTATION: processed for display; give the "
                "unprocessed scan",
            )
        )
    return found


def _of_class(header: Dataset) -> list[Finding]:
    uid = _text(header, "SOPClassUID")
    if uid in _OF_CLASS:
        kind, words = _OF_CLASS[uid]
        return [
            _finding("unfit", kind, f"SOPClassUID {uid}: {words}; give the images that it is from")
        ]
    if uid == _SECONDARY_CAPTURE or uid.startswith(f"{_SECONDARY_CAPTURE}."):
        words = "its values may be those of a display; give the series of the scanner"
        return [
            _finding("doubtful", "secondary-capture", f"a secondary capture (SOPClassUID): {words}")
        ]
    return []


def _of_derivation(header: Dataset) -> list[Finding]:
    """Images that this program made, and others that say that a network made them."""
    if _text(header, "DerivationDescription").lower().startswith(RESTORED_BY):
        return [already_restored("DerivationDescription")]
    for item in _items(header, "ContributingEquipmentSequence"):
        if _text(item, "Manufacturer").lower().startswith(RESTORED_BY):
            return [already_restored("ContributingEquipmentSequence")]
    for item in _items(header, "DerivationCodeSequence"):
        if _text(item, "CodeValue") == _ARTIFICIAL_INTELLIGENCE:
            return [deep_learning("DerivationCodeSequence")]
    for item in _items(header, "DerivationCodeSequence"):
        word = _FILTERED.get(_text(item, "CodeValue"))
        if word is not None:
            words = f"DerivationCodeSequence: {word} already; give the scan that it was made from"
            return [_finding("doubtful", "processed", words)]
    return []


def _of_vendor(header: Dataset) -> list[Finding]:
    value = "\\".join(_values(header, _GE_DEEP_LEARNING))
    if value.upper().endswith(_GE_LEVELS):
        return [deep_learning(f"private element (0043,10CA) {value}: AIR Recon DL")]
    description = _text(header, "SeriesDescription")
    if (brand := _BRANDS.search(description)) is not None:
        return [deep_learning(f"SeriesDescription names {brand[0]}")]
    return []


def _of_rescaling(header: Dataset, modality: str) -> list[Finding]:
    kind = _text(header, "RescaleType").upper()
    enhanced = bool(_items(header, "SharedFunctionalGroupsSequence"))
    if modality == "CT" and kind in _CT_UNSURE:
        words = "values that may not be Hounsfield units; give the series in HU"
        return [_finding("doubtful", "not-hu", f"RescaleType {kind}: {words}")]
    if modality == "CT" and kind not in ("", "HU"):
        words = "values that are not Hounsfield units; give the series in HU"
        return [_finding("unfit", "not-hu", f"RescaleType {kind}: {words}")]
    if modality == "CT" and not enhanced and "RescaleIntercept" not in header:
        words = "so nothing says that the values are Hounsfield units; export the series again"
        return [_finding("doubtful", "not-hu", f"RescaleIntercept is missing, {words}")]
    if modality == "MR" and kind in _MR_MAPS:
        words = "the values of a map, not of an image; give the images"
        return [_finding("unfit", "derived-map", f"RescaleType {kind}: {words}")]
    if modality == "PT" and _text(header, "Units").upper() in _PET_MAPS:
        words = "the values of a map, not of an image; give the images in BQML"
        return [_finding("unfit", "derived-map", f"Units {_text(header, 'Units')}: {words}")]
    return []


def _deep_resolve(words: set[str], where: str) -> list[Finding]:
    names = [name for word, name in _DEEP_RESOLVE.items() if word in words]
    return [deep_learning(f"{where}: Deep Resolve {', '.join(names)}")] if names else []


def _component(component: str, where: str) -> Finding:
    words = f"{where}: the {component} part of a complex image; give the magnitude"
    # Real images with signs of their own are restored as such (inversion recovery).
    return (
        _finding("doubtful", component, words)
        if component == "real"
        else _finding("unfit", component, words)
    )


def _finding(level: Level, kind: str, text: str) -> Finding:
    return Finding(level, kind, " ".join(text.split()))  # headers may hold line ends


def _get(header: Dataset, key: str | int) -> Any:
    """Return the value of an element, None where it is missing or cannot be decoded."""
    try:
        if isinstance(key, str):
            return header.get(key)
        return header[key].value if key in header else None
    except DECODING_ERRORS:
        return None


def _values(header: Dataset, key: str | int) -> list[str]:
    """Return the values of an element of text, also where its type is not known."""
    value = _get(header, key)
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip("\0 ").split("\\")
    if value is None or isinstance(value, (str, int, float)):
        value = [] if value in (None, "") else [value]
    try:
        return [str(part).strip() for part in value]
    except TypeError:
        return []


def _text(header: Dataset, keyword: str) -> str:
    return "\\".join(_values(header, keyword))


def _items(header: Dataset, keyword: str) -> list[Dataset]:
    value = _get(header, keyword)
    try:
        return [item for item in value or () if hasattr(item, "get")]
    except TypeError:
        return []
