"""How a network learns the noise level and its condition: sinusoids and label embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import normal
from torch import nn

from lensdiff.errors import ParameterError
from lensdiff.networks.embeddings import (
    NoiseEmbedding,
    Planes,
    VectorEmbedding,
    label_embedding,
    label_planes,
    zero,
)


def test_sinusoids_are_geometric_from_1_to_1000() -> None:
    embedding = NoiseEmbedding(16)
    assert embedding.frequencies.shape == (32,)
    geometric = 1000 ** (np.arange(32) / 31)
    np.testing.assert_allclose(embedding.frequencies.numpy(), geometric, rtol=1e-5)
    noise = torch.tensor([-1.2, 0.0, 0.9])
    phase = noise.numpy()[:, None] * embedding.frequencies.numpy()
    expected = np.concatenate([np.sin(phase), np.cos(phase)], 1)
    np.testing.assert_allclose(embedding.sinusoids(noise).numpy(), expected, atol=1e-4)
    assert embedding.sinusoids(noise.bfloat16()).dtype == torch.float32
    assert embedding(noise).shape == (3, 16)


def test_zero_leaves_a_layer_that_answers_zero() -> None:
    layer = zero(nn.Linear(4, 3))
    assert (layer(normal(2, 4)) == 0).all()
    assert all(parameter.requires_grad for parameter in layer.parameters())


def test_the_embedding_of_a_label_is_a_table_or_layers_or_none() -> None:
    assert label_embedding(0, 0, 8) is None
    table = label_embedding(3, 0, 8)
    assert table.weight.shape == (4, 8)  # the null class has the last row
    layers = label_embedding(0, 7, 8)
    assert isinstance(layers, VectorEmbedding) and layers.count == 7
    with pytest.raises(ParameterError, match="not on both"):
        label_embedding(3, 7, 8)


def test_a_new_vector_embedding_answers_zero_and_learns_its_null_vector() -> None:
    embedding = VectorEmbedding(7, 8)
    values = normal(3, 7)
    assert (embedding(values) == 0).all()
    with torch.no_grad():
        embedding.null += 2.0
    values[1, 3] = torch.nan  # one NaN makes the whole row the null condition
    expected = torch.tensor([0.0, 2.0, 0.0])[:, None].expand(3, 8)
    torch.testing.assert_close(embedding(values), expected)
    embedding(values).sum().backward()
    assert (embedding.null.grad == 1).all()
    assert all(parameter.grad.isfinite().all() for parameter in embedding.parameters())


def test_planes_have_one_entry_for_a_spin_of_zero_and_a_pair_for_the_others() -> None:
    assert label_planes((), 7) is None
    planes = label_planes((0, 2, 1, 2), 7)
    assert isinstance(planes, Planes) and planes.count == 7
    assert planes(normal(2, 7), 6, 5).shape == (2, 5, 6, 5)
    with pytest.raises(ParameterError, match="those of 7 numbers, but conditions=6"):
        label_planes((0, 2, 1, 2), 6)
