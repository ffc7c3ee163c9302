"""A built wheel, installed into a fresh environment and used from outside the repository."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, pkgutil, importlib, pathlib
import lensdiff as ld
place = pathlib.Path(ld.__file__).resolve()
assert "site-packages" in place.parts, place
names = [m.name for m in pkgutil.walk_packages(ld.__path__, "lensdiff.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
truth = ld.lensing.population.sample_params(2, "mixed", 0, ld.diverse(16))
print(len(names), ld.lensing.simulate.render(truth, ld.diverse(16)).shape)
mirror = os.environ.pop("LENSDIFF_MIRROR")
os.environ["LENSDIFF_MIRROR"] = "file:///no-such-place"
try:
    ld.load("lens64")
except ld.errors.CheckpointError as error:
    print(error)
os.environ["LENSDIFF_MIRROR"] = mirror
print(tuple(ld.load("latent150").draw(1, sampling=ld.Sampling(steps=2)).shape))
assert (place.parent / "notebook" / "template" / "mathjax.js").is_file()
print(ld.storage.cache_folder())
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and the dependencies of this one by path."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: setuptools builds beside what it reads
    shutil.copytree(ROOT / "lensdiff", source / "lensdiff")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    # with the setuptools that torch brought, where it is new enough, and not the newest of today
    fits = importlib.util.find_spec("setuptools") and int(version("setuptools").split(".")[0]) >= 77
    alone = ["--no-build-isolation"] if fits else []
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        *alone,
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True, text=True)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    inner = folder / "venv" / "bin" / "python"
    site = subprocess.run(
        [inner, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    wheel = next(folder.glob("lensdiff-*.whl"))
    unpack = [sys.executable, "-m", "zipfile", "-e", str(wheel), site]
    subprocess.run(unpack, check=True)
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return inner


def test_the_wheel_holds_every_room_and_works_outside_the_repository(
    python: Path, tmp_path: Path
) -> None:
    given = os.environ | {"LENSDIFF_MIRROR": (ROOT / "data" / "checkpoints").as_uri()}
    given |= {"HOME": str(tmp_path), "LENSDIFF_CACHE": ""}
    line = [python, "-I", "-c", PROGRAM]
    run = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=given)
    assert run.returncode == 0, run.stderr[-2000:]
    first, sentence, drawn, cache = run.stdout.strip().splitlines()[-4:]
    assert int(first.split()[0]) == len(list((ROOT / "lensdiff").rglob("*.py"))) - 1
    assert "(2, 16, 16)" in first.replace("torch.Size([2, 16, 16])", "(2, 16, 16)")
    assert "lens64" in sentence and "could not be fetched" in sentence
    assert "Download file:///no-such-place/lens64/spec.json and put it at" in sentence
    assert drawn == "(1, 1, 150, 150)", "weights and autoencoder were fetched"
    assert cache.endswith(".cache/lensdiff")
