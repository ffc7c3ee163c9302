"""Input that no one meant ends in a sentence with a cure, and never in a wrong result."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import small_unet
from toys_scores import small_model

import lensdiff as ld
from lensdiff.data.images import ImageSet, Stretch
from lensdiff.diffusion import sampling
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import DataError, LensdiffError, MetricError, ParameterError, SamplingError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.survey import model_i
from lensdiff.networks.backbones import SMALL, pretrained_backbone
from lensdiff.scores.distances import kid
from lensdiff.scores.extrapolation import extrapolate
from lensdiff.scores.features import extractor
from lensdiff.scores.memorisation import nearest
from lensdiff.scores.statistics import Statistics, to_uint8


@pytest.mark.parametrize("label", [[1.7], [None], [[0, 1]], [-1], ["3"]])
def test_labels_that_are_no_class(tmp_path: Path, label: list) -> None:
    model = small_model(tmp_path / "m", classes=3)
    with pytest.raises(SamplingError, match="knows the classes"):
        model.labels(label)


def test_whole_numbers_of_other_kinds_are_classes(tmp_path: Path) -> None:
    model = small_model(tmp_path / "m", classes=3)
    assert model.labels([np.int64(2), torch.tensor(1), 0]).tolist() == [2, 1, 0]


def test_pixels_with_nan_have_no_stretch() -> None:
    pixels = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    pixels[3, 0, 0, 0] = math.nan
    with pytest.raises(DataError, match="hold NaN or infinity"):
        Stretch.of(pixels)


@pytest.mark.parametrize("high", [math.nan, math.inf])
def test_levels_that_are_no_numbers(high: float) -> None:
    for levels in (sampling.log_levels, sampling.karras_levels):
        with pytest.raises(SamplingError, match="Levels go down and are positive"):
            levels(5, high, 0.01)
    with pytest.raises(SamplingError, match="descend strictly"):
        next(sampling.heun(None, torch.zeros(1), torch.tensor([high, 1.0, 0.0])))


def test_labels_that_do_not_match_the_seeds() -> None:
    drawn = sampling.draw(None, (1, 4, 4), range(4), torch.tensor([1.0, 0.0]), label=torch.zeros(3))
    with pytest.raises(SamplingError, match="3 labels for 4 seeds"):
        next(drawn)


def test_a_loss_of_float64_is_that_of_float32() -> None:
    denoiser = Denoiser(small_unet())
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 1, 16, 16, generator=generator) for _ in range(2))
    sigma = torch.tensor([0.1, 2.0])
    fine = denoiser.loss(x0.double(), sigma.double(), eps.double())
    torch.testing.assert_close(fine.float(), denoiser.loss(x0, sigma, eps), rtol=1e-4, atol=1e-6)


def test_a_device_that_is_not_there() -> None:
    for device in ("gpu", "tpu:1"):
        with pytest.raises(ParameterError, match=r"The device is .* which this machine has not"):
            ld.load("lens64", device=device)
        with pytest.raises(LensdiffError, match="which this machine has not"):
            ld.load("judge64", device=device)


def test_features_of_two_extractors_have_no_kid() -> None:
    rng = np.random.default_rng(0)
    one, other = (Statistics.of(rng.random((40, width))) for width in (8, 9))
    with pytest.raises(MetricError, match="use one extractor for both"):
        kid(one, other)


def test_an_empty_batch_changes_no_statistics() -> None:
    found = Statistics.of(np.random.default_rng(0).random((8, 4)))
    before = (found.n, found.mean.copy(), found.covariance.copy())
    found.update(np.zeros((0, 4)))
    assert found.n == before[0]
    np.testing.assert_array_equal(found.mean, before[1])
    np.testing.assert_array_equal(found.covariance, before[2])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_pixels_of_any_kind_of_tensor_are_rounded(kind: torch.dtype) -> None:
    pixels = torch.tensor([[0.0, 0.5, 1.2]], dtype=kind, requires_grad=True)
    assert to_uint8(pixels).tolist() == [[0, 128, 255]]


def test_more_sizes_than_a_jackknife_tells_apart() -> None:
    rng = np.random.default_rng(0)
    sizes = np.linspace(50, 2_000, 26)
    groups = rng.normal(size=(20, 26))
    with pytest.raises(MetricError, match="too low a rank for 26 sizes"):
        extrapolate(sizes, 1 + 100 / sizes, np.cov(groups.T) + 0.0)


def test_oblong_images_have_no_quarter_turns() -> None:
    oblong = np.random.default_rng(0).random((4, 1, 8, 10), np.float32)
    with pytest.raises(MetricError, match="of square ones, 8"):
        nearest(oblong, oblong, 8)
    assert nearest(oblong, oblong, 1)[0].max() < 1e-3


def test_an_autoencoder_of_oblong_images_takes_no_quarter_turns(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((20, 1, 16, 20), np.float32)
    images = ImageSet("oblong", pixels, "a" * 32, symmetries=8)
    with pytest.raises(DataError, match="20 x 16 pixels are not square"):
        ld.fit(ld.recipes.DIGITS_KL.scaled(steps=1), images, tmp_path / "m")


def test_a_file_that_holds_no_inception_weights(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<html>")
    with pytest.raises(MetricError, match=r"page.html: can't be read as the Inception weights"):
        extractor("inception", path=path)


def test_the_small_backbone_takes_no_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the small backbone learns from nothing"):
        pretrained_backbone(SMALL, tmp_path / "weights.pth")


def test_a_source_in_a_square_is_held_against_the_square() -> None:
    survey = model_i()
    values = parameters.of(sample_params(200, "no_sub", 0, survey))
    assert parameters.outside(values, survey) == []
    values[0, 3] = survey.source_offset[1] + 0.1
    assert parameters.outside(values, survey) == ["a source outside -0.35 to 0.35 arcsec in x or y"]
