"""Measures of similarity beside PSNR and SSIM: NRMSE, MS-SSIM, VIF and HaarPSI."""

from __future__ import annotations

import math

import numpy as np

from restore_rwkv.evaluation.measures import haarpsi, vif
from restore_rwkv.evaluation.measures.measure import Measure, NoScoreError, Setting, Values
from restore_rwkv.evaluation.measures.score_checks import pair_of, require_range, require_sides
from restore_rwkv.evaluation.measures.ssim import MS_SSIM_SIDE, ms_ssim

_BYTE = 255.0


def _nrmse(restored: Values, truth: Values, setting: Setting) -> float:
    restored, truth = pair_of(restored, truth)
    norm = float(np.linalg.norm(truth - setting.task.value_range[0]))
    if norm == 0:
        raise NoScoreError("the truth is at the lower end of the value range everywhere")
    return float(np.linalg.norm(restored - truth)) / norm


def _ms_ssim(restored: Values, truth: Values, setting: Setting) -> float:
    require_sides(truth, MS_SSIM_SIDE, "MS-SSIM")
    return ms_ssim(*_as_bytes(restored, truth, setting), _BYTE)


def _vif(restored: Values, truth: Values, setting: Setting) -> float:
    require_sides(truth, vif.SMALLEST_SIDE, "VIF")
    return vif.vif(*_as_bytes(restored, truth, setting))


def _haarpsi(restored: Values, truth: Values, setting: Setting) -> float:
    require_sides(truth, haarpsi.SMALLEST_SIDE, "HaarPSI")
    return haarpsi.haarpsi(*_as_bytes(restored, truth, setting))


def _as_bytes(restored: Values, truth: Values, setting: Setting) -> tuple[Values, Values]:
    """Truncate as the paper does, and map the range of the true slice to [0, 255].

    Values of the restored image beyond that range stay beyond it.
    """
    restored, truth = pair_of(restored, truth)
    x, y = (np.clip(image, *setting.task.metric_range) for image in (restored, truth))
    scale = _BYTE / require_range(y)
    return (x - y.min()) * scale, (y - y.min()) * scale


_SCALED = (
    "x and y truncated to the metric range, then [min(y), max(y)] of the slice mapped to [0, 255]"
)

SIMILARITY_MEASURES: tuple[Measure, ...] = (
    Measure(
        name="nrmse",
        title="NRMSE",
        unit="1",
        better="lower",
        bounds=(0.0, math.inf),
        of="slice",
        equation="norm(x - y) / norm(y - low), nothing truncated, low the lower end of the value "
        "range (0 for MRI and PET, -1024 HU for CT, where zero would be water)",
        source="scikit-image 0.26, skimage.metrics.normalized_root_mse with its default "
        "(euclidean), of values above low; its square is the NMSE of fastMRI, for one slice",
        blind_to="Where the error lies, and whether it is noise, blur or a wrong grey level; "
        "bright pixels decide the norm.",
        compute=_nrmse,
    ),
    Measure(
        name="ms-ssim",
        title="MS-SSIM",
        unit="1",
        better="higher",
        bounds=(0.0, 1.0),
        of="slice",
        equation="mean(l_5 c_5)^0.1333 times the product over k = 1..4 of mean(c_k)^b_k, "
        "b = 0.0448, 0.2856, 0.3001, 0.2363, with SSIM's factors of luminance l and of contrast "
        "and structure c at scale k (halved k - 1 times by 2 x 2 means), negative means taken as "
        f"0; L = 255, {_SCALED}; sides of 176 pixels or more",
        source="Wang et al., Asilomar Conf. 2003, p. 1398, eq. 7; torchmetrics 1.9 differs "
        "(1e-4 under blur and noise, 1e-2 under a shift in grey level), as it takes the mean at "
        "the coarsest scale over mirrored borders too",
        blind_to="Fine detail and noise, as the finest scale has the exponent 0.04; a uniform "
        "shift in grey level, which counts at the coarsest scale only.",
        compute=_ms_ssim,
    ),
    Measure(
        name="vif",
        title="VIF",
        unit="1",
        better="higher",
        bounds=(0.0, math.inf),
        of="slice",
        equation="sum log(1 + g^2 syy / (sv + 2)) / sum log(1 + syy / 2) over pixels and 4 scales, "
        f"g = max(sxy, 0) / syy, sv = sxx - g sxy; {_SCALED}; sides of 41 pixels or more",
        source="Sheikh and Bovik, IEEE TIP 15:430 (2006), in the pixel domain (their "
        "vifp_mscale); torchmetrics 1.9 agrees to 1e-9 in double precision, and in single "
        "precision differs by up to 3e-3",
        blind_to="A uniform shift in grey level. A restored image of raised contrast scores above "
        "1. The 2, the variance of the eye's noise, was fitted to photographs and not to scans.",
        compute=_vif,
    ),
    Measure(
        name="haarpsi",
        title="HaarPSI",
        unit="1",
        better="higher",
        bounds=(0.0, 1.0),
        of="slice",
        equation="(f^-1(sum(W f(S)) / sum(W)))^2, f(s) = 1 / (1 + exp(-4.9 s)), S the similarity "
        "of Haar coefficients at scales 1 and 2 with C = 5, W the larger one at scale 3, of images "
        f"halved by 2 x 2 means; {_SCALED}; sides of 16 pixels or more",
        source="Reisenhofer et al., Signal Process. Image Commun. 61:33 (2018); C and alpha for "
        "medical images: Karner et al., arXiv 2410.24098",
        blind_to="Errors of grey level in areas without edges, detail of single pixels, and "
        "whether an edge is dark to bright or bright to dark, as magnitudes are compared.",
        compute=_haarpsi,
    ),
)
"""Measures of similarity of slices."""
