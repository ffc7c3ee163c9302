"""The eight symmetries of a square image."""

from __future__ import annotations

import numpy as np
import torch

from lensdiff.data.images import symmetry


def test_symmetry_is_the_dihedral_group() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    ours = [symmetry(x, torch.tensor([k]))[0, 0].numpy() for k in range(8)]
    assert len({image.tobytes() for image in ours}) == 8
    plain = x[0, 0].numpy()
    expected = {
        np.ascontiguousarray(np.rot90(image, k)).tobytes()
        for image in (plain, plain.T)
        for k in range(4)
    }
    assert {np.ascontiguousarray(image).tobytes() for image in ours} == expected
    np.testing.assert_array_equal(ours[0], plain)
    np.testing.assert_array_equal(ours[1], np.rot90(plain))
    # element 4 is the mirror that two symmetries mean
    np.testing.assert_array_equal(ours[4], plain[:, ::-1])


def test_symmetry_acts_on_each_image_by_its_own_element() -> None:
    x = torch.rand(5, 2, 4, 4)
    which = torch.tensor([0, 3, 4, 7, 2])
    for row, k in enumerate(which):
        alone = symmetry(x[row : row + 1], k[None])[0]
        torch.testing.assert_close(symmetry(x, which)[row], alone)
