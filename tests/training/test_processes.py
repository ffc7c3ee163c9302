"""Training in processes of its own: killed at any moment, and shared between two."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lensdiff.networks.backbones import LITE0
from lensdiff.training import processes

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
SCRIPT = """
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

from lensdiff.data.images import ImageSet
from lensdiff.diffusion.process import Denoiser
from lensdiff.networks.unet import UNet
from lensdiff.training.diffusion import TrainConfig, train

folder, steps, precision, *stop = sys.argv[1:]
# the state's folder is the first process's to make: the second may save before it is there
os.makedirs(folder, exist_ok=True)
torch.manual_seed(0)
pixels = np.random.default_rng(0).random((40, 1, 16, 16)).astype(np.float32)
images = ImageSet("toy", pixels, "toy", labels=np.arange(40) % 3, symmetries=8)
net = UNet((16, 32), blocks=1, attention_levels=(1,), classes=3)
looks = {"held_out_every": 2, "save_every": 2}
config = TrainConfig(steps=int(steps), batch=8, warmup_steps=10, accumulation=2, **looks)
rows = np.arange(33), np.arange(33, 40)  # neither shares out evenly
rank = os.environ.get("RANK", "0")
for step in train(Denoiser(net, precision=precision), images, config, rows=rows, state=folder):
    if step.held_out is not None:
        with open(f"{folder}/held-out-{rank}.txt", "a") as log:
            print(step.number, step.held_out, file=log)
    if stop and step.number == int(stop[0]):
        break
for name, part in (("model", step.model), ("ema", step.ema)):
    tensors = {key: value.contiguous() for key, value in part.state_dict().items()}
    save_file(tensors, f"{folder}/{name}-{rank}.safetensors")
"""

# the same, of an autoencoder whose codebook learns from the latents of all processes
CODEBOOK = """
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

from lensdiff.data.images import ImageSet
from lensdiff.networks.autoencoder import VQVAE
from lensdiff.training.autoencoder import AutoencoderConfig, train_autoencoder

folder, rare = sys.argv[1:]
# the state's folder is the first process's to make: the second may save before it is there
os.makedirs(folder, exist_ok=True)
torch.manual_seed(0)
pixels = np.random.default_rng(0).random((40, 1, 16, 16)).astype(np.float32)
images = ImageSet("toy", pixels, "toy", symmetries=8)
net = VQVAE(codes=8, rare=float(rare), channels=(16, 16), image_mean=0.5, image_std=0.3)
config = AutoencoderConfig(steps=3, batch=8, warmup_steps=10)
for step in train_autoencoder(net, images, config, state=folder):
    pass
tensors = {key: value.contiguous() for key, value in step.model.state_dict().items()}
save_file(tensors, f"{folder}/model-{os.environ.get('RANK', '0')}.safetensors")
"""

# the same, of a classifier, whose batch norms see the batch of all processes
CLASSIFIER = """
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

from lensdiff.data.images import ImageSet
from lensdiff.lensing.population import KINDS
from lensdiff.networks.classifier import LensClassifier
from lensdiff.training.classifier import ClassifierConfig, train_classifier

folder, backbone = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
torch.manual_seed(0)
pixels = np.random.default_rng(0).random((60, 1, 40, 40)).astype(np.float32)
images = ImageSet("toy", pixels, "toy", KINDS, np.arange(60) % 3, symmetries=8)
net = LensClassifier(size=40, pretrained=False, dropout=0.0, backbone=backbone)
config = ClassifierConfig(frozen_steps=3, steps=2, batch=12, warmup_steps=10)
tensors = {}
for step in train_classifier(net, images, config, state=folder):
    tensors[f"loss-{step.number}"] = torch.tensor(step.loss)
    if step.number == 3:  # the backbone is frozen until then
        tensors |= {f"head-3.{key}": part.clone() for key, part in net.head.state_dict().items()}
tensors |= {key: value.contiguous() for key, value in net.state_dict().items()}
save_file(tensors, f"{folder}/model-{os.environ.get('RANK', '0')}.safetensors")
"""


def newest(state: Path) -> int:
    """Updates of the newest saved state."""
    return max((int(path.name) for path in state.glob("[0-9]*") if path.name.isdigit()), default=0)


def start(script: Path, *arguments: object, processes: int = 1) -> subprocess.Popen:
    """Run the script, in several processes that share each batch where `processes` says so."""
    words = [sys.executable]
    if processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words += [str(script)] + [str(argument) for argument in arguments]
    return subprocess.Popen(words, env=ENVIRONMENT)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


KILLED_STEPS = 80
PATIENCE = 180  # seconds, for a busy machine


def kill(process: subprocess.Popen, state: Path, after: int, seconds: float) -> None:
    """SIGKILL `seconds` after the state of update `after` was saved."""
    deadline = time.monotonic() + PATIENCE
    try:
        while newest(state) < after:
            assert process.poll() is None, f"it ended before update {after}"
            assert time.monotonic() < deadline, f"no update {after} in time"
            time.sleep(0.001)
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_kill_9_at_any_moment_changes_no_bit(script: Path, tmp_path: Path) -> None:
    state = tmp_path / "killed"
    whole = tmp_path / "whole"
    moment = random.Random()  # other moments on every run: a failure prints them
    killed_at = []
    # beside the others: each has one thread
    never_killed = start(script, whole, KILLED_STEPS, "bf16")
    for first, last in ((2, 24), (32, 50)):
        after = moment.randint(first, last)
        kill(start(script, state, KILLED_STEPS, "bf16"), state, after, moment.uniform(0, 0.02))
        killed_at.append((after, newest(state)))
        assert newest(state) < KILLED_STEPS, killed_at
    assert start(script, state, KILLED_STEPS, "bf16").wait(timeout=PATIENCE) == 0, killed_at
    assert never_killed.wait(timeout=PATIENCE) == 0
    assert newest(state) == newest(whole) == KILLED_STEPS
    assert not list(state.glob("*.part"))
    for name in ("model", "ema"):
        ours = load_file(state / f"{name}-0.safetensors")
        theirs = load_file(whole / f"{name}-0.safetensors")
        assert ours.keys() == theirs.keys()
        for key, tensor in theirs.items():
            assert torch.equal(ours[key], tensor), (killed_at, name, key)
    # it did train
    assert any(tensor.abs().max() > 0 for key, tensor in theirs.items() if "exit" in key)


@pytest.mark.slow
def test_two_processes_train_the_same_network_as_one(script: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    begun = tmp_path / "begun"
    running = [start(script, alone, 6, "fp32"), start(script, begun, 6, "fp32", 1)]
    # two begin, one goes on from their state, and two end it
    for stop, many in ((2, 2), (4, 1), (6, 2)):
        assert start(script, shared, 6, "fp32", stop, processes=many).wait(PATIENCE) == 0
        assert newest(shared) == stop
    assert [one.wait(timeout=PATIENCE) for one in running] == [0, 0]
    losses = [np.loadtxt(folder / "held-out-0.txt") for folder in (alone, shared)]
    assert losses[0][:, 0].tolist() == [2, 4, 6] and losses[0][2, 1] != losses[0][0, 1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    second = np.loadtxt(shared / "held-out-1.txt")  # update 4 was the first process's alone
    np.testing.assert_allclose(second, losses[1][[0, 2]], rtol=1e-6)
    moved = []
    for name in ("model", "ema"):
        expected = load_file(alone / f"{name}-0.safetensors")
        before = load_file(begun / f"{name}-0.safetensors")
        first = load_file(shared / f"{name}-0.safetensors")
        second = load_file(shared / f"{name}-1.safetensors")
        for key, tensor in expected.items():
            assert torch.equal(first[key], second[key]), (name, key)
            # root mean square: where a gradient is rounding alone, Adam still takes a whole step
            assert (first[key] - tensor).square().mean().sqrt() < 1e-5, (name, key)
            moved.append(float((tensor - before[key]).square().mean().sqrt()))
    assert np.median(moved) > 1e-4  # five updates further than the bound


@pytest.mark.slow
def test_two_processes_learn_one_codebook(tmp_path: Path) -> None:
    script = tmp_path / "codebook.py"
    script.write_text(CODEBOOK)
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    restarted = tmp_path / "restarted"  # each process must take the same latents for dead codes
    running = [start(script, alone, 0), start(script, shared, 0, processes=2)]
    running.append(start(script, restarted, 0.5, processes=2))
    assert [one.wait(timeout=PATIENCE) for one in running] == [0, 0, 0]
    expected = load_file(alone / "model-0.safetensors")
    for folder in (shared, restarted):
        first = load_file(folder / "model-0.safetensors")
        second = load_file(folder / "model-1.safetensors")
        for key, tensor in expected.items():
            assert torch.equal(first[key], second[key]), (folder.name, key)
            if folder == shared:
                # Adam makes steps of the rate even of a gradient that is rounding alone, as that of
                # a bias behind a norm: three of them come to 6e-4, to either side
                assert (first[key] - tensor).square().mean().sqrt() < 2e-4, key


@pytest.mark.slow
def test_two_processes_train_the_same_classifier_as_one(tmp_path: Path) -> None:
    script = tmp_path / "classifier.py"
    script.write_text(CLASSIFIER)
    alone = tmp_path / "alone"
    shared = tmp_path / "shared"
    running = [start(script, alone, LITE0), start(script, shared, LITE0, processes=2)]
    # some weights of this one have no gradient, for which several processes would wait
    running.append(start(script, tmp_path / "other", "mobilenetv3_small_050", processes=2))
    assert [one.wait(timeout=PATIENCE) for one in running] == [0, 0, 0]
    expected = load_file(alone / "model-0.safetensors")
    first = load_file(shared / "model-0.safetensors")
    second = load_file(shared / "model-1.safetensors")
    for key, tensor in expected.items():
        assert torch.equal(first[key], second[key]), key
        if key.startswith("head-3") and key.endswith("weight"):
            # steps of the rate, of gradients that are rounding alone, as above
            assert (first[key] - tensor).square().mean().sqrt() < 3e-4, key
        if not key.startswith("loss-") and "running_var" not in key.removeprefix("head-3"):
            continue
        apart = (first[key] - tensor).square().mean().sqrt() / tensor.square().mean().sqrt()
        # updates of an untrained backbone of sixteen blocks multiply a rounding by ten thousand
        assert apart < (1e-5 if key == "loss-1" else 3e-2), (key, apart)
    assert sum("running_var" in key for key in expected) > 50
    assert sum(key.startswith("head-3") for key in expected) > 2
    first, second = (load_file(tmp_path / "other" / f"model-{rank}.safetensors") for rank in "01")
    assert all(torch.equal(first[key], second[key]) for key in first) and len(first) > 50


def test_a_large_mean_takes_nothing_from_the_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Sum", SimpleNamespace(apply=lambda x: x))
    values = 1_000 + torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    norm = torch.nn.BatchNorm2d(3)
    found = processes.normalised(norm, values)
    expected = torch.nn.BatchNorm2d(3)(values.double().float())
    assert float(found.detach().var(unbiased=False)) == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_a_batch_of_one_value_is_normalised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of squares less the square of the mean would be below 0 for some of them."""
    monkeypatch.setattr(processes, "Sum", SimpleNamespace(apply=lambda x: x))
    values = torch.linspace(500.0, 1500.0, 400)
    norm = torch.nn.BatchNorm2d(400)
    found = processes.normalised(norm, values.view(1, -1, 1, 1).repeat(8, 1, 1, 1))
    assert found.isfinite().all()
    assert (norm.running_var >= 0).all()


NORMS = """
import os
import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from safetensors.torch import save_file

from lensdiff.training.processes import share_norms

torch.manual_seed(0)
layers = []
for _ in range(12):
    layers += [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.SiLU()]
net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 64, 8), nn.BatchNorm1d(8)).double()
x = torch.randn(12, 3, 8, 8, dtype=torch.float64)
wanted = torch.randn(12, 8, dtype=torch.float64)
model = net
if "RANK" in os.environ:
    distributed.init_process_group("gloo")
    share_norms(net)
    model = DistributedDataParallel(net)
    share = slice(6 * int(os.environ["RANK"]), 6 + 6 * int(os.environ["RANK"]))
    x, wanted = x[share], wanted[share]
(model(x) - wanted).square().mean().backward()
tensors = {key: p.grad for key, p in net.named_parameters()}
tensors |= {f"{key}.kept": value for key, value in net.named_buffers()}
save_file(tensors, f"{sys.argv[1]}-{os.environ.get('RANK', '0')}.safetensors")
"""


@pytest.mark.slow
def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """Gradients and running statistics, in float64."""
    script = tmp_path / "norms.py"
    script.write_text(NORMS)
    running = [start(script, tmp_path / "alone"), start(script, tmp_path / "both", processes=2)]
    assert [one.wait(timeout=PATIENCE) for one in running] == [0, 0]
    expected = load_file(tmp_path / "alone-0.safetensors")
    for process in (0, 1):
        found = load_file(tmp_path / f"both-{process}.safetensors")
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-9, atol=1e-11, msg=key)
    assert expected["1.running_var.kept"].dtype == torch.float64
