"""Surveys: which lenses there are, and with what they are observed.

Two are made: `diverse`, the default, and DeepLenseSim's `model_i`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields, replace

import numpy as np

from ..errors import ParameterError

MAX_SUBHALOS = 64  # a Poisson number with mean 25 exceeds this once in 10^11 images
# pairs that are divided by, or whose logarithm is taken
POSITIVE = ("lens_axis_ratio", "source_axis_ratio", "source_radius_arcsec", "source_amplitude_cps")
POSITIVE += ("exposure_s", "axion_mass_ev", "subhalo_mass_msun")
MOST_POISSON = 34  # mean of a Poisson number that exceeds it once in 10^6


@dataclass(frozen=True)
class Survey:
    """What is observed, and with what.

    A pair is the (low, high) of a uniform prior, or of a log-uniform one where noted.

    The last six fields are the departures of DeepLenseSim's Model I from textbook physics, each a
    switch of its own.
    """

    name: str
    pixels: int
    pixel_arcsec: float
    einstein_radius_arcsec: tuple[float, float] | None  # None: from lens_mass_msun
    lens_axis_ratio: tuple[float, float]
    lens_angle_rad: tuple[float, float]
    shear: tuple[float, float]
    shear_angle_rad: tuple[float, float]
    # on a disc in Einstein radii, or on a square in arcsec: see source_square
    source_offset: tuple[float, float]
    source_radius_arcsec: tuple[float, float]
    source_axis_ratio: tuple[float, float]
    source_angle_rad: tuple[float, float]
    source_amplitude_cps: tuple[float, float]  # log-uniform
    background_rms_cps: float
    isotropic: bool  # the eight flips and rotations are exact symmetries of the population
    supersampling: int = 1  # rays a pixel side; the point-spread function acts on this finer grid
    source_sersic_index: float = 1.0
    psf_fwhm_arcsec: float = 0.087
    psf_truncation_sigma: float = 3.0
    exposure_s: tuple[float, float] = (1e3, 10**3.5)  # log-uniform
    lens_mass_msun: float = 1e12
    subhalo_mean_number: float = 25.0
    subhalo_mass_msun: tuple[float, float] = (1e6, 1e10)
    subhalo_annulus_arcsec: tuple[float, float] = (0.25, 2.0)
    string_mass_msun: float = 3e10
    axion_mass_ev: tuple[float, float] = (1e-24, 1e-22)  # log-uniform
    subhalo_slope: float = -0.9  # dN/dM ~ M^slope; cold dark matter has -1.9
    # masses to Einstein radii by D_L, D_S and their difference, not angular diameters
    luminosity_distances: bool = False
    # always the mean number: the Poisson draw is made and not used
    fixed_subhalo_number: bool = False
    # Gaussian shot noise and background, clipped at 0, then a Poisson draw of the sum
    double_poisson: bool = False
    use_lenstronomy_k: bool = False  # b_n = 1.9992 n - 0.3271 in the Sersic law
    source_square: bool = False  # the source's x and y each uniform in source_offset

    def __post_init__(self) -> None:
        """Raise ParameterError for fields that can't be used."""
        for name in ("pixels", "supersampling"):
            object.__setattr__(self, name, self._whole(name))
        if self.pixels < 8 or not self.pixel_arcsec > 0 or self.supersampling < 1:
            raise ParameterError(
                f"Survey {self.name!r}: pixels must be 8 or more, pixel_arcsec positive and "
                "supersampling 1 or more; "
                f"got {self.pixels}, {self.pixel_arcsec} and {self.supersampling}."
            )
        most = MAX_SUBHALOS if self.fixed_subhalo_number else MOST_POISSON
        if not 0 <= self.subhalo_mean_number <= most:
            got = f"subhalo_mean_number is {self.subhalo_mean_number:g}"
            raise ParameterError(f"Survey {self.name!r}: {got}; give 0 to {most}.")
        for name in ("psf_fwhm_arcsec", "background_rms_cps"):
            if not getattr(self, name) >= 0:
                got = f"{name} is {getattr(self, name)}; give 0 for none, or more"
                raise ParameterError(f"Survey {self.name!r}: {got}.")
        for name in (one.name for one in fields(self) if "tuple" in one.type):
            object.__setattr__(self, name, self._pair(name))

    def _pair(self, name: str) -> tuple[float, float] | None:
        """A prior's (low, high), of lists too, as a tuple; ParameterError for what is none."""
        value = getattr(self, name)
        if value is None and name == "einstein_radius_arcsec":
            return None
        least = 0.0 if name in POSITIVE else -np.inf
        try:
            low, high = value
            good = least < low <= high < np.inf
        except (TypeError, ValueError):
            good = False
        if not good:
            needs = "two finite numbers, the smaller first" + ", both positive" * (not least)
            raise ParameterError(f"Survey {self.name!r}: {name} is {value}; give {needs}.")
        return low, high

    def _whole(self, name: str) -> int:
        """A field that is a whole number, of numpy's too, as an int; ParameterError for others."""
        value = getattr(self, name)
        try:
            return operator.index(value)
        except TypeError:
            reason = f"{name} is {value!r}; give a whole number"
            raise ParameterError(f"Survey {self.name!r}: {reason}.") from None


def diverse(pixels: int = 64, **changes: object) -> Survey:
    """The default population, isotropic: rings, arcs, pairs and quads of many sizes.

    The field has 7.5 arcsec. Priors, uniform unless noted: Einstein radius 0.5 to 2 arcsec; axis
    ratio of the lens 0.5 to 1; shear 0 to 0.1; source within 0.7 Einstein radii (uniform in radius,
    so that rings are frequent), half-light radius 0.1 to 0.4 arcsec, axis ratio 0.4 to 1, amplitude
    log-uniform in 5 to 40 counts per second and pixel; every orientation uniform. Amplitude and
    background are the same for each *pixel*, so an image of fewer pixels is also of a shallower
    exposure: at 64 pixels a square arcsec collects 5.5 times less than at 150.
    `changes` are fields of `Survey`.
    """
    half_turn = (0.0, np.pi)
    survey = Survey(
        name="diverse",
        pixels=pixels,
        pixel_arcsec=7.5 / pixels if pixels else 0.0,
        supersampling=2 if pixels < 128 else 1,
        isotropic=True,
        einstein_radius_arcsec=(0.5, 2.0),
        lens_axis_ratio=(0.5, 1.0),
        lens_angle_rad=half_turn,
        shear=(0.0, 0.1),
        shear_angle_rad=half_turn,
        source_offset=(0.0, 0.7),
        source_radius_arcsec=(0.1, 0.4),
        source_axis_ratio=(0.4, 1.0),
        source_angle_rad=half_turn,
        source_amplitude_cps=(5.0, 40.0),
        background_rms_cps=0.25,
    )
    return replace(survey, **changes)


def model_i(pixels: int = 150, **changes: object) -> Survey:
    """DeepLenseSim's Model I: one lens of 1e12 solar masses, one source, whose position is free.

    Its text gives a subhalo slope of -1.9; its code, and so its images, have -0.9. Its source
    amplitude of 20 is, as lenstronomy has it, per square arcsec: 0.05 counts per second and pixel
    of 0.05 arcsec.
    """
    pixel_arcsec = 7.5 / pixels if pixels else 0.0  # which the survey refuses
    amplitude = 20.0 * pixel_arcsec**2
    lens_ratio, lens_angle = _axis_ratio_angle(0.1, 0.0)
    source_ratio, source_angle = _axis_ratio_angle(-0.1, 0.1)
    survey = Survey(
        name="model_i",
        pixels=pixels,
        pixel_arcsec=pixel_arcsec,
        isotropic=False,
        einstein_radius_arcsec=None,
        lens_axis_ratio=(lens_ratio,) * 2,
        lens_angle_rad=(lens_angle,) * 2,
        shear=(0.05, 0.05),
        shear_angle_rad=(0.0, 0.0),
        source_offset=(-0.35, 0.35),
        source_radius_arcsec=(0.25, 0.25),
        source_axis_ratio=(source_ratio,) * 2,
        source_angle_rad=(source_angle,) * 2,
        source_amplitude_cps=(amplitude, amplitude),
        background_rms_cps=0.01,
        luminosity_distances=True,
        fixed_subhalo_number=True,
        double_poisson=True,
        use_lenstronomy_k=True,
        source_square=True,
    )
    return replace(survey, **changes)


def _axis_ratio_angle(e1: float, e2: float) -> tuple[float, float]:
    """Axis ratio and orientation of an ellipticity: the inverse of `parameters.ellipticity`."""
    modulus = np.hypot(e1, e2)
    return float((1 - modulus) / (1 + modulus)), float(0.5 * np.arctan2(e2, e1))
