"""A full card: the numbers of every generation of the message, the place in the traceback, and what the config adds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.core.events import ConfigSeen, Crash, Fact, Frame, LogLine, Where
from doctor.core.run import Run
from doctor.detectors.gpu_oom import GpuOom
from doctor.detectors.oom_message import find_head, message_facts
from doctor.detectors.oom_place import place_of

TORCH_25 = (
    "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 3 has a total capacity of 79.15 GiB of which 1.25 GiB is free. Process 11 has "
    "30.00 GiB memory in use. Including non-PyTorch memory, this process has 47.90 GiB memory in use. Of the allocated memory 40.00 GiB is "
    "allocated by PyTorch, with 1.20 GiB allocated in private pools (e.g., CUDA Graphs), and 6.00 GiB is reserved by PyTorch but "
    "unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True."
)
TORCH_21 = (
    "CUDA out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total capacty of 79.15 GiB of which 39.25 MiB is free. Process 1 has "
    "71.02 GiB memory in use. Process 2 has 8.05 GiB memory in use. Of the allocated memory 7.12 GiB is allocated by PyTorch, and "
    "201.53 MiB is reserved by PyTorch but unallocated."
)
TORCH_1 = (
    "CUDA out of memory. Tried to allocate 50.00 MiB (GPU 0; 31.75 GiB total capacity; 5.22 GiB already allocated; 44.69 MiB free; "
    "5.30 GiB reserved in total by PyTorch)"
)
TORCH_10 = (
    "CUDA out of memory. Tried to allocate 512 bytes (GPU 1; 7.93 GiB total capacity; 6.54 GiB already allocated; 21.94 MiB free; "
    "64.30 MiB cached)"
)
NPU = (
    "NPU out of memory. Tried to allocate 386.00 MiB (NPU 2; 60.97 GiB total capacity; 59.57 GiB already allocated; "
    "59.57 GiB current active; 16.54 MiB free; 60.06 GiB reserved in total by PyTorch)"
)
MPS = "MPS backend out of memory (MPS allocated: 11.14 GB, other allocations: 6.65 GB, max allowed: 18.13 GB). Tried to allocate 375.40 MB"
ASYNC = (
    "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 14.06 GiB\n"
    "Requested               : 1.00 GiB\nDevice limit            : 15.99 GiB\nFree (according to CUDA): 0 bytes"
)
MESSAGES: list[tuple[str, dict[str, Any]]] = [
    (TORCH_25, {"wanted_gib": 2.32, "gpu": 3, "others_gib": 30.0, "process_gib": 47.9, "reserved_gib": 6.0, "reserved_over_wanted": 2.586}),
    (TORCH_21, {"process_gib": 8.05, "others_gib": 71.02, "others_share": 0.8973, "generation": "numbers"}),
    (TORCH_1, {"generation": "legacy", "reserved_gib": 0.08, "free_gib": 0.0436, "others_gib": 24.9064}),
    (TORCH_10, {"gpu": 1, "wanted_gib": 0.0, "reserved_gib": 0.0}),
    (NPU, {"device": "npu", "gpu": 2, "reserved_gib": 0.49, "total_gib": 60.97}),
    (MPS, {"device": "mps", "wanted_gib": 0.3496, "others_gib": 6.1933, "total_gib": 16.8849}),
    (ASYNC, {"wanted_gib": 1.0, "total_gib": 15.99, "free_gib": 0.0, "allocated_gib": 14.06}),
    ("CUDA out of memory. Tried to allocate 160.00 MiB. GPU \x01 has a total capacty of 79.15 GiB", {"gpu": 1}),
    ("HIP out of memory. Tried to allocate 124.00 MiB. GPU 0 has a total capacity of 19.94 GiB", {"device": "hip"}),
    ("CUDA error: out of memory", {"device": "cuda", "generation": "bare"}),
]


def line(text: str, number: int = 1, **more: Any) -> LogLine:
    return LogLine(where=Where("log", number), text=text, **more)


def crash(message: str, *frames: tuple[str, str, str], number: int = 9, exception: str = "torch.OutOfMemoryError", **more: Any) -> Crash:
    told = tuple(Frame(file, 1, function, code) for file, function, code in frames)
    return Crash(where=Where("log", number), exception=exception, message=message, frames=told, **more)


def facts(*events: Any) -> dict[str, Any]:
    """The facts of the last match."""
    run, detector = Run(), GpuOom()
    found = []
    for event in events:
        run.apply(event)
        if isinstance(event, LogLine | Crash):
            found += list(detector.feed(event, run))
    return found[-1].facts if found else {}


@pytest.mark.parametrize(("message", "wanted"), MESSAGES)
def test_numbers_of_every_generation(message: str, wanted: dict[str, Any]):
    """Each wording since torch 1.0, and those of other devices, gives its numbers in GiB."""
    told = facts(line(f"RuntimeError: {message}"))
    assert {name: told.get(name) for name in wanted} == wanted


def test_a_message_over_several_lines_is_put_together():
    """A terminal that wrapped the message does not cost its numbers."""
    whole = TORCH_1.split(" ")
    parts = [" ".join(whole[start : start + 7]) for start in range(0, len(whole), 7)]
    told = facts(*(line(part, number) for number, part in enumerate(parts, 1)))
    assert (told["wanted_gib"], told["total_gib"], told["allocated_gib"]) == (0.0488, 31.75, 5.22)


def test_the_second_message_does_not_mix_in():
    """Numbers are one message's; another rank's message only shows that there is another rank."""
    told = facts(line(TORCH_1), line(TORCH_25, 2, rank=3))
    assert (told["wanted_gib"], told["total_gib"]) == (0.0488, 31.75)
    assert told["multi_gpu"] is True


def test_a_traceback_after_the_message_tells_the_place():
    """A logger printed the message first; the traceback below it, even one without its last line, says where."""
    load = ("/x/transformers/modeling_utils.py", "_load_pretrained_model", "set_module_tensor_to_device(model)")
    told = facts(line(TORCH_21), crash("", load, exception=""))
    assert (told["place"], told["phase"], told["wanted_gib"]) == ("load", "load", 0.0625)


def test_a_cut_traceback_alone_is_no_full_card():
    """Without any message nothing is said."""
    assert facts(crash("", ("/x/trainer.py", "training_step", "loss.backward()"), exception="")) == {}


TRAIN = ("/x/transformers/trainer.py", "training_step", "loss = self.compute_loss(model, inputs)")
PLACES = [
    ([TRAIN, ("/x/qwen2/modeling_qwen2.py", "forward", "return self.down_proj(x)")], "forward"),
    ([TRAIN, ("/x/loss_utils.py", "ForCausalLMLoss", "logits = logits.float()")], "logits"),
    (
        [
            TRAIN,
            ("/x/dpo/trainer.py", "concatenated_forward", "all_logits = model(**batch).logits"),
            ("/x/m.py", "block", "self.mlp(x)"),
            ("/x/m.py", "mlp", "x"),
        ],
        "forward",
    ),
    (
        [TRAIN, ("/x/qwen2_vl.py", "forward", "image_embeds = self.visual(pixels)"), ("/x/qwen2_vl.py", "forward", "sdpa(q, k, v)")],
        "vision",
    ),
    ([TRAIN, ("/x/torch/nn/utils/clip_grad.py", "clip_grad_norm_", "norms = foreach_norm(g)")], "forward"),
    ([("/x/trainer.py", "training_step", "self.accelerator.backward(loss)")], "backward"),
    ([("/x/torch/optim/adamw.py", "_init_group", 'state["exp_avg"] = torch.zeros_like(p)')], "optimizer"),
    ([("/x/deepspeed/runtime/zero/stage_1_and_2.py", "__init__", "self.flatten_dense_tensors_aligned(")], "flat_buffer"),
    ([("/x/trainer.py", "evaluation_loop", "self.prediction_step(model)"), ("/x/loss.py", "cross_entropy", "f(logits)")], "eval"),
    ([("/x/trainer.py", "evaluation_loop", "x"), ("/x/trainer_pt_utils.py", "nested_concat", "y")], "gather"),
    ([("/x/trainer.py", "_save_checkpoint", "self.save_model(out)")], "save"),
    ([("/x/llamafactory/model/adapter.py", "_setup_lora_tuning", "model = model.merge_and_unload()")], "merge"),
    ([("/x/dpo/workflow.py", "run_dpo", "ref_model = create_ref_model(args)"), ("/x/loader.py", "load_model", "y")], "reference"),
    ([("/x/utils/data/_utils/pin_memory.py", "do_one_step", "data = pin_memory(data)")], "pinned"),
    ([("/x/main.py", "main", "go()")], None),
]


@pytest.mark.parametrize(("frames", "place"), PLACES)
def test_the_place_in_the_traceback(frames: list[tuple[str, str, str]], place: str | None):
    """What encloses the failing call decides for saving, evaluating, loading and stepping, the innermost frames for logits."""
    assert place_of(tuple(Frame(file, 1, function, code) for file, function, code in frames)) == place


STEP = ("/x/torch/optim/adamw.py", "_init_group", 'state["exp_avg"] = torch.zeros_like(p)')
LOSS = ("/x/loss_utils.py", "ForCausalLMLoss", "logits = logits.float()")
BACKWARD = ("/x/trainer.py", "training_step", "self.accelerator.backward(loss)")


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [(TRAIN, STEP, "optimizer"), (BACKWARD, LOSS, "logits"), (STEP, TRAIN, "optimizer"), (LOSS, STEP, "logits")],
)
def test_a_second_traceback_can_only_make_the_place_more_precise(first, second, place):
    """Forward and backward stand in every traceback of a step and give way to a later place; any other place stays."""
    assert facts(crash(TORCH_21, first), crash(TORCH_21, second, number=40))["place"] == place


def test_what_the_config_adds():
    """Weights by the model's name and the quantisation, their share of all cards, and a request that no logits could need."""
    config = ConfigSeen(
        where=Where("train.yaml", 1),
        values={"model_name_or_path": "Qwen/Qwen2.5-72B-Instruct", "per_device_train_batch_size": 1, "cutoff_len": 1024},
    )
    world = Fact(where=Where("log", 1), name="world_size", value=4)
    told = facts(config, world, line(TORCH_25))
    assert told["weights_gib"] == pytest.approx(134.1, abs=0.1)
    assert told["weights_share"] == pytest.approx(134.1 / 79.15 / 4, abs=0.01)
    assert told["request_over_logits"] is True
    small = ConfigSeen(where=Where("train.yaml", 1), values={"model_name_or_path": "/models/Mixtral-8x7B", "quantization_bit": 4})
    told = facts(small, line(TORCH_25))
    assert (told["weights_gib"], told["request_over_logits"]) == (pytest.approx(31.3, abs=0.1), False)


def test_a_request_as_large_as_the_model():
    """A block of 2 or 4 bytes a parameter is the whole model at once."""
    config = ConfigSeen(where=Where("train.yaml", 1), values={"stage": "sft"})
    parameters = Fact(where=Where("log", 1), name="model.params", value=7_615_616_512)
    assert facts(config, parameters, line("CUDA out of memory. Tried to allocate 14.19 GiB."))["request_is"] == "parameters"
    assert "request_is" not in facts(config, parameters, line("CUDA out of memory. Tried to allocate 13.19 GiB."))


@pytest.mark.parametrize(
    "text",
    [
        "Tip: if you run out of memory, lower the batch size",
        "kernel: Memory cgroup out of memory: Killed process 42 (python)",
        "Out of memory: Killed process 42 (python3)",
        "RuntimeError: DataLoader worker is out of shared memory",
    ],
)
def test_other_words_about_memory_are_not_a_full_card(text: str):
    """Hints, and the host's memory, are somebody else's."""
    assert facts(line(text)) == {}


@given(st.lists(st.text(alphabet="CUDAout of memory. Tried 0123456789.GMiB(;)\x00\n", max_size=200), max_size=6))
def test_no_text_breaks_it(texts: list[str]):
    """Whatever a log holds, the detector answers or stays silent; it never raises."""
    facts(*(line(f"CUDA out of memory. {text}", number) for number, text in enumerate(texts, 1)))


OWN = "Including non-PyTorch memory, this process has 19.40 GiB memory in use. "


def _largest_other(listed: str, wanted: str = "3.78 GiB", own: str = OWN) -> dict[str, Any]:
    text = (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {wanted}. GPU 0 has a total capacity of 23.69 GiB of which "
        f"875.62 MiB is free. {listed}{own}Of the allocated memory 17.97 GiB is allocated by PyTorch, and 1.02 GiB is reserved by PyTorch "
        "but unallocated."
    )
    head = find_head(text)
    facts = message_facts(text, head) if head else {}
    return {name: value for name, value in facts.items() if name.startswith("other_")}


def test_another_process_is_named_with_what_it_holds() -> None:
    """Its id and size, and whether they would have been enough: 3.21 + 0.86 GiB are more than 3.78, not more than 6."""
    listed = "Process 4928 has 3.21 GiB memory in use. Process 77 has 402.00 MiB memory in use. "
    assert _largest_other(listed) == {"other_pid": 4928, "other_gib": 3.21, "other_enough": True}
    assert _largest_other(listed, "6.00 GiB") == {"other_pid": 4928, "other_gib": 3.21, "other_enough": False}


def test_a_context_or_an_unnamed_process_is_no_other_one() -> None:
    """Contexts of sibling ranks are small; where the message does not tell this process apart, any listed one may be it."""
    assert _largest_other("Process 77 has 402.00 MiB memory in use. ") == {}
    assert _largest_other("Process 4928 has 21.50 GiB memory in use. ", own="") == {}
