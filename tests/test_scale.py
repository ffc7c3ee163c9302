"""docs/scale.md: its commands are commands, its numbers are those of the shipped models."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from toys_processes import command, start, wait

import lensdiff as ld
from lensdiff.__main__ import main, parser_for
from lensdiff.data import parts
from lensdiff.notebook.files import parameter_names, read
from lensdiff.storage import checkpoints
from lensdiff.studies import cost
from lensdiff.studies.shards import Shard
from lensdiff.training import recipes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
LINES = [line.strip() for block in BLOCKS for line in block.splitlines()]
OURS = [line for line in LINES if "-m lensdiff" in line]


def test_there_are_commands_of_each_kind() -> None:
    programs = {line.split()[0] for line in LINES if line and not line.startswith("#")}
    assert {"python", "torchrun", "for", "papermill"} <= programs and len(OURS) >= 5


@pytest.mark.parametrize("line", OURS)
def test_each_command_is_one(line: str) -> None:
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "3"))
    words = words[words.index("lensdiff") + 1 :]
    given = parser_for(words).parse_args(words)
    if given.command == "train":
        assert given.recipe in recipes.every() and given.state
    if given.command in ("draw", "score"):
        together = line.startswith("torchrun")  # its processes are the parts
        assert given.shard is None if together else Shard.parse(given.shard) == Shard(3, 8)
        assert Path(given.model).name in checkpoints.known()


def test_papermill_gets_a_parameter_that_there_is() -> None:
    (line,) = [line for line in LINES if line.startswith("papermill")]
    words = shlex.split(line)
    path = ROOT / words[1]
    assert path.is_file() and words[words.index("-p") + 1] in parameter_names(read(path))


SMALL = {"1000000": "16", "100000": "16", "2048": "16", "$SLURM_ARRAY_TASK_ID/8": "3/8"}
MORE = {"train": ["--steps", "2", "--batch", "2", "--width", "16"], "draw": ["--steps", "2"]}


def small(line: str, runs: Path) -> list[str]:
    """The words behind lensdiff, of as little work as there can be, with results in `runs`."""
    words = shlex.split(line)
    words = words[words.index("lensdiff") + 1 :]
    more = list(MORE.get(words[0], ()))
    if words[0] == "train" and "--images" not in words:
        more += ["--images", "16"]
    short = [SMALL.get(word, word) for word in words]
    return [word.replace("runs/", f"{runs}/", 1) for word in short] + more


@pytest.mark.slow
def test_all_run_small_and_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of torchrun in two processes; of each array of jobs the third."""
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LENSDIFF_PRECISION", "fp32")
    for number, line in enumerate(line for line in OURS if "--nnodes" not in line):
        words = small(line, tmp_path)
        if not line.startswith("torchrun"):
            with monkeypatch.context() as patch:
                # a million is in parts
                patch.setattr(parts, "PART", 2 if "1000000" in line else parts.PART)
                assert main(words) == 0, line
            continue
        said = tmp_path / f"said-{number}"
        done = wait(start(command, words, said, processes=2), 180)
        assert done == [0, 0], (line, said.with_name(f"{said.name}-0.txt").read_text())
    for name in ("lens64", "many"):
        model = ld.load(tmp_path / name, device="cpu")
        assert (model.shape, model.spec["images_seen"]) == ((1, 64, 64), 4)
        assert (tmp_path / f"{name}-state" / "00000002").is_dir()
    assert len(list((tmp_path / "cache").iterdir())) > 8  # parts of two lenses, and references
    drawn = sorted(path.name for path in tmp_path.glob("many*.npy"))
    assert "many.npy" in drawn, drawn
    assert list((tmp_path / "lens64").glob("*3-of-8*")), "the third part of the score"


@pytest.mark.slow
def test_the_grid_runs_small(tmp_path: Path) -> None:
    """One seed of it, at profile smoke."""
    (block,) = [block for block in BLOCKS if "papermill" in block]
    script = block.replace("1 2 3", "1").replace("runs/", f"{tmp_path}/").replace("$PWD/", "")
    script = script.replace("mkdir -p runs\n", "")
    own = {**os.environ, "LENSDIFF_PROFILE": "smoke", "LENSDIFF_QUIET": "1"}
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=own, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    page = read(tmp_path / "seed-1.ipynb")
    assert "seed = 1\n" in "".join(f"{cell.source}\n" for cell in page.cells)


def near(texts: list[str], numbers: tuple[float, ...]) -> None:
    """Each number is as it is printed, rounded."""
    for text, number in zip(texts, numbers, strict=True):
        assert float(text) == pytest.approx(number, abs=0.51 * 10 ** -len(text.partition(".")[2]))


def speed(words: str) -> float:
    """Operations a second that the page names behind these words."""
    return float(re.search(rf"{words}\s+at\s+([\d.]+) · 10¹²", PAGE)[1]) * 1e12


CPU = "trained `lens150`"
GPU = "trained\\s+`lens150-long`"


@pytest.mark.parametrize("name", ["lens64", "lens150", "lens150-long", "latent150"])
def test_the_costs_are_those_of_the_models(name: str) -> None:
    training, drawing = (
        row.split(" | ") for row in re.findall(rf"^\| {name} \| (.*) \|$", PAGE, re.M)
    )
    model = ld.load(name, device="cpu", precision="fp32")
    operations = cost.flops(model)
    assert training[0] == f"{model.spec['images_seen']:,}"
    work = 3 * operations * model.spec["images_seen"]
    mb = model.shape[-1] ** 2 * 4e-6
    hours = work / speed(CPU) / 3600
    minutes = work / speed(GPU) / 60
    kept = cost.training_bytes(model) / 1e6
    near(training[1:], (operations / 1e9, work / 1e15, hours, minutes, kept, 1e3 * mb))
    calls = model.sampling.calls
    work = 100_000 * calls * operations
    hours = work / speed(CPU) / 3600
    minutes = work / speed(GPU) / 60
    near(drawing, (calls, work / 1e15, hours, minutes, 100 * mb))


@pytest.mark.parametrize(
    ("words", "name", "batch"), [(CPU, "lens150", 32), (GPU, "lens150-long", 128)]
)
def test_the_speeds_are_those_of_trainings(words: str, name: str, batch: int) -> None:
    """By the seconds and the machine in their cards, and the batch in the text."""
    model = ld.load(name, device="cpu", precision="fp32")
    assert model.spec["recipe"]["train"]["batch"] == batch
    assert ("H200" in model.spec["machine"]) == (words == GPU)
    measured = 3 * cost.flops(model) * model.spec["images_seen"] / model.spec["seconds"]
    assert speed(words) == pytest.approx(measured, rel=0.02)
