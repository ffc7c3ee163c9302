"""Labels of images: what a conditional network gets of them, and whether a classifier can learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lensdiff.data.images import ImageSet
from lensdiff.data.labels import balanced, check_classes, labels_for, network_labels
from lensdiff.errors import DataError, TrainingError
from lensdiff.lensing import parameters
from lensdiff.lensing.population import KINDS


def network(classes: int = 0, conditions: int = 0) -> nn.Module:
    """A network that is conditioned on these labels."""
    net = nn.Identity()
    net.classes = classes
    net.conditions = conditions
    return net


# ---- of a diffusion model ------------------------------------------------------------------------


@pytest.mark.parametrize("net", [None, nn.Identity(), network()])
def test_an_unconditional_network_gets_no_labels(lenses16: ImageSet, net: nn.Module | None) -> None:
    assert labels_for(net, lenses16) is None


def test_labels_are_classes_or_lens_parameters(lenses16: ImageSet) -> None:
    assert (labels_for(network(classes=3), lenses16) == lenses16.labels).all()
    assert (labels_for(network(classes=4), lenses16) == lenses16.labels).all()
    values = labels_for(network(conditions=7), lenses16)
    assert values.shape == (64, 7) and (values == parameters.of(lenses16.truth)).all()


@pytest.mark.parametrize(
    ("net", "change", "message"),
    [
        (network(3), {"labels": None}, "has no labels, but the network has 3 classes"),
        (network(0, 7), {"truth": None}, "network is conditioned on lens parameters. Simulate"),
        (network(3), {"labels": np.zeros(5, int)}, "5 labels for 64 images"),
        (network(2), {}, "labels up to 2, but the network has only 2 classes, 0 to 1"),
        (network(3), {"labels": np.full(64, -1)}, "labels down to -1"),
        (network(0, 6), {}, "conditioned on 6 numbers; lenses give 7: einstein_radius_arcsec, "),
    ],
)
def test_labels_that_a_network_does_not_know(
    lenses16: ImageSet, net: nn.Module, change: dict, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        labels_for(net, replace(lenses16, **change))


def test_a_class_stays_and_lens_parameters_turn_with_their_image(lenses16: ImageSet) -> None:
    which = np.arange(64) % 8
    assert network_labels(lenses16.labels, which).tolist() == lenses16.labels.tolist()
    values = parameters.of(lenses16.truth)
    found = network_labels(values, which)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[::8], parameters.encode(values[::8]))  # not turned
    column = list(parameters.NAMES).index("source_x_arcsec")
    mirrored = found[4::8, column].numpy()  # element 4 is the mirror, x to -x
    np.testing.assert_allclose(mirrored, -parameters.encode(values)[4::8, column], atol=1e-6)


# ---- of a classifier -----------------------------------------------------------------------------


def test_a_balanced_set_of_its_classes_can_be_learnt(lenses16: ImageSet) -> None:
    assert np.bincount(lenses16.labels).tolist() == [22, 21, 21]
    check_classes(lenses16, KINDS)
    check_classes(replace(lenses16, classes=()), KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "has no labels. Put its files into class folders: no_sub, cdm, axion"),
        ({"labels": np.zeros(5, int)}, "5 labels for 64 images"),
        ({"classes": ("a", "b", "c")}, r"has the classes \('a', 'b', 'c'\), the classifier"),
        ({"labels": np.arange(64) % 4}, "image 3 has the label 3; there are 0 to 2"),
        ({"labels": np.arange(64) % 3 - 1}, "image 0 has the label -1"),
        ({"labels": np.arange(64) % 2}, "lacks a class: 32 no_sub, 32 cdm, 0 axion"),
        ({"labels": np.minimum(np.arange(64) % 8, 2)}, "unbalanced: 8 no_sub, 8 cdm, 48 axion"),
    ],
)
def test_what_a_classifier_can_not_learn(lenses16: ImageSet, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=f"diverse-16.*{message}"):
        check_classes(replace(lenses16, **change), KINDS)


def test_an_unbalanced_set_is_taken_as_it_is_or_balanced(lenses16: ImageSet) -> None:
    uneven = replace(lenses16, labels=np.minimum(np.arange(64) % 8, 2))
    check_classes(uneven, KINDS, unbalanced=True)
    even = balanced(uneven)
    check_classes(even, KINDS)
    assert np.bincount(even.labels).tolist() == [8, 8, 8]
    assert even.name == "diverse-16, balanced"
    rare = np.flatnonzero(uneven.labels < 2)  # all of the rare classes stay, in their old order
    assert (even.pixels[even.labels < 2] == uneven.pixels[rare]).all()
    assert balanced(uneven).fingerprint == even.fingerprint
    assert balanced(uneven, seed=1).fingerprint != even.fingerprint


def test_what_has_no_classes_is_not_balanced(lenses16: ImageSet) -> None:
    with pytest.raises(DataError, match="no classes to balance"):
        balanced(replace(lenses16, labels=None))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_classes_of_any_whole_numbers_reach_the_network(dtype: type) -> None:
    found = network_labels(np.array([0, 2, 1], dtype), np.zeros(3, int))
    assert found.dtype == torch.int64 and found.tolist() == [0, 2, 1]
