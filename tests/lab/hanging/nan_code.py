"""Code as users add it to a training that makes a value non-finite: through one sample, one weight, or one module. Nothing knows lfdoctor.

The bad sample holds an `@`, which no other sample does. `struck-once` of the last cases: a fault of the machine, which does not come back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

NOW: dict[str, Any] = {"step": 0, "ids": None, "marker": None}
NAN, INF = float("nan"), float("inf")


class BadGradient(torch.autograd.Function):
    """The identity, whose gradient is not a number."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor, rows: Any) -> torch.Tensor:
        context.rows = rows
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> Any:
        bad = gradient.clone()
        bad[slice(None) if context.rows is None else context.rows] = NAN
        return bad, None


def named(model: Any, ending: str) -> Any:
    """The module whose name ends so, inside LoRA's wrapper or not."""
    return next(module for name, module in model.named_modules() if name.endswith(ending))


def marked_rows() -> Any:
    """Which rows of the current batch hold the bad sample; None without one."""
    ids = NOW["ids"]
    rows = (ids == NOW["marker"]).any(1) if ids is not None else None
    return rows if rows is not None and bool(rows.any()) else None


def changed(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


class Fault(TrainerCallback):
    """Puts the fault into the model at the beginning of the training."""

    def __init__(self, begin: Callable[[Any], None], at_step: Callable[[int, Any, Any], None] = lambda *_: None) -> None:
        self.begin, self.at_step = begin, at_step

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **rest: Any) -> None:
        NOW["marker"] = processing_class("@", add_special_tokens=False)["input_ids"][-1]

        def before(module: Any, arguments: Any, keywords: Any) -> None:
            NOW["ids"] = keywords.get("input_ids")

        model.register_forward_pre_hook(before, with_kwargs=True)
        self.begin(model)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **rest: Any) -> None:
        NOW["step"] = state.global_step + 1
        self.at_step(NOW["step"], model, optimizer)


def sample_in(ending: str, value: float = NAN) -> list[TrainerCallback]:
    """The module's output of the rows with the bad sample."""

    def begin(model: Any) -> None:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            rows = marked_rows()
            if rows is None:
                return None
            return changed(output, lambda tensor: torch.where(rows.view(-1, *[1] * (tensor.dim() - 1)), value, tensor))

        named(model, ending).register_forward_hook(hook)

    return [Fault(begin)]


def sample_backward(ending: str) -> list[TrainerCallback]:
    def begin(model: Any) -> None:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            rows = marked_rows()
            return changed(output, lambda tensor: BadGradient.apply(tensor, rows)) if rows is not None and torch.is_grad_enabled() else None

        named(model, ending).register_forward_hook(hook)

    return [Fault(begin)]


def weight(ending: str, step: int, value: float = NAN) -> list[TrainerCallback]:
    """One element of a parameter, before a step."""

    def at_step(now: int, model: Any, optimizer: Any) -> None:
        if now == step:
            parameter = next(one for name, one in model.named_parameters() if name.endswith(ending))
            with torch.no_grad():
                parameter.view(-1)[3] = value

    return [Fault(lambda model: None, at_step)]


def optimizer_state(step: int) -> list[TrainerCallback]:
    """One element of Adam's first moment of the first trained parameter, before a step."""

    def at_step(now: int, model: Any, optimizer: Any) -> None:
        if now == step:
            first = optimizer.param_groups[0]["params"][0]
            inner = getattr(optimizer, "optimizer", optimizer)
            inner.state[first]["exp_avg"].view(-1)[0] = NAN

    return [Fault(lambda model: None, at_step)]


def module(ending: str, step: int, value: float = NAN, once: bool = False) -> list[TrainerCallback]:
    """The module's output, whatever the batch."""

    def begin(model: Any) -> None:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            if NOW["step"] < step or (once and Path("struck-once").exists()):
                return None
            if once:
                Path("struck-once").touch()
            return changed(output, lambda tensor: tensor + value)

        named(model, ending).register_forward_hook(hook)

    return [Fault(begin)]


def module_backward(ending: str, step: int) -> list[TrainerCallback]:
    def begin(model: Any) -> None:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            if NOW["step"] < step or not torch.is_grad_enabled():
                return None
            return changed(output, lambda tensor: BadGradient.apply(tensor, None))

        named(model, ending).register_forward_hook(hook)

    return [Fault(begin)]


NANS: dict[str, Callable[[], list[TrainerCallback]]] = {
    "nan-sample-embedding": lambda: sample_in("embed_tokens"),
    "nan-sample-attention": lambda: sample_in("layers.1.self_attn"),
    "nan-sample-overflow": lambda: sample_in("layers.0.mlp", INF),
    "nan-sample-single": lambda: sample_in("layers.1.mlp.gate_proj"),
    "nan-sample-head": lambda: sample_in("lm_head"),
    "nan-sample-norm": lambda: sample_in("layers.0.input_layernorm"),
    "nan-sample-backward": lambda: sample_backward("layers.1.mlp"),
    "nan-weight-base": lambda: weight("layers.0.self_attn.q_proj.base_layer.weight", 5),
    "nan-weight-lora-a": lambda: weight("layers.1.mlp.up_proj.lora_A.default.weight", 6),
    "nan-weight-lora-b": lambda: weight("layers.0.self_attn.v_proj.lora_B.default.weight", 3),
    "nan-weight-embedding": lambda: weight("embed_tokens.weight", 4),
    "nan-weight-norm": lambda: weight("layers.1.post_attention_layernorm.weight", 7, INF),
    "nan-weight-optimizer": lambda: optimizer_state(5),
    "nan-module-attention": lambda: module("layers.0.self_attn", 6),
    "nan-module-down": lambda: module("layers.1.mlp.down_proj", 4),
    "nan-module-norm": lambda: module("layers.0.input_layernorm", 7, INF),
    "nan-module-final": lambda: module("model.norm", 5),
    "nan-module-head": lambda: module("lm_head", 3),
    "nan-module-backward": lambda: module_backward("layers.1.self_attn.o_proj", 6),
    "nan-module-backward-gate": lambda: module_backward("layers.0.mlp.gate_proj", 5),
    "nan-once": lambda: module("layers.0.mlp", 5, once=True),
    "nan-never": list,
}


def install(name: str) -> list[TrainerCallback]:
    """Put the case in place; callbacks for run_exp."""
    return list(NANS[name]())
