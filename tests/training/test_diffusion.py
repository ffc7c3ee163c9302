"""Training a denoiser: what its batches are made of, which labels it takes, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from toys_training import NO_NOISE, Spy, config, run, tiny, weights

from lensdiff.data.images import ImageSet, Stretch, symmetry
from lensdiff.diffusion.process import Denoiser, LogNormal, Uniform
from lensdiff.errors import DataError, LensdiffError, ParameterError, TrainingError
from lensdiff.lensing import parameters
from lensdiff.training.diffusion import Batches, TrainConfig, held_out_loss, train

# ---- images and their symmetries -----------------------------------------------------------------


def seen_images(images: ImageSet, settings: TrainConfig) -> tuple[np.ndarray, list[list[int]]]:
    """The training rows, and for each image the network saw the (row, element) it equals."""
    rows = images.split()[0]
    stretch = Stretch.of(images.pixels)
    spy = Spy()
    run(Denoiser(spy, "x0"), images, replace(settings, sigmas=NO_NOISE), stretch=stretch)
    x = stretch(torch.from_numpy(images.pixels[rows]))
    turned = [symmetry(x, torch.full((len(x),), k)) for k in range(8)]
    known = torch.stack(turned, 1).flatten(2).double()
    found = []
    for image in torch.cat(spy.x).flatten(1).double():
        distance = (known - image).abs().amax(-1)
        assert distance.min() < 1e-5  # the image itself, in one of its eight positions
        found.append(divmod(int(distance.argmin()), 8))
    return rows, [list(pair) for pair in found]


@pytest.mark.parametrize(
    ("symmetries", "augment", "elements"),
    [(8, True, set(range(8))), (2, True, {0, 4}), (1, True, {0}), (8, False, {0})],
)
def test_augmentation_is_by_the_data_sets_own_symmetries(
    lenses16: ImageSet, symmetries: int, augment: bool, elements: set[int]
) -> None:
    images = replace(lenses16, symmetries=symmetries)
    # two epochs of 58 images
    rows, found = seen_images(images, config(steps=29, batch=4, augment=augment))
    assert {element for _, element in found} == elements
    for epoch in (found[: len(rows)], found[len(rows) :]):
        # each image once an epoch, and no held-out one
        assert sorted(row for row, _ in epoch) == list(range(len(rows)))
    assert [row for row, _ in found[:58]] != [row for row, _ in found[58:]]


# ---- noise and seeds -----------------------------------------------------------------------------


def test_noise_levels_are_stratified_and_follow_their_distribution(lenses16: ImageSet) -> None:
    spy = Spy()
    run(Denoiser(spy), lenses16, config(steps=20, batch=16, sigmas=LogNormal(-0.5, 1.1)))
    for noise in spy.noise:
        u = torch.special.ndtr((4 * noise.double() + 0.5) / 1.1).sort().values * 16
        # one level in each sixteenth
        by_floor = (u.floor() == torch.arange(16)).all()
        assert by_floor or ((u - u[0]).round() == torch.arange(16)).all()
    spy = Spy()
    run(Denoiser(spy), lenses16, config(steps=5, batch=16, sigmas=Uniform("cosine", 10)))
    assert len(torch.cat(spy.noise).unique()) == 10


def test_a_batch_is_a_function_of_seed_and_update(lenses16: ImageSet) -> None:
    def batches(seed: int) -> Batches:
        settings = config(seed=seed, batch=32)
        rows = lenses16.split()[0]
        stretch = Stretch.of(lenses16.pixels)
        return Batches(lenses16, rows, stretch, settings, torch.device("cpu"), Spy(classes=3))

    forwards = batches(0)
    other = batches(1)
    in_order = [forwards(k) for k in range(4)]
    for k in (3, 1, 2, 0):  # in any order, by one that has made no other
        for ours, theirs in zip(batches(0)(k), in_order[k], strict=True):
            assert torch.equal(ours, theirs)
    pairs = list(pairwise(in_order)) + [(in_order[k], other(k)) for k in range(2)]
    for first, second in pairs:
        for ours, theirs in zip(first, second, strict=True):
            assert not torch.equal(ours, theirs)
        eps = torch.stack([first[2].flatten(), second[2].flatten()])
        assert float(torch.corrcoef(eps)[0, 1].abs()) < 5 / math.sqrt(eps.shape[1])
        assert float(eps.std()) == pytest.approx(1, abs=0.05)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(lenses16: ImageSet) -> None:
    torch.manual_seed(5)
    first = run(tiny(), lenses16, config())
    torch.rand(7)  # the global generator plays no part
    again = run(tiny(), lenses16, config())
    other = run(tiny(), lenses16, config(seed=1))
    assert [s.loss for s in first] == [s.loss for s in again]
    assert torch.equal(weights(first[-1].model), weights(again[-1].model))
    assert all(a.loss != b.loss for a, b in zip(first, other, strict=True))


# ---- labels --------------------------------------------------------------------------------------


def test_label_dropout(lenses16: ImageSet) -> None:
    spy = Spy(classes=3)
    run(Denoiser(spy), lenses16, config(steps=250, batch=16, label_dropout=0.2))
    labels = torch.cat(spy.labels)
    assert len(labels) == 4000
    assert set(labels.tolist()) == {0, 1, 2, 3}
    share = float((labels == 3).float().mean())
    assert share == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / 4000))


def test_labels_are_those_of_the_images(lenses16: ImageSet) -> None:
    stretch = Stretch.of(lenses16.pixels)
    spy = Spy(classes=3)
    settings = config(label_dropout=0.0, sigmas=NO_NOISE)
    run(Denoiser(spy, "x0"), replace(lenses16, symmetries=1), settings, stretch=stretch)
    known = stretch(torch.from_numpy(np.array(lenses16.pixels))).flatten(1)
    for image, label in zip(torch.cat(spy.x), torch.cat(spy.labels), strict=True):
        nearest = int((known - image.flatten()).abs().amax(1).argmin())
        assert lenses16.labels[nearest] == label


def test_a_conditional_network_needs_labels_it_knows(lenses16: ImageSet) -> None:
    below = replace(lenses16, labels=lenses16.labels - 1)
    fewer = replace(lenses16, labels=lenses16.labels[:60])
    for classes, images, message in (
        (3, replace(lenses16, labels=None), r"no labels.*3 classes"),
        (2, lenses16, r"labels up to 2.*only 2 classes"),
        (3, below, r"labels down to -1.*only 3 classes"),
        (3, fewer, "60 labels for 64 images"),
    ):
        with pytest.raises(TrainingError, match=message):
            next(train(Denoiser(Spy(classes=classes)), images, config()))


def test_a_network_with_lens_parameters_needs_a_table_that_matches(lenses16: ImageSet) -> None:
    for conditions, images, message in (
        (7, replace(lenses16, truth=None), r"no labels.*lens parameters"),
        (7, replace(lenses16, truth=lenses16.truth[:60]), "60 labels for 64 images"),
        (3, lenses16, "conditioned on 3 numbers; lenses give 7"),
    ):
        with pytest.raises(TrainingError, match=message):
            next(train(Denoiser(Spy(conditions=conditions)), images, config()))


def test_lens_parameters_turn_with_their_image_and_are_dropped(lenses16: ImageSet) -> None:
    stretch = Stretch.of(lenses16.pixels)
    settings = config(steps=60, batch=16, label_dropout=0.2, sigmas=NO_NOISE)
    spy = Spy(conditions=7)
    run(Denoiser(spy, "x0"), lenses16, settings, stretch=stretch)
    images = torch.cat(spy.x)
    labels = torch.cat(spy.labels)
    dropped = labels.isnan().any(1)
    assert torch.equal(dropped, labels.isnan().all(1))
    share = float(dropped.float().mean())
    assert share == pytest.approx(0.2, abs=5 * math.sqrt(0.16 / len(dropped)))
    known = stretch(torch.from_numpy(lenses16.pixels[:]))
    turned = torch.cat([symmetry(known, np.full(len(known), k)) for k in range(8)]).flatten(1)
    nearest = torch.cdist(images[~dropped].flatten(1), turned).argmin(1)
    k, row = np.unravel_index(nearest.numpy(), (8, len(known)))
    values = parameters.encode(parameters.turned(parameters.of(lenses16.truth)[row], k))
    np.testing.assert_allclose(labels[~dropped].numpy(), values, atol=1e-5)
    assert len(set(k)) == 8


def test_an_unconditional_network_gets_no_labels(lenses16: ImageSet) -> None:
    spy = Spy()
    run(Denoiser(spy), lenses16, config())
    assert spy.labels == []


# ---- the loss ------------------------------------------------------------------------------------


def learns(images: ImageSet, precision: str) -> None:
    """60 updates tell noise from lenses, on images never trained on."""
    settings = config(
        steps=60,
        batch=16,
        lr=3e-3,
        warmup_steps=5,
        decay_share=0.4,
        held_out_every=60,
        sigmas=LogNormal(0.5, 1.0),
    )
    denoiser = tiny(precision, "eps", classes=3, middle_attention=True)
    stretch = Stretch.of(images.pixels)
    before = held_out_loss(denoiser, images, images.split()[1], stretch, settings)
    steps = run(denoiser, images, settings)
    assert [s.number for s in steps] == list(range(1, 61))
    assert steps[-1].images_seen == 960
    assert all(math.isfinite(s.loss) for s in steps)
    assert weights(denoiser).isfinite().all()
    assert [s.held_out is None for s in steps] == [True] * 59 + [False]
    assert steps[-1].held_out < 0.6 * before
    late = np.mean([s.loss for s in steps[-10:]])
    assert late < 0.6 * np.mean([s.loss for s in steps[:3]])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls(lenses16: ImageSet, precision: str) -> None:
    learns(lenses16, precision)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_loss_falls_on_cuda(lenses16: ImageSet, precision: str) -> None:
    learns(lenses16, precision)


def test_held_out_loss_is_repeatable(lenses16: ImageSet) -> None:
    settings = config(held_out_images=5)
    stretch = Stretch.of(lenses16.pixels)
    held = lenses16.split()[1]
    spy = Spy()
    denoiser = Denoiser(spy, "x0")
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(held_out_loss(denoiser, lenses16, held, stretch, settings))
    other = held_out_loss(denoiser, lenses16, held, stretch, replace(settings, seed=1))
    assert losses[0] == losses[1] != other
    assert spy.x[0].shape == (5, 1, 16, 16)
    assert torch.equal(spy.x[0], spy.x[1])
    with torch.no_grad():
        spy.weight.fill_(0.0)
    x0 = stretch(torch.from_numpy(lenses16.pixels[held[:5]]))
    loss = held_out_loss(denoiser, lenses16, held, stretch, settings)
    assert loss == pytest.approx(float((x0**2).mean()), rel=1e-5)


@pytest.mark.parametrize("n", [5, 64, 100])
def test_the_held_out_noise_does_not_depend_on_the_batch(n: int) -> None:
    """Nor do images of few pixels change it, whose noise torch draws in other blocks."""
    pixels = np.random.default_rng(0).random((n, 1, 3, 5), np.float32)
    images = ImageSet("odd", pixels, "odd")
    losses = []
    seen = []
    for batch in (64, 7, 1):
        spy = Spy()
        given = (images, np.arange(n), Stretch(0.5, 0.3), config(held_out_images=n), batch)
        losses.append(held_out_loss(Denoiser(spy), *given))
        assert max(len(x) for x in spy.x) == min(n, batch)
        seen.append(torch.cat(spy.x))
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-5)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_nan_in_the_data_stops_before_the_weights_are_touched(lenses16: ImageSet) -> None:
    pixels = np.array(lenses16.pixels)
    pixels[:, :, 3, 3] = np.nan
    denoiser = tiny()
    with pytest.raises(DataError, match=r"diverse-16: image [0-9]+ holds NaN or infinity"):
        run(denoiser, replace(lenses16, pixels=pixels), config(), stretch=Stretch(0.1, 0.2))
    with pytest.raises(DataError, match="image 5 holds NaN"):
        given = (Stretch(0.1, 0.2), config(held_out_images=1))
        held_out_loss(denoiser, replace(lenses16, pixels=pixels), np.array([5]), *given)
    assert torch.equal(weights(denoiser), weights(tiny()))


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "either steps or minutes"),
        ({"minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "must be positive"),
        ({"steps": -1}, "must be positive"),
        ({"steps": None, "minutes": 0.0}, "must be positive"),
        ({"batch": 0}, "multiple of accumulation"),
        ({"batch": 10, "accumulation": 4}, "multiple of accumulation"),
        ({"accumulation": 0}, "multiple of accumulation"),
        ({"criterion": "huber"}, "criterion must be one of"),
        ({"weight": "p2"}, "weight one of"),
    ],
)
def test_wrong_configurations(changes: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        config(**changes)
    assert isinstance(caught.value, LensdiffError)
    assert isinstance(caught.value, ValueError)
