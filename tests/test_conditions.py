"""Lens parameters as conditions: the truth, its symmetries, and the lens they describe."""
import numpy as np
import pytest
import torch
from conftest import perturb

from lensdiff.data.images import Stretch, symmetry
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import CheckpointError, DataError, SamplingError
from lensdiff.lensing import parameters, population, simulate
from lensdiff.lensing.survey import diverse
from lensdiff.model import Sampling, load, save
from lensdiff.networks.embeddings import Planes
from lensdiff.networks.unet import UNet
from lensdiff.training.transfer import copy_weights


@pytest.fixture(scope="module")
def truth():
    return population.sample_params(12, "no_sub", seed=3, survey=diverse(32))


def test_ellipticity_is_that_of_an_ellipse():
    e1, e2 = parameters.ellipticity(0.5, 0.0)
    assert (e1, e2) == (pytest.approx(1 / 3), 0)
    assert parameters.ellipticity(0.5, np.pi / 4)[1] == pytest.approx(1 / 3)
    assert parameters.ellipticity(0.5, np.pi)[0] == pytest.approx(1 / 3)  # an ellipse turned by half a turn is the same
    assert np.allclose(parameters.ellipticity(1.0, 1.234), 0)


def test_the_values_describe_the_lens_and_nothing_is_lost(truth):
    again = parameters.lens(parameters.of(truth), truth)
    for name in ("einstein_radius_arcsec", "lens_axis_ratio", "source_x_arcsec", "shear_1", "shear_2", "exposure_s"):
        np.testing.assert_allclose(again[name], truth[name], rtol=1e-5, atol=1e-6)
    light = [simulate.render(rows, diverse(32)) for rows in (again, truth)]
    torch.testing.assert_close(*light, rtol=1e-3, atol=2e-2)
    with pytest.raises(DataError, match=r"ellipticity of 1\.2"):
        parameters.lens(np.array([[1, 1.2, 0, 0, 0, 0, 0]]), truth[:1])


@pytest.mark.parametrize("k", range(8))
def test_a_turned_lens_gives_the_turned_image(truth, k):
    survey, which = diverse(32), np.full(len(truth), k)
    turned = parameters.lens(parameters.turned(parameters.of(truth), which), truth)
    angle = truth["source_angle_rad"] - np.pi / 2 * (k % 4)
    turned["source_angle_rad"] = np.pi - angle if k >= 4 else angle
    expected = symmetry(simulate.render(truth, survey)[:, None], which)[:, 0]
    torch.testing.assert_close(simulate.render(turned, survey), expected, rtol=1e-3, atol=2e-2)


def test_values_reach_the_network_at_order_one_and_nan_stays():
    values = parameters.of(population.sample_params(3000, "mixed", 0, diverse(64)))
    seen = parameters.encode(values)
    assert np.abs(seen.mean(0)).max() < 0.1
    assert (seen.std(0) > 0.6).all() and (seen.std(0) < 1.4).all()
    assert np.isnan(parameters.encode(np.full((1, 7), np.nan))).all()


def test_what_no_lens_of_the_survey_has_is_said():
    inside = parameters.of(population.sample_params(300, "mixed", 0, diverse(64)))
    assert parameters.outside(inside, diverse(64)) == []
    said = parameters.outside(np.array([[2.5, 0.4, 0, 2, 0, 0.2, 0]]), diverse(64))
    assert [words.split()[1] for words in said] == ["Einstein", "axis", "source", "shear"]


def unet(**arguments):
    torch.manual_seed(0)
    return Denoiser(perturb(UNet((16, 32), blocks=1, **arguments))).eval()


def test_a_row_of_nan_and_no_label_are_the_null_condition():
    net, x, noise = unet(conditions=7).net, torch.randn(3, 1, 16, 16), torch.zeros(3)
    values = torch.randn(3, 7)
    asked, none = net(x, noise, values), net(x, noise)
    assert (asked - none).abs().max() > 1e-3
    values[1] = torch.nan
    torch.testing.assert_close(net(x, noise, values)[1], none[1])
    torch.testing.assert_close(net(x, noise, values)[0], asked[0])
    for wrong in (torch.zeros(3, 6), torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ValueError, match="conditioned on 7 numbers"):
            net(x, noise, wrong)
    with pytest.raises(ValueError, match="not on both"):
        UNet((16,), classes=3, conditions=7)


@pytest.mark.parametrize("k", range(8))
@pytest.mark.parametrize("side", [(10, 10), (9, 9)])
def test_the_planes_of_turned_numbers_are_the_turned_planes(truth, k, side):
    planes, which = Planes(parameters.SPINS), np.full(len(truth), k)
    values = parameters.of(truth)
    drawn = planes(torch.from_numpy(parameters.encode(values)), *side)
    turned = planes(torch.from_numpy(parameters.encode(parameters.turned(values, which))), *side)
    mask = torch.ones(side)
    mask[side[0] // 2, side[1] // 2] = side[0] % 2 == 0  # the centre of an odd image has no azimuth
    torch.testing.assert_close(turned * mask, symmetry(drawn, which) * mask, rtol=1e-4, atol=1e-4)


def test_planes_say_where_the_source_is():
    values = torch.tensor([[0.3, 0, 0, 1.0, 0.0, 0, 0], [torch.nan] * 7])
    distance, radius, ellipse, source, shear = Planes(parameters.SPINS)(values, 8, 12)[0]
    assert torch.allclose(radius, torch.tensor(0.3)) and not ellipse.any() and not shear.any()
    assert source[4, -1] > 0.95 and source[4, 0] < -0.95  # to the right, where x is
    assert distance[4, -1] == pytest.approx(np.hypot(5.5 / 6, 0.5 / 4)) and distance[3:5, 5:7].max() == distance.min()
    assert not Planes(parameters.SPINS)(values, 8, 12)[1, 1:].any()
    with pytest.raises(ValueError, match="those of 7 numbers, but conditions=6"):
        UNet((16,), conditions=6, spins=parameters.SPINS)


CLASSES, NUMBERS, DRAWN = {"classes": 3}, {"conditions": 7}, {"conditions": 7, "spins": parameters.SPINS}


STARTS = [({}, CLASSES), ({}, NUMBERS), (CLASSES, NUMBERS), (NUMBERS, {}), (CLASSES, DRAWN), (NUMBERS, DRAWN)]


@pytest.mark.parametrize(("old", "new"), STARTS)
def test_new_labels_start_as_nothing(tmp_path, old, new):
    folder = save(tmp_path / "start", unet(**old), {"channels": (16, 32), "blocks": 1, **old}, Stretch(0, 1), 16)
    start = load(folder, precision="fp32")
    torch.manual_seed(1)
    denoiser, x = Denoiser(UNet((16, 32), blocks=1, **new)).eval(), torch.randn(2, 1, 16, 16)
    copy_weights(start, denoiser)
    label = torch.tensor([0, 2]) if "classes" in new else torch.randn(2, 7) if new else None
    torch.testing.assert_close(denoiser(x, 0.7, label), start.denoiser(x, 0.7), rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match="can't go on"):
        copy_weights(start, Denoiser(UNet((16, 48), blocks=1, **new)))


# ---- asking a model ---------------------------------------------------------------------------------------------------------


def asked_model(tmp_path, **arguments):
    denoiser = unet(**arguments)
    network = {"channels": (16, 32), "blocks": 1, **arguments}
    return load(save(tmp_path / "model", denoiser, network, Stretch(0, 1), 16, classes=list(population.KINDS)), precision="fp32")


QUICK = Sampling(steps=2)


def test_classes_are_asked_for_by_name_or_number(tmp_path):
    model = asked_model(tmp_path, **CLASSES)
    label = model.labels(["axion", 0, "cdm"])
    assert label.tolist() == [2, 0, 1]
    for wrong in (["sphere"], [3], [-1]):
        with pytest.raises(SamplingError, match=r"model knows the classes .*'no_sub'.* there is no"):
            model.labels(wrong)
    drawn, other = (torch.cat(list(model.generate([1, 2, 3], QUICK, one))) for one in (label, model.labels([0, 0, 1])))
    assert (drawn[2] == other[2]).all() and (drawn[0] != other[0]).any()  # the same class and seed, then another class
    with pytest.raises(SamplingError, match="3 labels for 2 seeds"):
        next(model.generate([1, 2], QUICK, label))


def test_lens_parameters_are_asked_for_in_their_units(tmp_path, truth):
    model = asked_model(tmp_path, **NUMBERS)
    label = model.labels(parameters.of(truth))
    np.testing.assert_allclose(label.numpy(), parameters.encode(parameters.of(truth)))
    for wrong in (np.zeros((2, 6)), np.zeros(7), np.full((1, 7), np.nan)):
        with pytest.raises(SamplingError, match="takes 7 finite numbers"):
            model.labels(wrong)
    with pytest.raises(SamplingError, match="no classes and no conditions"):
        asked_model(tmp_path / "plain").labels([0])


def test_guidance_is_a_straight_line_through_null_and_label(tmp_path):
    model = asked_model(tmp_path, **CLASSES)
    x, label = torch.randn(2, 1, 16, 16), model.labels([1, 2])
    null, told = model.denoiser(x, 0.5), model.denoiser(x, 0.5, label)
    plain = Sampling(clamp=False)
    for scale in (0.0, 1.0, 2.5):
        torch.testing.assert_close(model.guess(plain, scale)(x, 0.5, label), null + scale * (told - null))
    asked, twice = (torch.cat(list(model.generate([1, 2], QUICK, label, guidance=scale))) for scale in (1.0, 3.0))
    assert (asked != twice).any()
