"""Images from a model: how many, of which seeds, and with which labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toys import small_unet

import lensdiff as ld
from lensdiff.data.images import Stretch
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import SamplingError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import KINDS
from lensdiff.model import Model, Sampling

QUICK = Sampling(steps=2)
LENS = (1.2, 0.1, 0.0, 0.2, -0.1, 0.02, 0.0)
OTHER = (0.9, -0.1, 0.1, -0.3, 0.1, 0.0, 0.03)


def small_model(**arguments: object) -> Model:
    """A model of 16 pixels that samples in two steps, and was never on disk."""
    denoiser = Denoiser(small_unet(**arguments)).requires_grad_(False)
    network = {"name": "UNet", "arguments": arguments}
    sampling = {"steps": 2}
    spec = {"network": network, "image_size": 16, "classes": list(KINDS), "sampling": sampling}
    return Model(denoiser, Stretch(0.1, 0.2), spec, Path("small"))


def close(one: Tensor, other: Tensor) -> None:
    """Equal up to the rounding of another batch size."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


# ---- shape, range, seeds -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 5])
def test_images_of_the_models_shape_between_0_and_1(n: int) -> None:
    images = small_model().draw(n)
    assert images.shape == (n, 1, 16, 16) and images.dtype == torch.float32
    assert images.device.type == "cpu" and not images.requires_grad
    assert 0 <= images.min() < images.max() <= 1


def test_colour_images_have_their_channels() -> None:
    assert small_model(image_channels=3).draw(2).shape == (2, 3, 16, 16)


def test_image_i_depends_on_its_seed_and_not_on_their_number() -> None:
    model = small_model()
    images = model.draw(5, seed=7)
    assert len({float(image.mean()) for image in images}) == 5
    close(model.draw(2, seed=7), images[:2])
    close(model.draw(1, seed=10)[0], images[3])
    close(torch.cat(list(model.generate([11, 7]))), images[[4, 0]])
    assert torch.equal(model.draw(5, seed=7), images)
    assert torch.equal(model.draw(3), model.draw(3, seed=0))


def test_more_images_than_a_batch_holds() -> None:
    model = small_model()
    images = model.draw(70, sampling=Sampling(steps=1))
    assert images.shape == (70, 1, 16, 16)
    close(images[64:], model.draw(6, seed=64, sampling=Sampling(steps=1)))


def test_the_sampling_is_the_models_own_or_the_given_one() -> None:
    model = small_model()
    own = model.draw(2)
    assert torch.equal(model.draw(2, sampling=QUICK), own)
    assert not torch.equal(model.draw(2, sampling=Sampling(steps=3)), own)


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_are_refused(n: int) -> None:
    with pytest.raises(SamplingError, match=f"{n} images: draw one or more"):
        small_model().draw(n)
    with pytest.raises(SamplingError, match="batch"):
        next(small_model().generate([0], batch=n))


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["axion", 2, np.int64(2)])
def test_one_class_for_all_by_name_or_number(label: str | int) -> None:
    model = small_model(classes=3)
    images = model.draw(3, label=label)
    close(images, model.draw(3, label=["axion"] * 3))
    close(images, model.draw(3, label=np.full(3, 2)))
    assert not torch.equal(images, model.draw(3, label="cdm"))
    assert not torch.equal(images, model.draw(3))  # without a label: the null class


def test_one_class_each() -> None:
    model = small_model(classes=3)
    images = model.draw(3, label=["axion", "no_sub", 1])
    for row, name in enumerate(("axion", "no_sub", "cdm")):
        close(images[row], model.draw(3, label=name)[row])


def test_one_row_of_lens_parameters_for_all_or_one_each() -> None:
    model = small_model(conditions=7, spins=parameters.SPINS)
    same = model.draw(2, label=LENS)
    close(same, model.draw(2, label=np.array(LENS)))
    close(same, model.draw(2, label=[LENS, LENS]))
    both = model.draw(2, label=np.array([LENS, OTHER]))
    close(both[0], same[0])
    close(both[1], model.draw(2, label=OTHER)[1])
    assert not torch.equal(both[1], same[1])


def test_guidance_is_that_of_generate() -> None:
    model = small_model(classes=3)
    label = model.labels(["axion", "cdm"])
    guided = model.draw(2, label=["axion", "cdm"], guidance=3.0)
    assert torch.equal(guided, torch.cat(list(model.generate(range(2), label=label, guidance=3.0))))
    assert not torch.equal(guided, model.draw(2, label=["axion", "cdm"]))


@pytest.mark.parametrize("label", ["axion", 0, ["axion", "cdm"], LENS])
def test_an_unconditional_model_takes_no_label(label: object) -> None:
    with pytest.raises(SamplingError, match=r"small is unconditional.* Take a conditional model"):
        small_model().draw(2, label=label)


@pytest.mark.parametrize("label", ["sphere", 3, -1, ["axion", "sphere"]])
def test_classes_that_the_model_does_not_know(label: object) -> None:
    with pytest.raises(SamplingError, match=r"small knows the classes .*'no_sub'.* there is no"):
        small_model(classes=3).draw(2, label=label)


@pytest.mark.parametrize("label", ["axion", ["axion", "cdm"], 1.2, LENS[:6], np.full(7, np.nan)])
def test_what_are_no_lens_parameters(label: object) -> None:
    with pytest.raises(SamplingError, match="small takes 7 finite numbers an image"):
        small_model(conditions=7).draw(2, label=label)


def test_as_many_labels_as_images() -> None:
    with pytest.raises(SamplingError, match="2 labels for 3 seeds"):
        small_model(classes=3).draw(3, label=["axion", "cdm"])
    with pytest.raises(SamplingError, match="2 labels for 3 seeds"):
        small_model(conditions=7).draw(3, label=[LENS, OTHER])


# ---- what is shipped -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shipped_model_and_its_telescope() -> None:
    model = ld.load("classes64", device="cpu")
    recorded = model.draw(2, label="axion", sampling=QUICK)
    light = model.draw(2, label="axion", sampling=QUICK, observed=False)
    assert recorded.shape == light.shape == (2, 1, 64, 64)
    assert 0 <= recorded.min() and recorded.max() <= 1
    assert not torch.equal(recorded, light)
    expected = model.telescope.observe(light, [0, 1])
    torch.testing.assert_close(recorded, expected, rtol=0, atol=1e-5)
