"""The published solutions as recipes: what their sources fix, and at which size each is there."""

from __future__ import annotations

import pytest
import torch

from lensdiff.diffusion.process import Uniform
from lensdiff.diffusion.sampling import table_levels
from lensdiff.model import NETWORKS
from lensdiff.notebook.lessons import n10_five_recipes
from lensdiff.training import recipes
from lensdiff.training.published import OURS, PUBLISHED, WHOLE_IMAGES


def sides(name: str, whole: bool = False) -> tuple[int, int]:
    """(channels, side) of what the network of a solution denoises."""
    solution = PUBLISHED[name]
    recipe = solution.whole if whole else solution.recipe
    if solution.autoencoder is not None:
        return 4, 7 if whole else 16
    return (3 if recipe.data == "colour" else 1), recipe.pixels


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_solutions_network_answers_at_the_size_of_its_images(name, whole):
    solution = PUBLISHED[name]
    recipe = solution.whole if whole else solution.recipe
    channels, side = sides(name, whole)
    with torch.device("meta"):
        net = NETWORKS[recipe.kind](**{**recipe.network, "image_channels": channels})
        shape = (2, channels, side, side)
        assert net(torch.empty(shape), torch.empty(2)).shape == shape


def test_every_solution_is_known_to_the_command_line_small_and_whole():
    every = recipes.every()
    for name, solution in PUBLISHED.items():
        assert every[name] is solution.recipe
        assert every[solution.whole.name] is solution.whole
        if not name.startswith(OURS):
            assert solution.whole.train.steps * solution.whole.train.batch <= WHOLE_IMAGES
            assert solution.whole.pixels == solution.says.pixels
            small = {**vars(solution.recipe.train)}
            whole = {**vars(solution.whole.train)}
            differing = {key for key in small if small[key] != whole[key]}
            assert differing <= {"steps", "held_out_every", "held_out_images", "save_every"}


@pytest.mark.filterwarnings("ignore::lensdiff.diffusion.process.ScheduleWarning")  # T = 200
@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.startswith(OURS)])
def test_whole_it_samples_by_its_own_schedule(name):
    solution = PUBLISHED[name]
    sampling = solution.whole.sampling
    own = table_levels(solution.levels, solution.steps)
    assert sampling.sigmas().tolist() == own.tolist()
    assert (sampling.calls, sampling.options()) == (solution.steps, {"eta": solution.eta})
    low, high = (getattr(sampling, end) for end in ("low", "high"))
    assert float(solution.levels[0]) <= low < high <= float(solution.levels[-1])
    assert (solution.whole.data == "colour") == (solution.says.pixels == 128)


def test_the_page_offers_every_recipe():
    assert n10_five_recipes.RECIPES == tuple(PUBLISHED)


def test_each_recipe_has_what_its_source_fixes():
    plain = PUBLISHED["ddpm"].recipe
    assert plain.train.sigmas == Uniform("linear", 1000)
    assert (plain.prediction, plain.train.criterion, plain.train.ema) == ("eps", "l2", 0.9999)
    assert PUBLISHED["ddpm-cosine"].recipe.network == plain.network
    wide = PUBLISHED["ddpm-wide"].recipe.network["channels"]
    assert wide == tuple(2 * c for c in plain.network["channels"])
    sigmoid = PUBLISHED["sigmoid-ddim"]
    assert sigmoid.recipe.train.sigmas.schedule == "sigmoid"
    assert (sigmoid.steps, sigmoid.eta) == (250, 0.0)
    assert (sigmoid.says.fid, sigmoid.says.n) == (12.4, 2_000)
    l1 = PUBLISHED["cosine-l1"]
    assert (l1.recipe.train.criterion, l1.recipe.train.batch) == ("l1", 16)
    assert (l1.recipe.prediction, l1.says.pixels, l1.says.fid) == ("edm", 144, 6.0)
    faces = PUBLISHED["faces-colour"].recipe
    assert (faces.train.batch, faces.train.accumulation) == (20, 4)
    assert (faces.train.lr, faces.train.ema, faces.pixels) == (3e-5, 0.9999, 128)
    assert faces.network["channels"] == tuple(64 * k for k in (1, 2, 2, 4, 8))
    wide = PUBLISHED["faces-wide"].recipe
    assert wide.network["channels"] == tuple(128 * k for k in (1, 2, 2, 4, 8))
    assert (wide.train.lr, wide.train.accumulation) == (3e-5, 4)
    short = PUBLISHED["faces-T200"]
    assert short.recipe.train.sigmas == Uniform("linear", 200, rescale=False)
    assert len(short.levels) == short.steps == 200
    latents, cut = (PUBLISHED[name].recipe for name in ("vq-latents", "vq-latents-T200"))
    for recipe, T in ((latents, 300), (cut, 200)):
        assert recipe.train.sigmas == Uniform("linear", T, rescale=False)
        assert PUBLISHED[recipe.name].whole.data == "digits"
    assert (cut.network, cut.train.steps) == (latents.network, latents.train.steps)
    assert PUBLISHED["ours"].levels is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_recipe_is_sampled_where_it_did_not_learn(name):
    solution = PUBLISHED[name]
    levels = solution.recipe.sampling.sigmas()
    table = solution.levels
    if table is not None:
        assert float(table[0]) <= float(levels[-2]) and float(levels[0]) <= float(table[-1])
        assert solution.recipe.sampling.calls == 20


def test_the_network_of_ho_et_al_has_the_weights_that_they_count():
    """35.7 million on CIFAR-10 (Ho et al. 2020, section 4), by the same arguments."""
    arguments = {**PUBLISHED["ddpm"].recipe.network, "channels": (128, 256, 256, 256)}
    arguments |= {"attention_levels": (1,), "image_channels": 3}
    with torch.device("meta"):
        net = NETWORKS["UNet"](**arguments)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(35.7, abs=0.05)


def test_attention_is_at_16_pixels_small_and_whole():
    for name in ("ddpm", "faces", "faces-wide", "faces-colour"):
        solution = PUBLISHED[name]
        for recipe in (solution.recipe, solution.whole):
            (level,) = recipe.network["attention_levels"]
            padded = -(-recipe.pixels // 2 ** (len(recipe.network["channels"]) - 1))
            side = padded * 2 ** (len(recipe.network["channels"]) - 1) // 2**level
            assert 16 <= side <= 19, (recipe.name, side)
