"""The simulator's images and its speed against lenstronomy."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import gammaincinv

from lensdiff.lensing.population import KINDS, sample_params
from lensdiff.lensing.simulate import render, simulate
from lensdiff.lensing.survey import Survey, diverse, model_i
from lensdiff.studies.peer_lenses import Lenstronomy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("survey", "seed"),
    [
        (model_i(150), 11),
        (diverse(150, use_lenstronomy_k=True), 12),
        (diverse(64, use_lenstronomy_k=True), 13),
    ],
    ids=["model_i-150", "diverse-150", "diverse-64"],
)
def test_image_equals_lenstronomys(survey: Survey, seed: int, kind: str) -> None:
    params = sample_params(3, kind, seed, survey)
    images = render(params, survey).numpy()
    oracle = Lenstronomy(survey)
    for row, image in zip(params, images, strict=True):
        expected = oracle(row)
        # brighter than at the half-light radius: the lens is in the picture
        assert expected.max() > row["source_amplitude_cps"]
        assert np.abs(image - expected).max() < 1e-3 * expected.max()


@pytest.mark.parametrize(
    ("lenstronomys", "k"),
    [(False, gammaincinv(2, 0.5)), (True, 1.9992 - 0.3271)],
    ids=["exact", "lenstronomys"],
)
def test_k_of_the_sersic_law(lenstronomys: bool, k: float) -> None:
    """The exact k puts half of the light within its radius; lenstronomy's is 0.4 % smaller."""
    survey = diverse(128, psf_fwhm_arcsec=0.001, use_lenstronomy_k=lenstronomys)
    params = sample_params(1, "no_sub", 0, survey)
    for name in ("einstein_radius_arcsec", "shear_1", "shear_2"):
        params[name] = 1e-12  # no lens
    for name in ("source_x_arcsec", "source_y_arcsec"):
        params[name] = 1e-12
    params["source_axis_ratio"] = 1
    params["source_radius_arcsec"] = 0.4
    near, far = render(params, survey)[0, 64, [64, 84]].tolist()
    radius = np.hypot(0.5, [0.5, 20.5]) * 7.5 / 128
    assert np.log(near / far) * 0.4 / (radius[1] - radius[0]) == pytest.approx(k, rel=1e-4)


@pytest.mark.slow
def test_speed_beside_lenstronomy() -> None:
    """150 pixels: twice as fast as lenstronomy's loop; 10,000 observed images in 3 minutes.

    Processor seconds of pairs that follow each other, and the best of up to sixty pairs over two
    minutes, since other programs share caches and cores with the test.
    """
    survey = diverse(150, use_lenstronomy_k=True)
    oracle = Lenstronomy(survey)
    few = sample_params(12, "mixed", 5, survey)
    many = sample_params(96, "mixed", 5, survey)
    for row in few[:3]:
        oracle(row)
    render(many[:12], survey)

    def seconds(work: Callable[[], object]) -> float:
        return timeit.timeit(work, number=1, timer=time.process_time)

    pairs = []
    for _ in range(60):
        theirs = seconds(lambda: [oracle(row) for row in few]) / len(few)
        ours = seconds(lambda: render(many, survey)) / len(many)
        pairs.append((theirs / ours, theirs, ours))
        if theirs > 2 * ours:
            break
        time.sleep(1)  # a busy neighbour may be done then
    ratio, theirs, ours = max(pairs)
    observed = seconds(lambda: list(simulate(many, survey, 6))) / len(many)
    print(f"\n150 x 150, an image: lenstronomy {1e3 * theirs:.1f} ms, lensdiff {1e3 * ours:.1f} ms")
    print(f"10,000 observed images: {1e4 * observed:.0f} s")
    assert ratio > 2, pairs
    assert 1e4 * observed < 180
