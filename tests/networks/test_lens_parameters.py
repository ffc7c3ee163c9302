"""Lens parameters in a network: the null condition, and planes that turn with the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import perturb

from lensdiff.data.images import symmetry
from lensdiff.errors import ParameterError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import sample_params
from lensdiff.lensing.survey import diverse
from lensdiff.networks.embeddings import Planes
from lensdiff.networks.unet import UNet


def test_a_row_of_nan_and_no_label_are_the_null_condition():
    torch.manual_seed(0)
    net = perturb(UNet((16, 32), blocks=1, conditions=7)).eval()
    x = torch.randn(3, 1, 16, 16)
    noise = torch.zeros(3)
    values = torch.randn(3, 7)
    conditional = net(x, noise, values)
    null = net(x, noise)
    assert (conditional - null).abs().max() > 1e-3
    values[1] = torch.nan
    torch.testing.assert_close(net(x, noise, values)[1], null[1])
    torch.testing.assert_close(net(x, noise, values)[0], conditional[0])
    for wrong in (torch.zeros(3, 6), torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ValueError, match="conditioned on 7 numbers"):
            net(x, noise, wrong)
    with pytest.raises(ParameterError, match="not on both"):
        UNet((16,), classes=3, conditions=7)


@pytest.mark.parametrize("k", range(8))
@pytest.mark.parametrize("side", [(10, 10), (9, 9)])
def test_the_planes_of_turned_numbers_are_the_turned_planes(k, side):
    planes = Planes(parameters.SPINS)
    values = parameters.of(sample_params(12, "no_sub", seed=3, survey=diverse(32)))
    which = np.full(len(values), k)
    plain = planes(torch.from_numpy(parameters.encode(values)), *side)
    turned = planes(torch.from_numpy(parameters.encode(parameters.turned(values, which))), *side)
    mask = torch.ones(side)
    mask[side[0] // 2, side[1] // 2] = side[0] % 2 == 0  # the centre of an odd image has no azimuth
    torch.testing.assert_close(turned * mask, symmetry(plain, which) * mask, rtol=1e-4, atol=1e-4)


def test_planes_show_where_the_source_is():
    values = torch.tensor([[0.3, 0, 0, 1.0, 0.0, 0, 0], [torch.nan] * 7])
    distance, radius, ellipse, source, shear = Planes(parameters.SPINS)(values, 8, 12)[0]
    assert torch.allclose(radius, torch.tensor(0.3)) and not ellipse.any() and not shear.any()
    assert source[4, -1] > 0.95 and source[4, 0] < -0.95  # to the right, where x is
    assert distance[4, -1] == pytest.approx(np.hypot(5.5 / 6, 0.5 / 4))
    assert distance[3:5, 5:7].max() == distance.min()
    assert not Planes(parameters.SPINS)(values, 8, 12)[1, 1:].any()
    with pytest.raises(ParameterError, match="those of 7 numbers, but conditions=6"):
        UNet((16,), conditions=6, spins=parameters.SPINS)
    net = UNet((16,), conditions=7, spins=parameters.SPINS)
    for label in (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)):
        with pytest.raises(ParameterError):
            net(torch.zeros(2, 1, 8, 8), torch.zeros(2), label)
