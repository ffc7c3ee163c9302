"""Mistakes with models: in training, drawing and scoring; see toys_mistakes."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from unittest import mock

import torch
from toys_mistakes import (
    SAMPLE,
    command,
    files,
    lens,
    little_room,
    mistake,
    raised,
    said,
    trained,
    training,
)

import lensdiff as ld
from lensdiff import runtime
from lensdiff.errors import TrainingError
from lensdiff.training.loop import Run

# ---- training ------------------------------------------------------------------------------------

command("A recipe that is not there", "train", "lens46", "HERE/m")
command("An option of another recipe", "train", "lensnet", "HERE/m", "--width", 32)
command("A tracker that is not there", "train", "tiny", "HERE/m", "--track", "mlflo")


@mistake("A start that is no such model")
def other_start(here: Path) -> str:
    return said(*training(here, "--start", "lensnet"))


@mistake("Going on with other settings")
def other_settings(here: Path) -> str:
    trained(here)
    return said(*training(here, steps=3))


@mistake("A saved state that was cut off")
def cut_state(here: Path) -> str:
    trained(here)
    (path,) = (here / "state").glob("0*/state.safetensors")
    path.write_bytes(path.read_bytes()[:1_000])
    return said(*training(here))


@mistake("A learning rate that is too high")
def high_rate(here: Path) -> str:
    return said(*training(here, "--lr", "1e30", steps=20))


@mistake("A GPU that is too small for the batch")
def small_gpu(here: Path) -> str:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    with mock.patch.object(Run, "_gradients", side_effect=error):
        return said(*training(here))


@mistake("One of several processes that dies")
def dead_process(here: Path) -> str:
    def update() -> None:
        with runtime.together(TrainingError):
            raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")

    with mock.patch.dict(os.environ, WORLD_SIZE="2"):
        return raised(update)


@mistake("A disk without room")
def full_disk(here: Path) -> str:
    trained(here)
    shutil.rmtree(here / "state")
    return little_room(training(here, steps=1), 300_000)


@mistake("A cache without room")
def full_cache(here: Path) -> str:
    os.environ["LENSDIFF_CACHE"] = str(here / "cache")
    return little_room(training(here), 50_000)


@mistake("A result where a file lies already")
def file_in_the_way(here: Path) -> str:
    (here / "model").write_text("mine")
    return said(*training(here))


@mistake("A result where a folder of yours lies")
def folder_in_the_way(here: Path) -> str:
    files(here / "model", thesis=lens())
    return said(*training(here))


@mistake("Model and state in one folder")
def one_folder(here: Path) -> str:
    return said(*training(here, "--state", here / "model"))


@mistake("Only some weights are to learn, and there is no start")
def nothing_learnt(here: Path) -> str:
    return said(*training(here, "--learns", "stem"))


@mistake("Too few images to hold some out")
def too_few(here: Path) -> str:
    files(here / "lenses", a=lens())
    return said("train", "tiny", here / "m", "--data", here / "lenses", "--steps", 1)


@mistake("A batch that the micro-batches don't share evenly")
def uneven(here: Path) -> str:
    return raised(lambda: ld.recipes.TINY.scaled(steps=1, batch=10, accumulation=4))


# ---- drawing -------------------------------------------------------------------------------------

command("A misspelt model", "draw", "lens46")
command("No images", "draw", "lens64", "-n", 0)
command("A class for a model without classes", "draw", "lens64", "--label", "cdm")
command("A class that is not there", "draw", "classes64", "--label", "wimp")
command("A class for a model of parameters", "draw", "parameters64", "--label", "axion")
command("A classifier that is to draw", "draw", "lensnet")


@mistake("A model that was changed or damaged")
def damaged(here: Path) -> str:
    shutil.copytree(ld.shipped("lens64"), here / "mine")
    weights = bytearray((here / "mine" / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (here / "mine" / "weights.safetensors").write_bytes(bytes(weights))
    return said("draw", here / "mine")


@mistake("More images at once than the memory holds")
def too_many(here: Path) -> str:
    model = ld.load("lens64", device="cpu", precision="fp32")
    error = RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    )
    with mock.patch.object(type(model.denoiser), "forward", side_effect=error):
        return raised(lambda: model.draw(4))


# ---- scores --------------------------------------------------------------------------------------


@mistake("FID without the weights of Inception")
def no_inception(here: Path) -> str:
    with mock.patch.object(torch.hub, "get_dir", lambda: str(here)), offline():
        return raised(lambda: ld.extractor("inception"))


def offline() -> contextlib.AbstractContextManager:
    """No network: whatever would be fetched is not."""
    error = OSError("no network")
    return mock.patch("torch.hub.download_url_to_file", side_effect=error)


@mistake("Pixels from 0 to 255")
def bytes_of_pixels(here: Path) -> str:
    from lensdiff.scores.statistics import statistics

    net = ld.extractor("efficientnet")
    return raised(lambda: statistics(net, [255 * torch.rand(2, 1, 64, 64)]))


@mistake("Real lenses of another size")
def other_size(here: Path) -> str:
    files(here / "lenses", **{str(k): lens(20, 20) + k for k in range(20)})
    return said("score", "lens64", "-n", 8, "--data", here / "lenses", "--dry")


command("More images than there are real ones", "score", "lens64", "-n", 64, "--data", SAMPLE)
command("A folder that is no model", "score", "data/sample")
