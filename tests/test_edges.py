"""Numbers at the edge, nothing to work on, and what a broken-off run leaves behind."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import small_unet
from toys_scores import Pooled, small_model

from lensdiff import __main__ as command
from lensdiff.data import folders
from lensdiff.data.images import simulated
from lensdiff.diffusion.process import Denoiser
from lensdiff.errors import DataError, MetricError, ParameterError, SamplingError, StorageError
from lensdiff.lensing import measure
from lensdiff.lensing.survey import diverse, model_i
from lensdiff.networks.classifier import evaluating
from lensdiff.notebook import files, helpers, plan, runner
from lensdiff.scores.memorisation import nearest
from lensdiff.scores.statistics import Statistics
from lensdiff.storage import checkpoints
from lensdiff.studies import gallery_page, physics, recipes, samplers, table, train

# ---- the denoiser --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["eps", "v", "flow", "edm"])
def test_an_image_without_noise_is_its_own_denoised_one(name: str) -> None:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(Denoiser(small_unet(), name)(x, 0.0), x)
        guess = Denoiser(small_unet(), "x0")(x, 0.0)
    assert guess.isfinite().all()


@pytest.mark.parametrize("name", ["edm", "v"])
def test_half_precision_does_not_overflow_at_high_noise(name: str) -> None:
    denoiser = Denoiser(small_unet(), name)
    x = 300 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = denoiser(x.half().float(), 300.0)
        found = denoiser(x.half(), 300.0)
    assert found.dtype == torch.float16 and expected.abs().max() > 0.1
    assert torch.allclose(found.float(), expected, atol=1e-2)


@pytest.mark.parametrize("label", [[7], [-1], [0.0], [[0], [1]]])
def test_labels_that_the_network_can_not_take_are_named(tmp_path: Path, label: list) -> None:
    model = small_model(tmp_path / "m", classes=2)
    drawn = model.generate(range(len(label)), label=torch.tensor(label))
    with pytest.raises(SamplingError, match=r"takes whole numbers .*0 to 1"):
        next(drawn)


def test_guidance_needs_a_label(tmp_path: Path) -> None:
    model = small_model(tmp_path / "m", classes=2)
    with pytest.raises(SamplingError, match="Guidance leads to what a label asks for"):
        model.draw(1, guidance=2.0)
    assert model.draw(1, label=1, guidance=2.0).shape == (1, *model.shape)


def test_a_frozen_part_stays_frozen_after_an_error() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Dropout())
    net.train()
    net[0].eval()
    with pytest.raises(ZeroDivisionError), evaluating(net):
        assert not any(part.training for part in net.modules())
        raise ZeroDivisionError
    assert [part.training for part in net.modules()] == [True, False, True]


# ---- surveys, images, scores ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shear", 0.05),
        ("exposure_s", (0, 10)),
        ("source_amplitude_cps", (0, 0)),
        ("lens_axis_ratio", (0, 0)),
        ("source_offset", (0.5, 0.1)),
        ("lens_angle_rad", (0, math.inf)),
        ("pixel_arcsec", math.nan),
        ("background_rms_cps", -1),
    ],
)
def test_a_survey_refuses_what_can_not_be_drawn(field: str, value: object) -> None:
    with pytest.raises(ParameterError, match=r"Survey 'diverse'.*(give|positive)"):
        diverse(16, **{field: value})


@pytest.mark.parametrize("survey", [diverse, model_i])
def test_a_survey_without_pixels_is_a_sentence(survey: object) -> None:
    with pytest.raises(ParameterError, match="pixels must be 8 or more"):
        survey(0)


def test_a_list_is_a_pair_and_a_seed_is_not_negative() -> None:
    assert diverse(16, shear=[0, 0.1]).shear == (0, 0.1)
    assert hash(diverse(16, shear=[0, 0.1])) == hash(diverse(16, shear=(0, 0.1)))
    with pytest.raises(ParameterError, match="seed must not be negative, got 2 and -1"):
        simulated(diverse(16), 2, seed=-1)


def test_nothing_to_measure_or_to_compare_is_a_sentence() -> None:
    none = np.zeros((0, 1, 32, 32), np.float32)
    some = np.random.default_rng(0).random((3, 1, 32, 32), np.float32)
    with pytest.raises(MetricError, match=r"\(0, 1, 32, 32\)"):
        measure.measure(none, 0.1)
    for images, training in ((none, some), (some, none), (some * math.nan, some)):
        with pytest.raises(MetricError, match="Give images of finite pixels"):
            nearest(images, training)
    empty = Statistics(3)
    empty.join(Statistics(3))
    assert empty.n == 0 and np.isfinite(empty.mean).all()


def test_a_file_whose_span_overflows_is_named(tmp_path: Path) -> None:
    image = np.zeros((16, 16), np.float32)
    np.save(tmp_path / "a.npy", image + np.eye(16, dtype=np.float32))
    image[0] = 3e38, -3e38, *[0] * 14
    np.save(tmp_path / "b.npy", image)
    with pytest.raises(DataError, match=r"b\.npy: its image is not finite.* Leave it out"):
        folders.folder(tmp_path, cache=tmp_path / "cache")


def test_a_download_to_where_nothing_can_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(DataError, match=r"could not be downloaded .*put it at"):
        folders.download("an-id", tmp_path / "notes" / "lenses.zip")


# ---- what is left behind, and where results go ---------------------------------------------------


def test_a_page_half_written_is_no_page(tmp_path: Path) -> None:
    names = ("03_training.ipynb", "03_training.77-0123abcd.part.ipynb", "04_v1.2.ipynb")
    for name in names:
        (tmp_path / name).write_text("{}")
    assert [page.name for page in files.series(tmp_path)] == [names[0], names[2]]


def test_what_a_killed_save_left_is_no_shipped_model(tmp_path: Path) -> None:
    for name in ("lens64", "lens64.12-0123abcd.part", "lens64.12-0123abcd.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.json").write_text("{}")
    assert list(checkpoints.described(tmp_path)) == ["lens64"]


def test_a_run_that_is_broken_off_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [SimpleNamespace(path=Path(f"{k:02}_page.ipynb"), stamp=f"new {k}") for k in range(2)]
    record = tmp_path / "status.json"
    record.write_text(json.dumps({"00_page": "old", "01_page": "old", "02_page": "old"}))

    def broken_off(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "execute", broken_off)
    with pytest.raises(KeyboardInterrupt):
        runner.run_chain(jobs[1:], tmp_path, in_place=False)
    assert json.loads(record.read_text()) == {"00_page": "old"}


def test_a_page_that_can_not_keep_its_results_says_which_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").write_text("mine")
    monkeypatch.setenv("LENSDIFF_RUNS", str(tmp_path / "notes"))
    with pytest.raises(StorageError, match="Set LENSDIFF_RUNS to a folder"):
        helpers.results("smoke", "03")


def test_a_long_text_is_no_file(tmp_path: Path) -> None:
    assert plan.listings(tmp_path, {"note": "x" * 5_000}) == []


def test_what_a_file_of_windows_can_not_hold_is_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        command.main(["--help"])
    print("σ of ᾱ")
    out.flush()
    assert out.buffer.getvalue().splitlines()[-1] == b"? of ?"


def test_a_table_keeps_the_machine_that_computed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "table.json"
    for name in ("first", "second"):
        monkeypatch.setattr(table, "machine", lambda name=name: name)
        made = table.Table(place, {"n": 1})
        made.row({"name": "a"}, lambda: {"value": 1})
        made.write(floor=2.0)
        assert json.loads(place.read_text())["machine"] == "first"
    made.row({"name": "b"}, lambda: {"value": 3})
    assert json.loads(place.read_text())["machine"] == "second"


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("x86_64, 16 threads, NVIDIA H200", "an NVIDIA H200"),
        ("NVIDIA H200", "an NVIDIA H200"),
        ("arm64, 8 threads, GPU of a Mac", "the GPU of a Mac"),
        ("x86_64, 1 threads", "one CPU core"),
        ("x86_64, 2 threads", "two CPU cores"),
        ("x86_64, 16 threads", "16 CPU cores"),
    ],
)
def test_the_gallery_says_where_a_model_learnt(machine: str, words: str) -> None:
    assert gallery_page._where(machine) == words


# ---- what is refused before hours are spent, or what is shipped is replaced ----------------------


def test_a_shipped_models_light_is_not_replaced_by_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = np.random.default_rng(0).random((4, 1, 16, 16), np.float32)
    model = SimpleNamespace(folder=tmp_path, telescope="any", spec={"sha256": "a"}, draw=None)
    monkeypatch.setattr(physics, "lens_model", lambda *_: model)
    monkeypatch.setattr(physics, "lenses", lambda *_: SimpleNamespace(pixels=few))
    monkeypatch.setattr(physics.light, "stored", lambda _model, n: few[:n])
    monkeypatch.setattr(physics, "is_shipped", lambda folder: folder == tmp_path)
    args = SimpleNamespace(models=["a"], n=9, light=9, out=tmp_path / "out")
    with pytest.raises(ParameterError, match=r"a: 4 of 9 .*measure a copy of its folder"):
        physics.run(args)


def test_a_backbones_weights_beside_a_start_are_refused(tmp_path: Path) -> None:
    words = ["train", "lensnet", str(tmp_path / "m"), "--start", "lensnet", "--weights", "a.pth"]
    with pytest.raises(ParameterError, match=r"--start lensnet has weights .* Leave --weights out"):
        train.run(command.parser_for(words).parse_args(words))


def test_pictures_without_an_error_bar_are_refused_before_a_training(tmp_path: Path) -> None:
    words = ["study", "recipes", "ddpm", "--own", "4", "--out", str(tmp_path)]
    args = command.parser_for(words).parse_args(words)
    with pytest.raises(ParameterError, match="--own 4: an error bar needs 8"):
        recipes.run(args)


def test_the_time_of_a_thousand_steps_is_taken_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def timings(_model: object, thousand: bool) -> list[dict]:
        taken.append(thousand)
        return [{"calls": calls} for calls in ((1_000, 35) if thousand else (35,))]

    monkeypatch.setattr(samplers, "timings", timings)
    monkeypatch.setattr(samplers, "extractor", lambda *_: Pooled(2))
    monkeypatch.setattr(samplers, "lenses", lambda *_: simulated(diverse(16), 40, 0))
    monkeypatch.setenv("LENSDIFF_CACHE", str(tmp_path / "cache"))
    folder = small_model(tmp_path / "m").folder
    for thousand in (False, False, True, True, False):
        samplers.sweep(str(folder), 16, (3,), 0, False, thousand)
    assert taken == [False, True]
