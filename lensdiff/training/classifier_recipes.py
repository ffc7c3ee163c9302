"""Recipes of the shipped classifiers."""

from __future__ import annotations

from ..data.digits import DIGITS
from ..data.images import TEST_IMAGES
from ..lensing.survey import diverse, model_i
from .classifier import ClassifierConfig
from .recipe import ClassifierRecipe

JUDGE_SEED = 4  # of the lenses that judge64 learns from: those of data/sample have 3

# Common Test I: Model I at 150 pixels, of which the central 100 hold all the light. Element 2, half
# a turn, is Model I's own symmetry: lens and source have two axes each, and nothing else is fixed.
LENSNET = ClassifierRecipe(
    name="lensnet",
    model={"size": 100},
    train=ClassifierConfig(
        steps=3_700,
        frozen_steps=100,
        lr=8e-4,
        warmup_steps=100,
        elements=(0, 2),
        held_out_every=300,
        save_every=300,
    ),
    survey=model_i(),
)
# The judge of conditional models: it learns their population, from lenses that they never saw.
JUDGE64 = ClassifierRecipe(
    name="judge64",
    # 64 pixels, enlarged: the backbone folds by 32, and would leave a map of 2 x 2
    model={"size": 96, "view": "resize"},
    train=ClassifierConfig(
        steps=1_600, frozen_steps=100, lr=8e-4, warmup_steps=100, held_out_every=300, save_every=300
    ),
    survey=diverse(64),
    n_test=TEST_IMAGES,
    train_seed=JUDGE_SEED,
)
# The judge of drawn digits, which are not to be mirrored or turned.
JUDGE_DIGITS = ClassifierRecipe(
    name="judge-digits",
    model={"size": 32, "head": "plain", "backbone": "small", "classes": DIGITS, "dropout": 0.4},
    train=ClassifierConfig(
        steps=1_500,
        frozen_steps=0,
        batch=64,
        lr=2e-3,
        elements=(0,),
        held_out_every=300,
        save_every=300,
    ),
    survey=None,
)
CLASSIFIERS = {recipe.name: recipe for recipe in (LENSNET, JUDGE64, JUDGE_DIGITS)}
