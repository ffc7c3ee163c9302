"""From noise to finished samples: seeds, batches, labels, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import SEEDS, SHAPE, exact
from torch import Tensor
from toys import small_unet

from lensdiff.diffusion.process import Denoiser
from lensdiff.diffusion.sampling import draw, log_levels, noise
from lensdiff.errors import SamplingError

# ---- seeds ---------------------------------------------------------------------------------------


def test_noise_depends_on_seed_and_stream_alone() -> None:
    shape = (2, 32, 32)
    all_of_them = noise(range(6), shape)
    for seed in range(6):
        torch.testing.assert_close(noise([seed], shape)[0], all_of_them[seed], rtol=0, atol=0)
    other_stream = noise(range(6), shape, stream=1)
    large_seed = noise([65_537], shape)
    others = torch.cat([all_of_them, other_stream, large_seed]).flatten(1)
    assert torch.corrcoef(others).fill_diagonal_(0).abs().max() < 5 / math.sqrt(2048)
    assert float(others.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("sampler", "options"), [("ddim", {"eta": 1.0}), ("ddim", {}), ("heun", {}), ("dpmpp_2m", {})]
)
def test_a_sample_depends_on_its_seed_alone(sampler: str, options: dict) -> None:
    denoiser = Denoiser(small_unet())
    shape = (1, 16, 16)
    sigmas = log_levels(5, 10.0, 0.05)

    def samples(seeds: list[int], batch: int) -> Tensor:
        batches = draw(denoiser, shape, seeds, sigmas, sampler, batch=batch, **options)
        return torch.cat(list(batches))

    together = samples([0, 1, 2, 3, 4], batch=5)
    assert (together[0] - together[1]).abs().max() > 0.1
    torch.testing.assert_close(samples([0, 1, 2, 3, 4], batch=2), together, rtol=0, atol=1e-5)
    torch.testing.assert_close(samples([17, 3, 99], batch=8)[1], together[3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**60])
def test_a_seed_that_is_out_of_range_is_named(seed: int) -> None:
    assert noise([0, 2**32 - 1], (1, 4, 4), stream=1_000).isfinite().all()
    with pytest.raises(SamplingError, match=rf"from 0 to 2\*\*32 - 1, not {seed}\."):
        noise([0, seed], (1, 4, 4))


# ---- batches -------------------------------------------------------------------------------------


def test_draw_yields_batches_with_their_labels() -> None:
    def labelled(x: Tensor, sigma: float, label: Tensor) -> Tensor:
        return label.view(-1, 1, 1, 1).expand_as(x).float()

    label = torch.arange(7)
    batches = list(draw(labelled, (1, 2, 2), range(7), log_levels(3), label=label, batch=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == label.tolist()
    assert list(draw(labelled, (1, 2, 2), [], log_levels(3))) == []
    with pytest.raises(SamplingError, match="batch must be 1 or more, got -1"):
        list(draw(labelled, (1, 2, 2), range(7), log_levels(3), label=label, batch=-1))


def test_draw_builds_no_graph_and_leaves_gradients_on() -> None:
    for x in draw(Denoiser(small_unet()), (1, 8, 8), [0, 1], log_levels(2), batch=1):
        assert not x.requires_grad
        assert torch.is_grad_enabled()


# ---- errors --------------------------------------------------------------------------------------


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(SamplingError, match=r"'dpmpp_2m'.*'euler'"):
        next(draw(exact, SHAPE, SEEDS, log_levels(2), "euler"))


def test_a_denoiser_that_breaks_down_is_an_error() -> None:
    def broken(x: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        return torch.where(x == x.flatten()[0], math.nan, x)

    with pytest.raises(SamplingError, match=r"dpmpp_2m gave NaN.*clamped"):
        next(draw(broken, SHAPE, SEEDS, log_levels(2)))


# ---- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("sampler", "options"), [("ddim", {"eta": 1.0}), ("heun", {}), ("dpmpp_2m", {})]
)
def test_sampling_on_cuda_is_that_on_the_cpu(
    sampler: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    sigmas = log_levels(6, 10.0, 0.05)
    label = torch.tensor([0, 1, 2])
    found = {}
    for device in ("cpu", "cuda"):
        denoiser = Denoiser(small_unet(classes=3)).to(device)
        (x,) = draw(
            denoiser, (1, 16, 16), SEEDS, sigmas, sampler, label=label, device=device, **options
        )
        assert x.device.type == device
        found[device] = x.cpu()
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=0, atol=1e-3)
