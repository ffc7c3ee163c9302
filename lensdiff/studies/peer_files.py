"""A plain set of .npy files as a user writes it, for a DataLoader: read, scaled, turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class Files(Dataset):
    """The .npy files of a folder, each read when it is asked for, flipped and turned at random."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        image = np.load(self.paths[i], allow_pickle=False).astype(np.float32)
        image = torch.from_numpy((image - image.min()) / (image.max() - image.min()))
        image = torch.rot90(image, int(torch.randint(4, ())), (-2, -1))
        return 2 * (image.flip(-1) if torch.rand(()) < 0.5 else image) - 1
