"""The nearest training image, under the symmetries."""

import numpy as np
import pytest
import torch

from lensdiff.data.images import ELEMENTS, symmetry
from lensdiff.errors import MetricError
from lensdiff.scores.memorisation import nearest


@pytest.mark.parametrize("symmetries", [1, 2, 8])
def test_the_nearest_training_image_is_found_under_the_symmetries(symmetries):
    rng = np.random.default_rng(1)
    training = rng.random((50, 1, 12, 12), np.float32)
    which = torch.tensor(rng.choice(ELEMENTS[symmetries], 20))
    rows = rng.choice(50, 20)
    noise = 0.01 * rng.standard_normal((20, 1, 12, 12)).astype(np.float32)
    images = symmetry(torch.from_numpy(training[rows]), which) + torch.from_numpy(noise)
    distance, index, element = nearest(images, training, symmetries, batch=7)
    np.testing.assert_array_equal(index, rows)
    np.testing.assert_allclose(distance, np.sqrt((noise**2).mean((1, 2, 3))), rtol=1e-3)
    back = symmetry(images, torch.from_numpy(element)).numpy()
    # the element turns the image onto its neighbour
    assert np.abs(back - training[rows]).max() < 0.06


def test_nearest_refuses_other_sizes():
    with pytest.raises(MetricError, match="can't be compared"):
        nearest(np.zeros((2, 1, 8, 8), np.float32), np.zeros((2, 1, 9, 9), np.float32))
