"""The benchmark: turns, ratios, contenders that train, and rows that are measured once."""

from __future__ import annotations

import itertools
import re
import subprocess
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from toys_scores import Pooled
from toys_setup import git

from lensdiff import __main__ as command
from lensdiff.data.images import ImageSet, simulated
from lensdiff.errors import ParameterError
from lensdiff.lensing.survey import diverse
from lensdiff.model import Sampling
from lensdiff.notebook.lessons.n11_benchmark import MEASURED
from lensdiff.storage import read_json
from lensdiff.studies import (
    benchmark,
    benchmark_memory,
    benchmark_parts,
    benchmark_whole,
    cost,
    paired,
    peer_quality,
    peer_updates,
    peers,
)
from lensdiff.studies.peer_files import Files
from lensdiff.training import recipes
from lensdiff.training.published import PUBLISHED

ROOT = Path(__file__).resolve().parents[2]
SMALL = benchmark.SMALL


def test_contenders_take_turns() -> None:
    called = []
    works = {name: lambda name=name: called.append(name) for name in "abc"}
    found = paired.alternate(works, 3)
    assert called == list("abc" * 4)  # the first turn is not counted
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3, "c": 3}
    assert min(min(seconds) for seconds in found.values()) >= 0


def test_two_rounds_are_too_few() -> None:
    with pytest.raises(ParameterError, match="2 rounds have no spread"):
        paired.alternate({"a": lambda: None}, 2)


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    found = paired.ratio([4.0, 6.0, 100.0], [1.0, 2.0, 2.0])
    assert (found.median, found.low, found.high) == (3.0, 3.0, 50.0)
    assert str(found) == "3 (3 to 50)"
    # 8 lenses in the seconds in which the other makes 2
    assert paired.ratio([4.0] * 3, [4.0] * 3, per_slow=2, per_fast=8).median == 4


@pytest.mark.parametrize("name", peers.CONTENDERS)
def test_each_contender_trains(name: str) -> None:
    """Two updates have finite losses that differ; of a peer it is the same batch and noise, so
    that its weights have changed. A second one that is built has the same first weights.
    """
    losses = []
    for _ in range(2):
        made = peers.contender(name, 16)
        torch.manual_seed(1)
        first = next(made.updates)
        torch.manual_seed(1)
        second = next(made.updates)
        losses.append([getattr(step, "loss", step) for step in (first, second)])
    assert np.isfinite(losses).all() and losses[0][0] != losses[0][1]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-3)


@pytest.mark.parametrize("name", peers.BUILDERS)
def test_each_peer_trains_behind_a_folding_stem(name: str) -> None:
    """On images of as many channels as a block has pixels; only its first and last layer grow."""
    assert peers.grid(150, 5) == (32, 25) and peers.grid(150) == (152, 1)
    made = peers.folded(name, 64)
    plain = peers.contender(name, 64)
    assert plain.parameters < made.parameters < 1.02 * plain.parameters
    assert np.isfinite(next(made.updates)) and made.draw is None
    assert peers.grid(64, 2) == (32, 4)
    assert plain.draw is not None


def test_ours_without_folding_has_the_weights_of_the_best_published_network() -> None:
    own = peers.contender("ours without folding", 16).parameters
    theirs = peers.contender("denoising-diffusion-pytorch", 16).parameters
    assert own == pytest.approx(theirs, rel=0.02)


def test_sides_are_padded_where_a_peer_needs_it() -> None:
    """150 is no multiple of 8, and a network of four levels has skips of one size."""
    for name in ("denoising-diffusion-pytorch", "diffusers", "azula", "ours without folding"):
        next(peers.contender(name, 20).updates)


def test_a_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match=r"no_such_library is not installed .*make benchmark"):
        peers.library("no_such_library")
    with pytest.raises(ParameterError, match="There is no contender 'x'; there are ours, "):
        peers.contender("x", 16)


def test_the_memory_of_a_larger_image_is_larger() -> None:
    if not Path("/proc/self/status").exists():
        assert benchmark_memory.own_peak("ours", 16) is None
        return
    small, large = (benchmark_memory.peak_bytes("ours without folding", side) for side in (16, 64))
    assert 0 < small < large


@pytest.mark.parametrize(("what", "values"), [("side", (16, 128)), ("batch", (1, 32))])
def test_a_larger_drawing_needs_more_memory(what: str, values: tuple[int, int]) -> None:
    if not Path("/proc/self/status").exists():
        assert benchmark_memory.drawing_peak(what, values[0]) is None
        return
    found = benchmark_memory.drawing(what, values)
    few, many = (one["peak_bytes"] for one in found["measured"])
    weights = 2 * peers.count(recipes.every()["lens64"].denoiser("fp32"))
    assert weights < many < 2e9 and few < many


def test_both_distances_are_the_same_number() -> None:
    found = benchmark_parts.frechet_distance(200, 5, width=48)
    assert found["distances"]["ours"] == pytest.approx(found["distances"]["pytorch-fid"], rel=1e-6)
    assert len(found["seconds"]["ours"]) == 3 and found["error_s"] > 0


def test_files_are_read_as_a_user_reads_them(tmp_path: Path) -> None:
    image = np.arange(12.0).reshape(3, 4)[:3, :3]
    np.save(tmp_path / "a.npy", image[None])
    torch.manual_seed(0)
    files = Files(tmp_path)
    seen = {tuple(files[0].flatten().tolist()) for _ in range(200)}
    assert len(files) == 1 and len(seen) == 8  # flips and turns
    assert all(min(one) == -1 and max(one) == 1 for one in seen)


def test_a_long_time_is_in_hours() -> None:
    assert [benchmark.in_words(m) for m in (1.5, 89, 315)] == [
        "1.5 minutes",
        "89 minutes",
        "5.2 hours",
    ]


def test_rows_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(benchmark.PARTS, "reading", benchmark.Part({"files": SMALL["reading"]}, 1))
    words = ["study", "benchmark", "limits", "reading", "--rounds", "3", "--out", str(tmp_path)]
    assert command.main(words) == 0
    first = read_json(tmp_path / "benchmark.json", "")
    said = capsys.readouterr().out
    assert "About 1.5 minutes on two CPU cores" in said and "rows are stored" not in said
    assert command.main(words) == 0
    assert "minutes" not in (said := capsys.readouterr().out)
    assert "2 of 2 rows are stored, and stay as they are" in said
    assert read_json(tmp_path / "benchmark.json", "") == first
    limits, files = first["rows"]
    assert limits["part"] == "limits" and limits["kind"] == benchmark.kind()
    assert {"torch", "azula", "diffusers"} <= set(limits["versions"]) and limits["machine"]
    assert min(limits["operations_per_s"].values()) > 1e8
    assert set(files["seconds"]) == {"ours", "DataLoader"} and files["first_s"] > 0


@pytest.mark.slow
def test_peers_are_trained_resumed_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run goes on from its state; images of both lengths are scored with their errors."""

    def few(split: str, pixels: int, n: int = 64) -> ImageSet:
        return simulated(diverse(pixels), n, seed=len(split), cache=tmp_path / "cache")

    monkeypatch.setattr(peer_quality, "lenses", few)
    monkeypatch.setattr(peer_quality, "best_precision", lambda: "bf16")  # it is in other names
    monkeypatch.setattr(peer_quality, "SAVE_S", 0)
    monkeypatch.setattr(peers, "WIDTHS", (32,) * 4)
    for module in (peers, peer_updates):
        monkeypatch.setattr(module, "BATCH", 2)
    several = cost.seconds
    monkeypatch.setattr(cost, "seconds", lambda work, repeats=1: several(work, 1))
    slow = peer_quality.image_seconds
    monkeypatch.setattr(peer_quality, "image_seconds", lambda: slow() / 1_000)  # for few calls
    monkeypatch.setattr(peer_quality, "LONG", 3)
    monkeypatch.setattr(peer_quality, "FITTED", 2)
    monkeypatch.setattr(peer_quality, "BUILDERS", {"diffusers": peers.diffusers})
    words = "study benchmark quality --updates 12 -n 24 --out".split()
    words += [str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    made = peers.contender("diffusers", 64)
    place = tmp_path / "work" / f"diffusers-{metadata.version('diffusers')}-12.pt"
    monkeypatch.setattr(peer_quality, "TIMED", 3)
    assert peer_quality.train(made, 5, place)["updates"] == 5
    counted = []
    step = peers.library("diffusers.training_utils").EMAModel.step
    theirs = peers.library("diffusers.training_utils").EMAModel
    monkeypatch.setattr(theirs, "step", lambda self, w: counted.append(1) or step(self, w))
    state = torch.load(place, weights_only=True)
    torch.save({**state, "found": {**state["found"], "updates": 12}}, place)
    assert command.main(words) == 0
    assert len(counted) == 7  # the other five were in the state
    rows = read_json(tmp_path / "out" / "benchmark.json", "")["rows"]
    every = [f"{name}, {how}" for how in peer_quality.WAYS for name in peer_quality.BUILDERS]
    assert [row["row"] for row in rows] == every
    for row in rows:
        assert row["updates"] == 12 and row["images_seen"] == 12 * peers.BATCH
        calls = row["card"]["calls"]
        assert calls == 3 if row["row"].endswith("long") else calls >= 2
        assert min(row["distance_by_weights"].values()) > 0
        assert row["sampler"] == min(row["distance_by_sampler"], key=row["distance_by_sampler"].get)
        assert row["card"]["sampling"].startswith(f"{row['sampler']} in ")
        assert row["card"]["excess_error"] > 0 and row["card"]["distance"] > row["card"]["floor"]
        picture = tmp_path / "out" / "benchmark" / f"{row['row'].replace(', ', '-')}.png"
        assert Image.open(str(picture).replace(" ", "-")).size == (8 * 64, 2 * 64)


@pytest.mark.parametrize("name", peer_quality.BUILDERS)
def test_a_peer_draws_with_its_average_and_with_its_last_weights(name: str) -> None:
    made = peer_quality.BUILDERS[name](16, True, torch.rand(8, 1, 16, 16))
    for _ in range(12):
        next(made.updates)
    drawn = []
    for averaged in (True, False, True):
        torch.manual_seed(0)
        drawn.append(made.draw(2, 3, averaged))
    assert drawn[0].shape == (2, 1, 16, 16) and drawn[0].min() >= 0 and drawn[0].max() <= 1
    assert torch.equal(drawn[0], drawn[2])  # the last weights are back
    assert not torch.equal(drawn[0], drawn[1])
    by_sampler = {}
    for sampler in made.samplers:
        torch.manual_seed(0)
        by_sampler[sampler] = made.draw(2, 4, True, sampler)
        assert by_sampler[sampler].shape == (2, 1, 16, 16)
        assert by_sampler[sampler].isfinite().all()
    each = list(by_sampler.values())
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(each, 2))
    torch.manual_seed(0)
    assert torch.equal(made.draw(2, 4, True), each[0])  # the first, where none is named


def test_ddim_of_diffusers_is_told_the_times_that_it_steps_to() -> None:
    diffusers = pytest.importorskip("diffusers")
    name, spacing = peers.SOLVERS["DDIM"]
    config = diffusers.DDPMScheduler(1000).config
    solver = getattr(diffusers, name).from_config(config, timestep_spacing=spacing)
    solver.set_timesteps(10)
    times = solver.timesteps.tolist()
    assert [t - 1000 // 10 for t in times[:-1]] == times[1:]


def test_the_sampler_nearest_to_the_test_images_is_a_peers_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test = peers.random_images(16, 40)

    seen = []

    def draw(n: int, calls: int, averaged: bool, sampler: str) -> torch.Tensor:
        assert calls == 4
        seen.append((sampler, averaged))
        high = {"far": 0.3, "near": 1.0}[sampler]
        return high * torch.rand(n, 1, 16, 16) - 0.2 * (not averaged)

    made = peers.Contender(1, iter(()), {}, draw, {"far": 1, "near": 1})
    by_weights = peer_quality.weights_by_distance(made, Pooled(2), test, 4, 32)
    assert [sampler for sampler, _ in seen] == ["far", "far"] and peer_quality.better(by_weights)
    seen.clear()
    found = peer_quality.samplers_by_distance(made, Pooled(2), test, 4, 32, by_weights)
    assert seen == [("near", True)]  # the first was drawn before, and with these weights
    assert list(found) == ["far", "near"] and found["near"] < found["far"] == by_weights["average"]


def test_a_peer_that_goes_on_has_new_random_draws(tmp_path: Path) -> None:
    """From two states, and each time other random numbers than at the start."""
    seeds = []

    def updates() -> Iterator[float]:
        while True:
            seeds.append(torch.initial_seed())
            yield 0.0

    place = tmp_path / "peer.pt"
    for done in (3, 5):
        torch.manual_seed(0)
        torch.save({"done": done, "found": {"updates": done + 2}}, place)
        peer_quality.train(peers.Contender(1, updates()), None, place)
    assert seeds == [3, 3, 5, 5]


def test_another_number_of_threads_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "best_device", lambda: "cpu")
    monkeypatch.setattr(benchmark, "cpu_has_bf16", lambda: True)
    kinds = set()
    for threads in (2, 32):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        for precision in ("bf16", "fp32"):
            monkeypatch.setattr(benchmark, "best_precision", lambda precision=precision: precision)
            kinds.add(benchmark.kind())
    assert len(kinds) == 4 and "bf16" in kinds and "fp32" not in kinds  # it was only asked for
    monkeypatch.setattr(benchmark, "cpu_has_bf16", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert benchmark.kind() == "fp32"


def test_what_is_measured_anew_is_trained_anew(tmp_path: Path) -> None:
    stored = benchmark.work_of(Namespace(out=benchmark.studies_folder(), work=None))
    anew = benchmark.work_of(Namespace(out=tmp_path, work=None))
    assert anew.parent == tmp_path and stored != anew
    assert benchmark.work_of(Namespace(out=tmp_path, work=Path("x"))) == Path("x")


def test_a_peer_has_as_much_time_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ours takes three times as long for an update, a peer has three times as many."""
    monkeypatch.setattr(
        peer_quality,
        "alternate",
        lambda works, rounds: {"ours": [3.0, 3.0, 90.0], "peer": [1.0, 1.0, 1.0]},
    )
    found = peer_quality.equal_updates(peers.contender("azula", 16))
    assert found["updates"] == 3 * PUBLISHED["ours"].recipe.train.steps
    assert (found["update_s"], found["ours_update_s"]) == (1.0, 3.0)


@pytest.mark.parametrize("what", benchmark_parts.GROWING)
def test_what_grows_is_measured(what: str) -> None:
    few = {"side": (8, 32), "batch": (1, 8), "width": (16, 64)}
    low, high = benchmark_parts.growth(what, 3, few[what])["measured"]
    assert (low["value"], high["value"]) == few[what]
    assert high["kept_bytes"] > low["kept_bytes"] > 0
    assert len(low["update_s"]) == len(high["call_s"]) == 3 and min(low["call_s"]) > 0
    assert (high["parameters"] > low["parameters"]) == (what == "width")


def test_scores_are_timed_with_as_many_images_as_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = {}
    for name in ("frechet", "frechet_error", "kid", "precision_recall"):

        def counted(a: object, b: object, name: str = name) -> None:
            rows = [len(getattr(x, "rows", x)) for x in (a, b)]
            seen.setdefault(name, []).append(rows)

        monkeypatch.setattr(benchmark_whole.distances, name, counted)
    few, many = (benchmark_whole.scores(n) for n in (32, 256))
    each = 1 + benchmark_whole.REPEATS
    assert len(seen) == 4
    for rows in seen.values():
        assert rows == each * [[32, 32]] + each * [[256, 256]]
    assert (few["n"], many["n"]) == (32, 256) and few["width"] == many["width"] > 1_000
    assert few["features_image_s"] > 0
    assert set(few["score_s"]) == {"distance", "its error", "KID", "precision and recall"}


def test_a_call_is_timed_where_the_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    class Denoiser(torch.nn.Linear):
        def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            devices.append(x.device.type)
            return x

    model = SimpleNamespace(
        denoiser=Denoiser(1, 1, device="meta"), shape=(1, 8, 8), sampling=Sampling(steps=2)
    )
    monkeypatch.setattr(benchmark_parts.models, "load", lambda name: model)
    for name in ("extractor", "reference", "lenses"):
        monkeypatch.setattr(benchmark_parts, name, lambda *_: None)
    monkeypatch.setattr(benchmark_parts.samplers, "score", lambda *_: {"distance": 1.0})
    found = benchmark_parts.calls(1)
    assert set(devices) == {"meta"} and found["call_s"] >= 0


def commit(folder: Path, setup: str) -> None:
    """A repository whose `make setup` is given, and makes a program that draws nothing."""
    folder.mkdir()
    (folder / "Makefile").write_text(f"setup:\n\t{setup}\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        git(*words, folder=folder)


def test_the_time_to_a_first_lens_is_taken_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    takes = {"clone": 5.0, "setup": 300.4, "draw": 0.0123}
    real = subprocess.run

    def timed(words: list, **options: object) -> subprocess.CompletedProcess:
        clock[0] += sum(takes.get(str(word), 0.0) for word in words)
        return real(words, **options)

    made = "mkdir -p .venv/bin; ln -s /bin/true .venv/bin/python"
    own = SimpleNamespace(run=timed)
    monkeypatch.setattr(benchmark_whole, "subprocess", own)
    monkeypatch.setattr(benchmark_whole, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    commit(tmp_path / "good", made)
    found = benchmark_whole.first_lens(tmp_path / "good")["step_s"]
    assert found == pytest.approx({"git clone": 5, "make setup": 300, "draw a lens": 0.0123})
    commit(tmp_path / "bad", "echo there is no network >&2; exit 3")
    with pytest.raises(ParameterError, match="make setup failed: "):
        benchmark_whole.first_lens(tmp_path / "bad")
    with pytest.raises(ParameterError, match="is no checkout of lensdiff"):
        benchmark_whole.first_lens(tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("nothing", "There is no part 'nothing'; there are all, training, "),
        ("limits --rounds 3", "make a trial: give it --out"),
    ],
)
def test_what_can_not_be_is_a_sentence(
    words: str, sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert command.main(["study", "benchmark", *words.split()]) == 1
    assert sentence in capsys.readouterr().err


def test_the_tests_have_what_the_benchmark_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(extras["benchmark"]) < set(extras["test"])
    names = {text.split(">")[0] for text in extras["benchmark"]}
    assert names == {"azula", "denoising-diffusion-pytorch", "diffusers", "lenstronomy"}


def test_every_width_that_grows_is_the_networks_own():
    for width in benchmark_parts.GROWING["width"]:
        plan = recipes.every()[benchmark_parts.MODEL].widened(width)
        assert plan.network["channels"][0] == width


def test_a_part_of_the_page_is_any_but_those_that_need_a_network_or_an_hour() -> None:
    assert {*MEASURED} == {*benchmark.SMALL} == {*benchmark.PARTS} - {benchmark.START}


@pytest.mark.parametrize("name", [name for name in MEASURED if name not in ("growth", "reading")])
def test_every_part_runs_small(name: str) -> None:
    (compute,) = benchmark.measured(name, small=True).values()
    found = benchmark.numbers(compute(3))
    assert found and all(np.isfinite(list(found.values())))
    timed = [value for place, value in found.items() if re.search("seconds|_s|_bytes", place)]
    assert timed and min(timed) > 0


def test_a_short_time_does_not_become_zero() -> None:
    assert cost.significant(4.3219e-3, 3) == 0.00432
    assert cost.significant(19_636.4) == 19_636.0


def test_numbers_of_a_row_are_found_by_their_place() -> None:
    row = {"a": {"b": [3.0, 1.0, 2.0]}, "rows": [{"n": 1}, {"n": 2}], "on": True, "name": "x"}
    assert benchmark.numbers(row) == {"a, b": 2.0, "rows 1, n": 1.0, "rows 2, n": 2.0}


def test_what_needs_a_network_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A machine without one has all other rows by then."""

    def offline(_: int) -> dict:
        raise ParameterError("make setup failed")

    parts = {
        "start": benchmark.Part({"first lens": offline}, 4),
        "limits": benchmark.Part({"machine": lambda _: {"x": 1}}, 1),
    }
    monkeypatch.setattr(benchmark, "PARTS", parts)
    monkeypatch.setattr(peer_quality, "quality", lambda name, how, **_: {"card": how})
    assert command.main(["study", "benchmark", "all", "--out", str(tmp_path)]) == 1
    assert "make setup failed" in capsys.readouterr().err
    rows = read_json(tmp_path / "benchmark.json", "")["rows"]
    ways = len(peer_quality.WAYS) * len(peer_quality.BUILDERS)
    assert [row["part"] for row in rows] == ["limits"] + ["quality"] * ways
