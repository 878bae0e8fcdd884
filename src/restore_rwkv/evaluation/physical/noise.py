"""Noise power spectra, and how far two of them differ in shape.

Definitions are those of ICRU Report 87 (2012) and AAPM Task Group 233 (2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from restore_rwkv.errors import ConfigError, InputError
from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting, Values
from restore_rwkv.evaluation.measures.score_checks import pair_of

Detrend = Literal["none", "mean", "plane", "quadratic"]

_TERMS = {"none": 0, "mean": 1, "plane": 3, "quadratic": 6}  # of the polynomial that is removed
_BODY = 0.1  # of the peak; what is below it is air (MR, PET)
_SMOOTHING = 2.0  # pixels, sd; anatomy remains, and most of the noise does not
_FLATTEST = 4  # one region in so many is used
_FEWEST = 16  # regions
_MOST = 4000  # regions; more take memory and change nothing
_NO_NOISE = 1e-6  # of the peak; the rounding of float32


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSpectrum:
    """Noise power spectrum (NPS) of an ensemble of images.

    Attributes:
        power: (H, W), zero frequency at [H // 2, W // 2], in the squared unit of the image times
            mm^2.
        step: distance of neighbouring frequencies along rows and columns of `power`, in 1/mm.
        frequency: centres of rings in 1/mm, equally far apart, up to the lower of the two Nyquist
            frequencies; the zero frequency, which detrending removes, is in none.
        radial: mean of `power` in each ring.
    """

    power: Values
    step: tuple[float, float]
    frequency: Values
    radial: Values

    @property
    def variance(self) -> float:
        """Integral of the spectrum over all frequencies, which is the variance of the noise."""
        return float(self.power.sum() * self.step[0] * self.step[1])

    @property
    def peak_frequency(self) -> float:
        """Centre of the ring with the most power, in 1/mm; its resolution is that of the rings."""
        return float(self.frequency[self.radial.argmax()])

    @property
    def mean_frequency(self) -> float:
        """Mean of the frequencies of the rings weighted by `radial`, f_av of TG 233, in 1/mm.

        Raises:
            NoScoreError: there is no noise.
        """
        total = float(self.radial.sum())
        if total == 0:
            raise NoScoreError("there is no noise")
        return float(self.frequency @ self.radial) / total


def noise_power_spectrum(
    images: ArrayLike, pixel_mm: tuple[float, float], *, detrend: Detrend = "plane"
) -> NoiseSpectrum:
    """Compute the noise power spectrum of images that have only noise.

        NPS(u, v) = dx dy / (Nx Ny) mean(abs(DFT(image - fit))^2)

    (ICRU Report 87; AAPM TG 233; Solomon et al., Med Phys 39:6048, 2012). By Parseval's
    theorem its integral is the mean square of `image - fit`; there is no window function. It is
    blind to noise that differs from place to place, since it is a mean over the region, and to
    phase: streaks and grain of one power look alike.

    A fit takes the coarsest noise with it, which nothing here corrects: of white noise in 32 x 32
    pixels, a plane takes 14 % of the power in the first ring and a quadratic 41 %, and 1 to 6 % in
    the second. Where the mean over n realisations was subtracted beforehand, multiply by
    n / (n - 1).

    Args:
        images: (N, H, W) or (H, W): differences from the truth or between realisations, or square
            regions of homogeneous tissue; at least 8 x 8 pixels.
        pixel_mm: distance of rows and of columns in mm; (1, 1) for frequencies in cycles per pixel.
        detrend: what is fitted to each image, by least squares, and subtracted.

    Raises:
        InputError: the shape, a value or a distance is invalid.
        ConfigError: `detrend` is unknown.
    """
    if detrend not in _TERMS:
        raise ConfigError(f"detrend {detrend!r} is unknown; give {', '.join(_TERMS)}")
    values = np.asarray(images, dtype=np.float64)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or len(values) == 0 or min(values.shape[1:]) < 8:
        raise InputError(
            f"images have shape {values.shape}; give (N, H, W) with at least 8 x 8 pixels"
        )
    if not np.isfinite(values).all():
        raise InputError("images have values that are not finite; replace or leave them out")
    check_pixel(pixel_mm)
    height, width = values.shape[1:]
    spectrum = np.fft.fft2(_detrended(values, detrend))
    scale = pixel_mm[0] * pixel_mm[1] / (height * width)
    power = np.fft.fftshift(np.mean(spectrum.real**2 + spectrum.imag**2, axis=0)) * scale
    frequency, radial = _rings(power, pixel_mm)
    step = 1 / (height * pixel_mm[0]), 1 / (width * pixel_mm[1])
    return NoiseSpectrum(power=power, step=step, frequency=frequency, radial=radial)


def noise_spectrum_distance(first: NoiseSpectrum, second: NoiseSpectrum) -> float:
    """Root mean square difference of two radial spectra, each divided by its own mean.

        sqrt(mean over rings of (r1 / mean(r1) - r2 / mean(r2))^2)

    After Solomon et al., Med Phys 39:6048 (2012), who match the noise textures of scanners by the
    root mean square difference of normalised spectra. They divide by the integral over both
    frequencies and weight by the response of the eye; here the radial spectrum has the area 1 over
    frequencies in units of the Nyquist frequency, so that the distance has no unit: 0 for one
    texture at any noise level, and 1 or more where the spectra hardly overlap. It is blind to the
    level of the noise and to its direction.

    Raises:
        InputError: the spectra have other frequencies.
        NoScoreError: one of them is 0 everywhere.
    """
    if first.frequency.shape != second.frequency.shape or not np.allclose(
        first.frequency, second.frequency
    ):
        raise InputError("spectra have other frequencies; give regions of one size and pixel")
    if not (first.radial.any() and second.radial.any()):
        raise NoScoreError("there is no noise")
    one, other = (spectrum.radial / spectrum.radial.mean() for spectrum in (first, second))
    return float(np.sqrt(np.mean((one - other) ** 2)))


def flat_regions(truth: Values, setting: Setting, side: int) -> list[tuple[int, int, int]]:
    """Find the flattest square regions inside the body, by the truth.

    A region is inside where the truth, smoothed by a Gaussian with an sd of 2 pixels, is in the
    task's metric range (CT) or above a tenth of the peak (others) everywhere. Of regions that
    overlap by half, the quarter is taken in which the smoothed truth varies least.

    Args:
        truth: (N, H, W).
        setting: task and peak of the scan.
        side: pixels along a side.

    Returns:
        Slice, first row and first column of each region.

    Raises:
        NoScoreError: fewer than 16 regions are found.
    """
    found: list[tuple[float, int, int, int]] = []
    step = side // 2
    for index, image in enumerate(truth):
        smooth = ndimage.gaussian_filter(image, _SMOOTHING)
        tiles = np.lib.stride_tricks.sliding_window_view(smooth, (side, side))[::step, ::step]
        low, high = _tissue(setting)
        inside = (tiles.min(axis=(2, 3)) >= low) & (tiles.max(axis=(2, 3)) <= high)
        spread = tiles[inside].std(axis=(1, 2))
        places = np.argwhere(inside) * step
        found += [
            (float(s), index, int(r), int(c)) for s, (r, c) in zip(spread, places, strict=True)
        ]
    count = min(max(len(found) // _FLATTEST, _FEWEST), _MOST)
    if len(found) < _FEWEST:
        raise NoScoreError(
            f"the truth has {len(found)} regions of {side} x {side} pixels inside the body, too "
            "few for a noise spectrum"
        )
    return [place[1:] for place in sorted(found)[:count]]


def _nps_distance(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth, axes=3)
    side = 32 if min(truth.shape[1:]) >= 192 else 16
    if min(truth.shape[1:]) < side:
        raise NoScoreError(f"slices are smaller than {side} x {side} pixels")
    places = flat_regions(truth, setting, side)
    spectra = []
    for name, images in (("truth", truth), ("restored image", restored)):
        tiles = np.stack([images[n, r : r + side, c : c + side] for n, r, c in places])
        spectrum = noise_power_spectrum(tiles, setting.pixel_mm or (1, 1), detrend="quadratic")
        if spectrum.variance <= (_NO_NOISE * max(abs(setting.peak), 1e-30)) ** 2:
            raise NoScoreError(f"the {name} has no noise in flat regions")
        spectra.append(spectrum)
    return noise_spectrum_distance(*spectra)


def check_pixel(pixel_mm: tuple[float, float]) -> None:
    """Raise an InputError unless the distances of pixels are two finite numbers above 0."""
    if len(pixel_mm) != 2 or not all(np.isfinite(side) and side > 0 for side in pixel_mm):
        raise InputError(f"pixel_mm is {tuple(pixel_mm)}; give (rows, columns) in mm, above 0")


def _tissue(setting: Setting) -> tuple[float, float]:
    """Range of the smoothed truth in which noise is compared."""
    if setting.task.modality == "CT":
        return setting.task.metric_range
    return _BODY * setting.peak, np.inf


def _detrended(images: Values, detrend: Detrend) -> Values:
    terms = _TERMS[detrend]
    if terms == 0:
        return images
    rows, columns = (np.linspace(-1, 1, side) for side in images.shape[1:])
    y, x = (part.ravel() for part in np.meshgrid(rows, columns, indexing="ij"))
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)[:, :terms]
    q, _ = np.linalg.qr(basis)
    flat = images.reshape(len(images), -1)
    rest: Values = (flat - (flat @ q) @ q.T).reshape(images.shape)
    return rest


def _rings(power: Values, pixel_mm: tuple[float, float]) -> tuple[Values, Values]:
    """Centres of rings one frequency step wide, and the mean power in each.

    The step is that of the axis with the finer one: of pixels of 0.5 x 5 mm, the other exceeds all
    frequencies that both axes have.
    """
    rows, columns = (
        np.fft.fftshift(np.fft.fftfreq(count, side))
        for count, side in zip(power.shape, pixel_mm, strict=True)
    )
    step = min(1 / (count * side) for count, side in zip(power.shape, pixel_mm, strict=True))
    ring = np.rint(np.hypot(rows[:, None], columns) / step).astype(int)
    last = int(0.5 / max(pixel_mm) / step + 1e-9)
    sums = np.bincount(ring.ravel(), power.ravel())[1 : last + 1]
    counts = np.bincount(ring.ravel())[1 : last + 1]
    return np.arange(1, last + 1) * step, sums / counts


NOISE_MEASURES = (
    Measure(
        name="nps-distance",
        title="Distance of noise spectra",
        unit="1",
        better="lower",
        bounds=(0.0, np.inf),
        of="volume",
        equation="sqrt(mean over rings of (r / mean(r) - t / mean(t))^2); r, t: radial noise power "
        "spectra of restored and true images in the flattest regions of the truth, each region "
        "less a quadratic fit",
        source="RMS difference of normalised spectra as in Solomon et al., Med Phys 39:6048 "
        "(2012); spectra as in ICRU Report 87 (2012)",
        blind_to="The level of the noise, its direction, everything outside flat regions, and most "
        "of what is coarser than a region of 32 pixels (16 in slices below 192), as the fit takes "
        "it. Anatomy that remains counts as noise, and the noise of the truth is its model, so "
        "that an image with less noise may be far from it.",
        compute=_nps_distance,
    ),
)
