"""What an astronomer would measure on an image of a lens, each from the pixels alone.

Ring, shape, flux, bright images and pieces, profile and power. The estimators know two things of a
survey: its pixel scale, and that the lens stands at the centre. All take images (n, 1, H, W) as
they are stored, each scaled to span [0, 1] and with noise, and work on the light above the sky,
which they find in the corners.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.stats import ks_2samp, wasserstein_distance

from ..errors import MetricError
from .telescope import min_max

# Gaussian, before anything is counted or followed: about the point-spread function
SMOOTHING_ARCSEC = 0.08
PIECE = 0.15  # of the peak: what lies above it and hangs together is a piece
BRIGHT = 0.4  # of the peak: maxima above it are bright images
APART_ARCSEC = 0.3  # least distance of two bright images
COVERED = 0.1  # of the peak: azimuths whose ridge is brighter belong to the ring
ANGLES = 72

SCALARS = {  # name: (words for an axis, unit)
    "ring_radius_arcsec": ("ring radius", "arcsec"),
    "ellipticity": ("ellipticity", "(1 − q) / (1 + q)"),
    "flux_arcsec2": ("flux", "peaks × arcsec²"),
    "bright_images": ("bright images", "number"),
    "pieces": ("separate pieces", "number"),
}


def _checked(images: np.ndarray, pixel_arcsec: float) -> np.ndarray:
    x = np.asarray(images, np.float32)
    shape = x.shape if x.ndim == 4 and len(x) else (0, 0, 0, 0)
    if shape[1] != 1 or min(shape[2:]) < 16 or not pixel_arcsec > 0:
        got = f"Images of shape {x.shape}, {pixel_arcsec} arcsec a pixel"
        raise MetricError(f"{got}: give (n, 1, H, W), 16 pixels or more, and a scale.")
    if not np.isfinite(x).all():
        raise MetricError(
            f"Image {int(np.flatnonzero(~np.isfinite(x).all((1, 2, 3)))[0])} holds NaN or "
            "infinity: look at the sampler."
        )
    flat = x.reshape(len(x), -1)
    if (flat.min(1) == flat.max(1)).any():
        raise MetricError(
            f"Image {int(np.flatnonzero(flat.min(1) == flat.max(1))[0])} is constant: there is "
            "no lens to measure."
        )
    return x[:, 0]


def above_sky(images: np.ndarray, pixel_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Light above the sky (n, H, W) and the sky's noise (n,), in units of each image's peak.

    Sky and noise are the median and 1.4826 times the median absolute deviation of the four corners,
    each an eighth of the side. The peak is that of the smoothed image, since the brightest pixel of
    a noisy one is partly luck.
    """
    x = _checked(images, pixel_arcsec)
    side = max(2, x.shape[-1] // 8)
    ends = slice(side), slice(-side, None)
    corners = np.concatenate(
        [x[:, rows, columns].reshape(len(x), -1) for rows in ends for columns in ends], 1
    )
    sky = np.median(corners, 1)
    noise = 1.4826 * np.median(np.abs(corners - sky[:, None]), 1)
    light = x - sky[:, None, None]
    peak = np.maximum(smooth(light, pixel_arcsec).max((1, 2)), 1e-6)
    return light / peak[:, None, None], noise / peak


def smooth(light: np.ndarray, pixel_arcsec: float) -> np.ndarray:
    """(n, H, W), each image convolved with a Gaussian of `SMOOTHING_ARCSEC`."""
    sigma = SMOOTHING_ARCSEC / pixel_arcsec
    return ndimage.gaussian_filter(light, (0, sigma, sigma))


def polar(light: np.ndarray, pixel_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Light along `ANGLES` rays from the centre, (n, angles, radii), and the radii in arcsec.

    Radii are half a pixel apart, and values between pixels come from cubic splines.
    """
    height, width = light.shape[1:]
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    radius = np.arange(0.5, min(centre), 0.5)
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    where = centre[:, None, None] + radius * np.stack([np.sin(angle), np.cos(angle)])[:, :, None]
    return np.stack(
        [ndimage.map_coordinates(image, where, order=3, mode="nearest") for image in light]
    ), radius * pixel_arcsec


def ring(
    light: np.ndarray, noise: np.ndarray, pixel_arcsec: float
) -> tuple[np.ndarray, np.ndarray]:
    """(radius in arcsec, share of the azimuth that is covered), each (n,).

    The radius is NaN where the share is below 0.95. The ridge, the brightest radius of each ray,
    runs at theta_E + beta cos(phi) for an isothermal lens and a source displaced by beta
    (notebook 13 derives it; the ridge is that of Kochanek, Keeton & McLeod 2001): its mean over all
    azimuths is the Einstein radius of all mass inside.
    """
    rays, radii = polar(smooth(light, pixel_arcsec), pixel_arcsec)
    covered = (rays.max(2) > np.maximum(COVERED, 4 * noise)[:, None]).mean(1)
    ridge = radii[rays.argmax(2)].mean(1)
    return np.where(covered >= 0.95, ridge, np.nan), covered


def ellipticity(light: np.ndarray, noise: np.ndarray, pixel_arcsec: float) -> np.ndarray:
    """(1 - q) / (1 + q) of the light's second moments, (n,); q: axis ratio.

    Bartelmann & Schneider 2001, eq. 4.2 and 4.10, but about the image's centre, where the lens is:
    light on one side of it counts as elongated.
    """
    bright = smooth(light, pixel_arcsec)
    weight = np.where(bright > np.maximum(COVERED, 4 * noise)[:, None, None], bright, 0)
    y, x = (np.arange(side) - (side - 1) / 2 for side in light.shape[1:])
    xx = (weight * x**2).sum((1, 2))
    yy = (weight * y[:, None] ** 2).sum((1, 2))
    xy = (weight * x * y[:, None]).sum((1, 2))
    modulus = np.hypot(xx - yy, 2 * xy)
    total = xx + yy
    return modulus / (total + np.sqrt(np.maximum(total**2 - modulus**2, 0)) + 1e-12)


def flux_arcsec2(light: np.ndarray, pixel_arcsec: float) -> np.ndarray:
    """All light in units of the peak, (n,): the area it would fill at the peak's brightness."""
    return light.sum((1, 2)) * pixel_arcsec**2


def bright_images(light: np.ndarray, noise: np.ndarray, pixel_arcsec: float) -> np.ndarray:
    """Number of maxima above `BRIGHT` peaks, the brightest of their neighbourhood, (n,).

    That is a square of whole pixels that reaches about `APART_ARCSEC` to each side, and farther
    along its diagonals.
    """
    bright = smooth(light, pixel_arcsec)
    size = 2 * round(APART_ARCSEC / pixel_arcsec) + 1
    highest = ndimage.maximum_filter(bright, (1, size, size), mode="constant") == bright
    highest &= bright > np.maximum(BRIGHT, 4 * noise)[:, None, None]
    # neighbours of equal height are one maximum
    return np.array([ndimage.label(image, np.ones((3, 3)))[1] for image in highest])


def pieces(light: np.ndarray, noise: np.ndarray, pixel_arcsec: float) -> np.ndarray:
    """Number of regions brighter than `PIECE` peaks that do not touch, (n,).

    Those below 0.01 arcsec^2 are not counted.
    """
    bright = smooth(light, pixel_arcsec) > np.maximum(PIECE, 4 * noise)[:, None, None]
    found = []
    for image in bright:
        labels, _ = ndimage.label(image)
        found.append((np.bincount(labels.ravel())[1:] * pixel_arcsec**2 >= 0.01).sum())
    return np.array(found)


def measure(images: np.ndarray, pixel_arcsec: float) -> dict[str, np.ndarray]:
    """All of `SCALARS` and `ring_cover`, each (n,), of images (n, 1, H, W).

    Raises MetricError for constant or not finite images.
    """
    light, noise = above_sky(images, pixel_arcsec)
    radius, cover = ring(light, noise, pixel_arcsec)
    return {
        "ring_radius_arcsec": radius,
        "ellipticity": ellipticity(light, noise, pixel_arcsec),
        "flux_arcsec2": flux_arcsec2(light, pixel_arcsec),
        "bright_images": bright_images(light, noise, pixel_arcsec),
        "pieces": pieces(light, noise, pixel_arcsec),
        "ring_cover": cover,
    }


def radial_profile(images: np.ndarray, pixel_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Radii in arcsec (bins,), and the mean light above the sky in rings around them, (n, bins).

    Rings are one pixel wide, and the light is in units of the peak.
    """
    light, _ = above_sky(images, pixel_arcsec)
    return _rings(light, pixel_arcsec)


def power_spectrum(images: np.ndarray, pixel_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in cycles per arcsec (bins,), and the power averaged over rings, (n, bins).

    The power is |FFT|^2 / pixels of the image minus its mean. White noise of variance s^2 has the
    power s^2 at every frequency (Parseval).
    """
    x = _checked(images, pixel_arcsec)
    x = x - x.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.fftshift(np.fft.fft2(x), axes=(1, 2))) ** 2 / x[0].size
    height, width = x.shape[1:]
    frequency = np.hypot(
        *np.meshgrid(
            *(np.fft.fftshift(np.fft.fftfreq(s, pixel_arcsec)) for s in (height, width)),
            indexing="ij",
        )
    )
    return _binned(
        power, frequency, 1 / (min(height, width) * pixel_arcsec), min(height, width) // 2
    )


def pixel_histogram(images: np.ndarray, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Centres of equal bins of [0, 1], and the share of each image's pixels in them, (n, bins)."""
    x = _checked(images, 1.0).reshape(len(images), -1)
    edges = np.linspace(0, 1, bins + 1)
    return (edges[1:] + edges[:-1]) / 2, np.stack(
        [np.histogram(row.clip(0, 1), edges)[0] / row.size for row in x]
    )


def _rings(light: np.ndarray, pixel_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    height, width = light.shape[1:]
    y = np.arange(height) - (height - 1) / 2
    x = np.arange(width) - (width - 1) / 2
    return _binned(
        light, np.hypot(x, y[:, None]) * pixel_arcsec, pixel_arcsec, min(height, width) // 2
    )


def _binned(
    values: np.ndarray, of: np.ndarray, step: float, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (bins,) and means (n, bins) of values (n, H, W) over equal bins of `of` (H, W).

    The first bin begins at half a step.
    """
    index = np.floor(of / step - 0.5).astype(int).ravel()
    there = (index >= 0) & (index < bins)
    count = np.bincount(index[there], minlength=bins)
    sums = np.stack(
        [np.bincount(index[there], row[there], bins) for row in values.reshape(len(values), -1)]
    )
    return (np.arange(bins) + 1) * step, sums / np.maximum(count, 1)


def binned(images: np.ndarray, factor: int) -> np.ndarray:
    """Images (n, 1, H, W) averaged over blocks of `factor` pixels, each scaled to span [0, 1].

    Raises MetricError where the blocks don't fill an image: a cropped one has another centre.
    """
    x = np.asarray(images, np.float32)
    if factor < 1 or any(side < factor or side % factor for side in x.shape[2:]):
        sides = f"Images of {x.shape[3]} x {x.shape[2]} pixels have no whole blocks"
        raise MetricError(f"{sides} of {factor}. Take a factor that divides both sides.")
    height, width = (side // factor for side in x.shape[2:])
    x = x.reshape(len(x), 1, height, factor, width, factor).mean((3, 5))
    return min_max(x)


def compare(
    real: np.ndarray, generated: np.ndarray, repeats: int = 200, seed: int = 0
) -> dict[str, float]:
    """Distance of two samples of a number, (n,) and (m,), beside that of real against real.

    `w1` is the Wasserstein-1 distance, `ks_p` the p-value of Kolmogorov and Smirnov's test.
    `w1_band` is the 95th percentile of the distances of `repeats` random splits of the real ones
    into two equal parts, scaled to the sizes n and m, since a distance falls with the root of a
    number; NaN entries are left out. Both have the unit of the values. MetricError below 8 values.
    """
    real, generated = (np.asarray(x, float)[np.isfinite(x)] for x in (real, generated))
    if min(len(real), len(generated)) < 8:
        counts = f"{len(real)} real and {len(generated)} generated values"
        raise MetricError(f"{counts}: a comparison needs eight or more of both.")
    rng = np.random.default_rng(seed)
    size = min(len(generated), len(real) // 2)
    scale = np.sqrt((1 / len(generated) + 1 / len(real)) / (2 / size))
    shuffled = (rng.permutation(real) for _ in range(repeats))
    splits = [wasserstein_distance(x[:size], x[size : 2 * size]) * scale for x in shuffled]
    return {
        "real_mean": real.mean(),
        "generated_mean": generated.mean(),
        "w1": float(wasserstein_distance(real, generated)),
        "w1_band": float(np.quantile(splits, 0.95)),
        "ks_p": float(ks_2samp(real, generated).pvalue),
        "n": len(generated),
    }


def band(
    curves: np.ndarray, n: int, repeats: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """2.5th and 97.5th percentile (bins,) of the mean of `n` other real curves, by (m, bins) here.

    By the bootstrap: `n` curves are chosen at random for the other mean, and m for the known one.
    """
    rng = np.random.default_rng(seed)
    many = len(curves)
    apart = [
        curves[rng.integers(0, many, n)].mean(0) - curves[rng.integers(0, many, many)].mean(0)
        for _ in range(repeats)
    ]
    ends = np.quantile(apart, (0.025, 0.975), axis=0)
    return curves.mean(0) + ends[0], curves.mean(0) + ends[1]
