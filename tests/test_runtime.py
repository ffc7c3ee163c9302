"""Where a computation runs."""

from __future__ import annotations

import pytest
import torch

from lensdiff import runtime
from lensdiff.errors import ParameterError, TrainingError


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["python", "bin/papermill", "a.ipynb"], True), (["python", "bin/jupyter-lab"], False)],
)
def test_no_progress_bar_under_papermill(
    monkeypatch: pytest.MonkeyPatch, words: list[str], expected: bool
) -> None:
    monkeypatch.delenv("LENSDIFF_QUIET", raising=False)
    monkeypatch.setattr(runtime.psutil.Process, "cmdline", lambda self: words)
    runtime.quiet.cache_clear()
    try:
        assert runtime.quiet() is expected
        assert runtime.progress(total=3).disable is expected
    finally:
        runtime.quiet.cache_clear()


def test_a_precision_can_be_chosen_for_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LENSDIFF_PRECISION", raising=False)
    own = runtime.best_precision("cpu")
    assert own == ("bf16" if runtime.cpu_has_bf16() else "fp32")
    for precision in ("fp32", "bf16", "fp16"):
        monkeypatch.setenv("LENSDIFF_PRECISION", precision)
        assert runtime.best_precision("cpu") == precision
    monkeypatch.setenv("LENSDIFF_PRECISION", "")
    assert runtime.best_precision("cpu") == own
    monkeypatch.setenv("LENSDIFF_PRECISION", "fp8")
    with pytest.raises(
        ParameterError, match=r"^LENSDIFF_PRECISION is 'fp8'\. Set it to 'fp32', 'bf16'"
    ):
        runtime.best_precision()


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_bfloat16_that_a_gpu_only_emulates_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.delenv("LENSDIFF_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert runtime.best_precision("cuda") == expected


@pytest.mark.parametrize(
    "reason",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 1 GB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=str,
)
def test_whatever_says_that_memory_is_short_is_one_sentence(reason: Exception) -> None:
    with (
        pytest.raises(TrainingError, match=r"^The memory of cpu is too small for 9 images\. L"),
        runtime.enough_memory(TrainingError, "9 images", "Less", "cpu"),
    ):
        raise reason


def test_another_error_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(RuntimeError, match="shapes differ"),
        runtime.enough_memory(TrainingError, "9 images", "Less", "cpu"),
        runtime.together(TrainingError),
    ):
        raise RuntimeError("shapes differ")


def test_a_lost_process_is_one_sentence_where_there_are_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match="gloo"), runtime.together(TrainingError):
        raise lost
    monkeypatch.setenv("WORLD_SIZE", "4")
    with (
        pytest.raises(TrainingError, match=r"^Another of the 4 processes has ended"),
        runtime.together(TrainingError),
    ):
        raise lost


def test_a_checkpoint_records_the_gpu_that_trained_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    found = {}
    for device in runtime.DEVICES:
        monkeypatch.setattr(runtime, "best_device", lambda device=device: device)
        found[device] = runtime.processor()
    cpu = f"{runtime.platform.machine()}, {torch.get_num_threads()} threads"
    assert found == {"cuda": f"{cpu}, NVIDIA H100", "mps": f"{cpu}, GPU of a Mac", "cpu": cpu}


def test_the_main_process_alone_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    runtime.once(lambda: done.append("alone"))
    monkeypatch.setenv("RANK", "1")
    runtime.once(lambda: done.append("second"))
    assert done == ["alone"]


def test_one_of_several_gpus_is_chosen_by_cuda_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a run takes the first: a number in the variable would be two devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.best_device("cuda:1") == "cuda:1"
    for wanted in ("cuda:2", "cuda:x", "cpu:1"):
        with pytest.raises(ParameterError, match=f"'{wanted}', which this machine has not"):
            runtime.best_device(wanted)
    monkeypatch.setenv("LENSDIFF_DEVICE", "cuda:1")
    with pytest.raises(ParameterError, match="CUDA_VISIBLE_DEVICES chooses one of several"):
        runtime.best_device()
