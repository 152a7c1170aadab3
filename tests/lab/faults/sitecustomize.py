"""Puts one fault into a real LLaMA-Factory run: found by Python through PYTHONPATH, told what to do by LFDOCTOR_LAB_FAULT (JSON).

{"at": POINT, "do": ACTION, "step": from which optimizer step on, "rank": only this rank, ...}: see POINTS and `strike`.
"once" names a file: the fault strikes one process only, the restarted training is spared. "quota" is a disk that holds so many bytes.
"rows" is a card that holds so many samples at once; "unless" an expression: where config, overrides or variables have it, nothing fails.
LFDOCTOR_LAB_CLOCK=30 makes the wall clock run 30 times too fast: hours of slowness in minutes.
Also names the host `node0`, so that fixtures name no machine, and hides two slow packages from trainings that use neither. Frames of this
file are taken out of consoles by harvest.py.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab_spared import spared, told

FAULT: dict[str, Any] = json.loads(os.environ.get("LFDOCTOR_LAB_FAULT", "{}"))
CLOCK = float(os.environ.get("LFDOCTOR_LAB_CLOCK", "1"))
TRUTH = os.environ.get("LFDOCTOR_LAB_TRUTH")
BF16 = os.environ.get("LFDOCTOR_LAB_BF16")
"""Set: LLaMA-Factory finds a GPU with bf16, as the user has whose run is played here; PyTorch computes bf16 on the CPU too."""
STATE = {"step": 0, "phase": "start", "calls": 0, "injected": 0.0, "save": 0.0, "eval": 0.0, "train": 0.0, "logged": 0.0}

if CLOCK != 1:  # before anybody imports `time` from time
    REAL, BEGAN = time.time, time.time()
    time.time = lambda: BEGAN + (REAL() - BEGAN) * CLOCK
    FINE, FINE_BEGAN = time.perf_counter, time.perf_counter()
    time.perf_counter = lambda: FINE_BEGAN + (FINE() - FINE_BEGAN) * CLOCK

socket.gethostname = lambda: "node0"
socket.getfqdn = lambda name="": "node0"


def hide_what_is_not_used() -> None:
    """bitsandbytes and DeepSpeed cost every start two seconds: as if not installed, unless the config or its overrides name them."""
    if (text := told()) and not re.search(r"quant|[48]bit|bnb|deepspeed", text):
        sys.modules.update({"bitsandbytes": None, "deepspeed": None})


hide_what_is_not_used()


def due(phase: str, args: tuple[Any, ...] = ()) -> bool:
    """Whether the fault is to strike now: right rank, right phase, step reached, not `spared`; `times` limits how often."""
    if FAULT.get("rank") is not None and str(FAULT["rank"]) != os.environ.get("RANK", "0"):
        return False
    if STATE["phase"] != phase or STATE["step"] < FAULT.get("step", 0):
        return False
    if FAULT.get("once") and Path(FAULT["once"]).exists():  # it struck an earlier process
        return False
    if spared(FAULT, args):
        return False
    STATE["calls"] += 1
    skip = FAULT.get("skip", 0)
    return skip < STATE["calls"] <= skip + FAULT.get("times", 10**9)


def error() -> BaseException:
    """The exception to raise: an out-of-memory of the wanted PyTorch generation, or any built-in one."""
    if "oom" in FAULT:
        import torch
        from oom_messages import TYPES, message

        name = TYPES.get(FAULT["oom"], "torch.OutOfMemoryError")
        figures = {"gpu": os.environ.get("LOCAL_RANK", "0"), **FAULT.get("figures", {})}
        kind = {"RuntimeError": RuntimeError, "torch.OutOfMemoryError": torch.OutOfMemoryError}.get(name)
        if kind is None:
            kind = type("OutOfMemoryError", (torch.OutOfMemoryError,), {"__module__": "torch.cuda"})
        return kind(message(FAULT["oom"], **figures))
    kind = getattr(__import__("builtins"), FAULT["raise"])
    return kind(*FAULT.get("args", []))


def strike(value: Any = None) -> Any:
    """Does what the fault says; returns `value`, changed where the fault is about values."""
    action = FAULT["do"]
    if FAULT.get("once"):
        Path(FAULT["once"]).touch()
    if action == "quota":
        used = sum(path.stat().st_size for path in Path(FAULT["folder"]).rglob("*") if path.is_file())
        if used > FAULT["bytes"]:
            raise OSError(28, "No space left on device")
    elif action == "raise":
        raise error()
    if action == "signal":
        os.kill(os.getpid(), FAULT["signal"])
        time.sleep(5)
    elif action == "exit":
        sys.exit(FAULT["code"])
    elif action == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell hands down an ignored SIGINT
        signal.raise_signal(signal.SIGINT)
    elif action == "sleep":
        began = time.monotonic()
        time.sleep(FAULT["seconds"])
        STATE["injected"] += time.monotonic() - began
    elif action == "nan":
        return value * float("nan")
    elif action == "scale":
        return value * FAULT["factor"]
    return value


def before(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
    """`function`, preceded by the fault when it is due."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if due(phase, args):
            strike()
        return function(*args, **kwargs)

    return wrapped


def after(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
    """`function`, its value changed by the fault when it is due."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        return strike(value) if due(phase) else value

    return wrapped


def in_phase(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
    """`function` under a phase name; its wall time goes to the truth file."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        outer, STATE["phase"], began = STATE["phase"], phase, time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            STATE["phase"] = outer
            STATE[phase] = STATE.get(phase, 0.0) + time.monotonic() - began

    return wrapped


def patch(owner: Any, name: str, wrap: Callable[..., Any], phase: str) -> None:
    setattr(owner, name, wrap(getattr(owner, name), phase))


class Engine:
    """Stands for torch's C++ autograd engine."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run_backward(self, *args: Any, **kwargs: Any) -> Any:
        if due("train"):
            strike()
        return self.real.run_backward(*args, **kwargs)


def _forward() -> None:
    import torch

    patch(torch.nn.functional, "linear", before, "train")


def _eval_forward() -> None:
    import torch

    patch(torch.nn.functional, "linear", before, "eval")


def _logits() -> None:
    import torch
    from transformers.loss import loss_utils

    patch(loss_utils.nn.functional, "cross_entropy", before, "train")
    assert torch.nn.functional is loss_utils.nn.functional


def _attention() -> None:
    import torch

    patch(torch.nn.functional, "scaled_dot_product_attention", after if FAULT["do"] in ("nan", "scale") else before, "train")


def _backward() -> None:
    from torch.autograd import graph

    graph.Variable._execution_engine = Engine(graph.Variable._execution_engine)


def _optimizer() -> None:
    import torch

    class Optimizing:
        """torch as the optimizer module sees it, with zeros_like watched."""

        def __getattr__(self, name: str) -> Any:
            return before(torch.zeros_like, "train") if name == "zeros_like" else getattr(torch, name)

    sys.modules["torch.optim.adam"].torch = Optimizing()


def _load() -> None:
    from transformers import core_model_loading

    inner = core_model_loading._materialize_copy

    class Slice:
        """A tensor slice whose move to the device fails."""

        def __init__(self, real: Any) -> None:
            self.real = real

        def __getitem__(self, item: Any) -> Any:
            return self

        def to(self, *args: Any, **kwargs: Any) -> Any:
            if due(STATE["phase"]):
                strike()
            return self.real[...].to(*args, **kwargs)

    # the real function is rebuilt around the failing slice, so that the traceback shows its own lines
    core_model_loading._materialize_copy = lambda tensor, device=None, dtype=None: inner(Slice(tensor), device, dtype)


def _save() -> None:
    import torch

    patch(torch, "save", before, "save")


def _weights() -> None:
    import safetensors.torch

    patch(safetensors.torch, "serialize_file", before, "save")


def _collate() -> None:
    from llamafactory.data import collator

    for name in ("SFTDataCollatorWith4DAttentionMask", "MultiModalDataCollatorForSeq2Seq"):
        patch(getattr(collator, name), "__call__", before, "train")


def _tokenise() -> None:
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor as Processor

    patch(Processor, "_encode_data_example", before, STATE["phase"])


def _step() -> None:
    """The callback of `install` strikes."""


POINTS: dict[str, Callable[[], None]] = {
    "forward": _forward,
    "logits": _logits,
    "attention": _attention,
    "backward": _backward,
    "optimizer": _optimizer,
    "eval": _eval_forward,
    "load": _load,
    "save": _save,
    "weights": _weights,
    "collate": _collate,
    "tokenise": _tokenise,
    "step": _step,
}


def install() -> None:
    """Called once LLaMA-Factory's trainers are imported."""
    import atexit

    from transformers import trainer

    if BF16:
        sys.modules["llamafactory.hparams.parser"].is_torch_bf16_gpu_available = lambda: True

    class Watch(trainer.TrainerCallback):
        """Tells the faults which step it is."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            STATE["step"] = state.global_step
            if FAULT.get("at") == "step" and due("train"):
                strike()

        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            """`logged`: seconds from the first log to the last; `eval`, `save` and `injected` count from there on too."""
            if self.began is None:
                self.began = time.monotonic()
                STATE.update(injected=0.0, save=0.0, eval=0.0)
            STATE["logged"] = time.monotonic() - self.began

        began: float | None = None

    trainer.DEFAULT_CALLBACKS.append(Watch)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # several ranks on the CPU save tensors of the device cpu:0, which torch does not load again; those of cuda:0 it does
        import torch

        torch.serialization.register_package(5, lambda _: None, lambda storage, place: storage if place.startswith("cpu:") else None)
    patch(trainer.Trainer, "_inner_training_loop", in_phase, "train")
    patch(trainer.Trainer, "evaluation_loop", in_phase, "eval")
    patch(trainer.Trainer, "_save_checkpoint", in_phase, "save")
    if FAULT:
        POINTS[FAULT["at"]]()
    if TRUTH:
        atexit.register(_tell)


def _tell() -> None:
    """Seconds really spent: what a diagnosis of slowness is compared with."""
    told = {name: round(value, 3) for name, value in STATE.items() if isinstance(value, float)}
    status = Path("/proc/self/status")
    if status.exists():
        told["address_space_mib"] = int(re.search(r"VmPeak:\s+(\d+)", status.read_text(encoding="utf-8"))[1]) // 1024
    Path(f"{TRUTH}.{os.environ.get('RANK', '0')}").write_text(json.dumps(told), encoding="utf-8")


class Finder(importlib.abc.MetaPathFinder):
    """Runs `install` right after the module that imports every trainer."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "llamafactory.train.tuner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            install()

        spec.loader.exec_module = exec_module
        return spec


if FAULT or TRUTH or BF16:
    sys.meta_path.insert(0, Finder())
