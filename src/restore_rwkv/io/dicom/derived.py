"""Headers of a derived DICOM series: what every kind of image replaces and adds.

DerivationCodeSequence names the nearest operation of CID 7203 first, then (123110, DCM, "Artificial
Intelligence"). The group has no term for a network, but is extensible, and the standard's own code
says it to machines; dciodvfy has no objection for any of the six kinds of image.

SyntheticData (0008,001C) is left out. It says that an image was not acquired, which is not clearly
true of a restored scan, and validators older than the attribute report it as an error.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SOFTWARE = "restore-rwkv"
"""Manufacturer of our item of ContributingEquipmentSequence, by which a restored scan is known."""

NUMBER_OFFSET = 1000
_LONGEST_LO, _LONGEST_ST = 64, 1024  # characters, by the value representation

SMOOTHING = ("113087", "DCM", "Smoothing")
RESAMPLING = ("113085", "DCM", "Spatial resampling")
INTELLIGENCE = ("123110", "DCM", "Artificial Intelligence")
PROCESSING_EQUIPMENT = ("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")

_PET = ("1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.130")


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What was done to a series, for the headers of the series that is derived from it.

    Attributes:
        task: Name of the task, such as "mri-sr".
        description: What was done, in a few words or sentences.
        weights: File name of the weights; "" for a map of an image that was made by others.
        weights_sha256: Digest of their tensors, hex; "" likewise.
        notice: That the program is not a medical device.
        from_all_slices: Whether each slice was made from all slices of the source, as when slices
            across another axis of the volume were restored; else from the slice in its place.
        series_number: SeriesNumber of the derived series; None for the source's plus 1000.
    """

    task: str
    description: str
    weights: str
    weights_sha256: str
    notice: str
    from_all_slices: bool = False
    series_number: int | None = None


@dataclass(frozen=True)
class ImageReference:
    """Identity of an image.

    Attributes:
        sop_class_uid: What kind of image it is.
        sop_instance_uid: Which one.
    """

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class NewSeries:
    """What all images of a derived series have in common.

    Attributes:
        derivation: What was done.
        source_uid: SeriesInstanceUID of the source.
        sources: Its images, in the order of the derived ones.
        uid: SeriesInstanceUID.
        number: SeriesNumber.
        created: When it was made, in the time zone of the source.
        finer: Whether the grid is finer than the source's.
    """

    derivation: Derivation
    source_uid: str
    sources: tuple[ImageReference, ...]
    uid: str
    number: int
    created: datetime.datetime
    finer: bool

    def used(self, k: int) -> tuple[ImageReference, ...]:
        """Return the source images that derived image k was made from."""
        return self.sources if self.derivation.from_all_slices else (self.sources[k],)

    @property
    def date(self) -> str:
        """Date of creation as DA."""
        return self.created.strftime("%Y%m%d")

    @property
    def time(self) -> str:
        """Time of creation as TM."""
        return self.created.strftime("%H%M%S.%f")

    @property
    def text(self) -> str:
        """DerivationDescription: program, version, what was done, weights with hash, and notice."""
        made, derivation = f"{SOFTWARE} {_version()}: ", self.derivation
        network = (
            f"; {derivation.task} by a neural network (AI), weights {derivation.weights}, SHA-256 "
            f"{derivation.weights_sha256}"
        )
        end = f"{network if derivation.weights else ''}. {derivation.notice}"
        what = derivation.description[: max(0, _LONGEST_ST - len(made) - len(end))]
        return plain(made + what + end)[:_LONGEST_ST]


def new_series(headers: Sequence[Dataset], derivation: Derivation, *, finer: bool) -> NewSeries:
    """Choose the identity of a derived series.

    Only this series of the study is known, so that no SeriesNumber is certain to be unused. The
    source's plus 1000 is above what scanners count to, shows the source, and differs for each.

    Args:
        headers: Headers of the source's images, in the order of the derived ones.
        derivation: What was done.
        finer: Whether the grid is finer than the source's.
    """
    from pydicom.uid import generate_uid

    number = derivation.series_number
    if number is None:
        try:
            number = int(headers[0].get("SeriesNumber") or 0) + NUMBER_OFFSET
            number = number if number < 1 << 31 else NUMBER_OFFSET  # the largest of an IS
        except (TypeError, ValueError):
            number = NUMBER_OFFSET
    return NewSeries(
        derivation=derivation,
        source_uid=str(headers[0].SeriesInstanceUID),
        sources=tuple(
            ImageReference(str(header.SOPClassUID), str(header.SOPInstanceUID))
            for header in headers
        ),
        uid=generate_uid(),
        number=number,
        created=datetime.datetime.now(_time_zone(headers[0])),
        finer=finer,
    )


def _time_zone(header: Dataset) -> datetime.tzinfo | None:
    """Time zone that the dates and times of a header are in; None for that of this machine."""
    try:
        moment = datetime.datetime.strptime(str(header.get("TimezoneOffsetFromUTC")), "%z")
    except ValueError:
        return None
    return moment.tzinfo


def mark_image(dataset: Dataset, series: NewSeries, k: int) -> None:
    """Give a header the identity of a derived image: UIDs, dates, series, equipment, references.

    Study, frame of reference, patient and the acquisition stay as they are. PET keeps the date and
    time of its series, which its decay correction refers to.

    Args:
        dataset: Header of source image k, after `strip`; changed.
        series: The derived series.
        k: Index of the image in the series.
    """
    from pydicom.uid import generate_uid

    others = [
        item
        for item in dataset.get("ReferencedSeriesSequence") or ()
        if item.get("SeriesInstanceUID") != series.source_uid
    ]
    dataset.ReferencedSeriesSequence = [*others, referenced_series(series, k)]
    dataset.ContributingEquipmentSequence = [
        *(dataset.get("ContributingEquipmentSequence") or ()),
        _equipment(series),
    ]
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = series.uid
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = _series_description(dataset, series.derivation.task)
    dataset.InstanceCreationDate = dataset.ContentDate = series.date
    dataset.InstanceCreationTime = dataset.ContentTime = series.time
    if not is_pet(dataset):
        dataset.SeriesDate, dataset.SeriesTime = series.date, series.time


def is_pet(header: Dataset) -> bool:
    """Whether an image is PET, classic or enhanced."""
    return str(header.SOPClassUID) in _PET


def derivation_item(series: NewSeries, sources: list[Dataset]) -> Dataset:
    """Return description, codes and sources of a derivation.

    They are elements of the header of a classic image, and an item of DerivationImageSequence for
    each frame of an enhanced one.

    Args:
        series: The derived series.
        sources: Items that refer to the source images, from `reference`; completed here.
    """
    item = dataset_of(
        DerivationDescription=series.text,
        DerivationCodeSequence=[
            code(*(RESAMPLING if series.finer else SMOOTHING)),
            code(*INTELLIGENCE),
        ],
        SourceImageSequence=sources,
    )
    for source in sources:
        source.SpatialLocationsPreserved = "NO" if series.finer else "YES"
        source.PurposeOfReferenceCodeSequence = [code(*SOURCE_IMAGE)]
    return item


def referenced_series(series: NewSeries, k: int) -> Dataset:
    """Item of ReferencedSeriesSequence with the source images of derived image k."""
    return dataset_of(
        SeriesInstanceUID=series.source_uid,
        ReferencedInstanceSequence=[reference(source) for source in series.used(k)],
    )


def reference(image: ImageReference, frame: int | None = None) -> Dataset:
    """Item that refers to an image, or to one of its frames, counted from 1."""
    item = dataset_of(
        ReferencedSOPClassUID=image.sop_class_uid, ReferencedSOPInstanceUID=image.sop_instance_uid
    )
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


@functools.cache  # reads a file
def _version() -> str:
    return version(SOFTWARE)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Item of a code sequence."""
    return dataset_of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _equipment(series: NewSeries) -> Dataset:
    return dataset_of(
        PurposeOfReferenceCodeSequence=[code(*PROCESSING_EQUIPMENT)],
        Manufacturer=SOFTWARE,
        ManufacturerModelName=plain(series.derivation.weights)[:_LONGEST_LO],
        SoftwareVersions=_version(),
        ContributionDateTime=series.date + series.time,
        ContributionDescription=series.text,
    )


def _series_description(dataset: Dataset, task: str) -> str:
    """Description of the source, shortened if need be, and that the series is AI-restored."""
    added = plain(f"AI-restored ({SOFTWARE} {task})")[:_LONGEST_LO]
    old = " ".join(parts(dataset, "SeriesDescription"))
    if "\N{REPLACEMENT CHARACTER}" in old:  # not in the character set that the file states
        return added
    return f"{old[: _LONGEST_LO - len(added) - 1].strip()} {added}".strip()


def parts(header: Dataset, keyword: str) -> list[str]:
    """Return the values of an element that may have one, several or none."""
    value = header.get(keyword) or ()
    return [value] if isinstance(value, str) else [str(part) for part in value]


def plain(text: str) -> str:
    """Return a text in the characters of every DICOM character set, without the value separator."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")


def dataset_of(**elements: object) -> Dataset:
    """Return a data set with these elements, by keyword."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset
