"""The denoiser: scalings and loss, against the papers' formulas and against diffusers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from gaussian import normal
from torch import Tensor, nn

from lensdiff.diffusion.process import Denoiser, edm_weight, min_snr, scaling, schedule

PREDICTIONS = ("eps", "x0", "v", "flow", "edm")
SIGMAS = (0.01, 0.3, 1.0, 5.0, 40.0)


class Fixed(nn.Module):
    """A network that answers with what it was given, and remembers its last inputs."""

    def __init__(self, answer: Tensor | float = 0.0):
        super().__init__()
        self.answer = answer
        self.received = None

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        self.received = x, noise, label
        return torch.as_tensor(self.answer, dtype=torch.float32).expand_as(x)


# ---- scalings ------------------------------------------------------------------------------------


TABLE = {  # (skip, out, inp) of DESIGN.md, d = 0.5
    "eps": lambda s: (1.0, -s, 1 / math.sqrt(1 + s * s)),
    "x0": lambda s: (0.0, 1.0, 1 / math.sqrt(1 + s * s)),
    "v": lambda s: (1 / (1 + s * s), -s / math.sqrt(1 + s * s), 1 / math.sqrt(1 + s * s)),
    "flow": lambda s: (1 / (1 + s), -s / (1 + s), 1 / (1 + s)),
    "edm": lambda s: (
        0.25 / (s * s + 0.25),
        0.5 * s / math.sqrt(s * s + 0.25),
        1 / math.sqrt(s * s + 0.25),
    ),
}


def textbook(name: str, x0: Tensor, eps: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """(what the network sees, what it should answer), in each method's own variables."""
    alpha = 1 / math.sqrt(1 + s * s)
    noise = s / math.sqrt(1 + s * s)
    t = s / (1 + s)
    ddpm = alpha * x0 + noise * eps
    if name == "flow":
        return (1 - t) * x0 + t * eps, eps - x0
    if name == "edm":
        skip, out, inp = TABLE["edm"](s)
        return inp * (x0 + s * eps), (x0 - skip * (x0 + s * eps)) / out
    return ddpm, {"eps": eps, "x0": x0, "v": alpha * eps - noise * x0}[name]


@pytest.mark.parametrize("s", SIGMAS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_coefficients_are_those_of_the_design(name: str, s: float) -> None:
    scale = scaling(name)
    sigma = torch.tensor(s, dtype=torch.float64)
    ours = [float(f(sigma)) for f in (scale.skip, scale.out, scale.inp)]
    assert ours == pytest.approx(TABLE[name](s), rel=1e-12)


@pytest.mark.parametrize("s", SIGMAS)
@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_network_gives_x0_and_no_loss(name: str, s: float) -> None:
    x0 = 0.5 * normal(3, 1, 8, 8)
    eps = normal(3, 1, 8, 8, seed=1)
    seen, answer = textbook(name, x0, eps, s)
    denoiser = Denoiser(net := Fixed(answer), name)
    tolerance = 1e-6 * (1 + s)  # float32 rounding of x = x0 + s eps
    torch.testing.assert_close(denoiser(x0 + s * eps, s), x0, rtol=0, atol=tolerance)
    torch.testing.assert_close(net.received[0], seen, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.received[1], torch.full((3,), math.log(s) / 4))
    assert denoiser.loss(x0, torch.full((3,), s), eps).max() < 1e-9
    wrong = Denoiser(Fixed(answer + 0.1), name)
    loss = wrong.loss(x0, torch.full((3,), s), eps)
    torch.testing.assert_close(loss, torch.full((3,), 0.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize("t", [0, 10, 500, 999])
@pytest.mark.parametrize(
    ("name", "theirs"), [("eps", "epsilon"), ("v", "v_prediction"), ("x0", "sample")]
)
def test_predictions_are_those_of_diffusers(name: str, theirs: str, t: int) -> None:
    scheduler = DDPMScheduler(prediction_type=theirs, clip_sample=False)
    sigma = float(schedule("linear")[t])
    answer = normal(2, 1, 8, 8)
    ddpm = normal(2, 1, 8, 8, seed=1)
    expected = scheduler.step(answer, t, ddpm, generator=torch.Generator()).pred_original_sample
    ours = Denoiser(Fixed(answer), name)(ddpm * math.sqrt(1 + sigma**2), sigma)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_v_is_the_velocity_of_diffusers() -> None:
    x0 = 0.5 * normal(2, 1, 8, 8)
    eps = normal(2, 1, 8, 8, seed=1)
    t = 300
    velocity = DDPMScheduler().get_velocity(x0, eps, torch.tensor([t, t]))
    sigma = schedule("linear")[[t, t]].float()
    assert Denoiser(Fixed(velocity), "v").loss(x0, sigma, eps).max() < 1e-10


@pytest.mark.parametrize("s", SIGMAS)
def test_edm_input_and_target_have_unit_variance(s: float) -> None:
    d = 0.8
    n = 200_000
    scale = scaling("edm", d)
    sigma = torch.tensor(s)
    x0 = d * normal(n)
    x = x0 + s * normal(n, seed=1)
    target = (x0 - scale.skip(sigma) * x) / scale.out(sigma)
    for values in (scale.inp(sigma) * x, target):
        # five standard errors
        assert float(values.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
        assert abs(float(values.mean())) < 5 / math.sqrt(n)


def test_data_std_reaches_the_denoiser() -> None:
    x = normal(1, 1, 4, 4)
    torch.testing.assert_close(Denoiser(Fixed(0.0), "edm", data_std=2.0)(x, 1.0), 0.8 * x)


# ---- loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "paper"),
    [
        ("eps", lambda snr, g: np.minimum(snr, g) / snr),
        ("v", lambda snr, g: np.minimum(snr, g) / (snr + 1)),
        ("x0", lambda snr, g: np.minimum(snr, g)),
    ],
)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_that_of_hang(name: str, paper, gamma: float) -> None:
    sigma = torch.logspace(-2, 2, 41, dtype=torch.float64)
    ours = min_snr(sigma, scaling(name).out(sigma), gamma)
    np.testing.assert_allclose(ours.numpy(), paper(1 / sigma.numpy() ** 2, gamma), rtol=1e-12)


def test_losses_by_hand() -> None:
    x0 = 0.5 * normal(4, 3, 5, 7)
    eps = normal(4, 3, 5, 7, seed=1)
    sigma = torch.tensor([0.05, 0.4, 1.0, 20.0])
    denoiser = Denoiser(Fixed(0.25), "eps")
    l2 = ((eps - 0.25) ** 2).mean((1, 2, 3))
    l1 = (eps - 0.25).abs().mean((1, 2, 3))
    weight = torch.tensor([5 * 0.05**2, 5 * 0.4**2, 1.0, 1.0])  # min(SNR, 5) / SNR
    torch.testing.assert_close(denoiser.loss(x0, sigma, eps), l2, rtol=1e-4, atol=0)
    torch.testing.assert_close(denoiser.loss(x0, sigma, eps, criterion="l1"), l1, rtol=1e-4, atol=0)
    weighted = denoiser.loss(x0, sigma, eps, weight="min_snr")
    torch.testing.assert_close(weighted, l2 * weight, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_edm_weight_is_karras_down_to_five_hundredths(name: str) -> None:
    sigma = torch.logspace(-2, 2, 41, dtype=torch.float64)
    # weight of |D - x0|^2
    ours = edm_weight(sigma, scaling(name).out(sigma)) / scaling(name).out(sigma) ** 2
    karras = (sigma**2 + 0.25) / (sigma * 0.5) ** 2  # their lambda(sigma)
    high = sigma > 0.05
    torch.testing.assert_close(ours[high], karras[high])
    torch.testing.assert_close(ours[~high], torch.full_like(ours[~high], 404.0))


@pytest.mark.parametrize("data_std", [0.5, 0.25, 1.0])
def test_the_edm_weight_is_that_of_the_denoisers_own_data(data_std: float) -> None:
    """With EDM's prediction it makes the loss of each level one, above the floor of sigma."""
    denoiser = Denoiser(Fixed(0.0), "edm", data_std)
    sigma = torch.tensor([0.1, 0.5, 2.0, 40.0])
    x0 = normal(4, 1, 8, 8)
    eps = normal(4, 1, 8, 8)
    plain = denoiser.loss(x0, sigma, eps)
    torch.testing.assert_close(denoiser.loss(x0, sigma, eps, weight="edm"), plain)


# ---- what the network is given -------------------------------------------------------------------


def test_labels_reach_the_network() -> None:
    x = normal(2, 1, 4, 4)
    label = torch.tensor([0, 2])
    denoiser = Denoiser(net := Fixed(0.0))
    denoiser(x, 1.0, label)
    assert net.received[2] is label
    denoiser.loss(x, torch.ones(2), x, label)
    assert net.received[2] is label
    denoiser(x, 1.0)
    assert net.received[2] is None


def test_one_sigma_for_all_or_one_for_each() -> None:
    x = normal(3, 1, 4, 4)
    denoiser = Denoiser(Fixed(0.3), "v")
    each = denoiser(x, torch.tensor([0.1, 1.0, 10.0]))
    for row, s in enumerate((0.1, 1.0, 10.0)):
        torch.testing.assert_close(each[row], denoiser(x, s)[row])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_output_keeps_the_precision_of_x(precision: str) -> None:
    x = normal(2, 1, 4, 4)
    denoiser = Denoiser(Fixed(0.5), precision=precision)
    assert denoiser(x, 1.0).dtype == torch.float32
    wide = denoiser(x.double(), 1.0)
    assert wide.dtype == torch.float64
    # in float64: nothing of x is rounded on the way
    expected = 0.2 * x.double() + 0.5 / math.sqrt(1.25) * 0.5
    torch.testing.assert_close(wide, expected, rtol=1e-12, atol=1e-12)


def test_wrong_names_are_named() -> None:
    x = normal(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"'edm'.*'score'"):
        scaling("score")
    with pytest.raises(ValueError, match=r"'bf16'.*'int8'"):
        Denoiser(Fixed(), precision="int8")
    with pytest.raises(ValueError, match="'huber'"):
        Denoiser(Fixed()).loss(x, torch.ones(1), x, criterion="huber")
    with pytest.raises(ValueError, match="'p2'"):
        Denoiser(Fixed()).loss(x, torch.ones(1), x, weight="p2")
