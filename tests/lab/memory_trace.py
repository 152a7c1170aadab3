"""Counts the live bytes of real training steps without memory or GPU: transformers, peft and LLaMA-Factory's set-up on fake tensors.

Runs in the lab's environment: one JSON list of cases on standard input, one JSON line a case on standard output. A case is
{"name", "hf": config of the model, "config": LLaMA-Factory options, "length", "padded"}. What is real: the model code, autograd, autocast
(CPU's stands in for CUDA's), adapters, casts and checkpointing as LLaMA-Factory 0.9.5 sets them up, the DPO log-probabilities, the
optimizer. What stands in: 4-bit linears (packed weights that are unpacked at use, as bitsandbytes does).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import warnings
import weakref
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_iter  # noqa: E402

ALLOCATION = 512  # CUDA's allocator hands out multiples of this


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages alive, their peak, and the peak of each phase."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = 0
        self.phase = "load"
        self.peaks: dict[str, tuple[int, str]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        if self.now > self.peaks.get(self.phase, (0, ""))[0]:
            self.peaks[self.phase] = (self.now, str(func))
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
            self.now += self.sizes[key]
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class Unpack(torch.autograd.Function):
    """A product with a weight that exists in 16 bits only while it is used."""

    @staticmethod
    def forward(ctx, x, linear):
        ctx.linear, ctx.dtype = linear, x.dtype
        return nn.functional.linear(x, linear.unpacked())

    @staticmethod
    def backward(ctx, grad):
        return (grad @ ctx.linear.unpacked()).to(ctx.dtype), None


class Linear4(nn.Linear):
    """Stands in for bitsandbytes' nf4 linear with double quantisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = inputs, outputs, None
        count = inputs * outputs
        for name, size, dtype in (
            ("codes", count // 2, torch.uint8),
            ("scales", count // 64, torch.uint8),
            ("scales_of_scales", count // 16384, torch.float32),
        ):
            setattr(self, name, nn.Parameter(torch.empty(size, dtype=dtype), requires_grad=False))
        self.weight = torch.empty(0)

    def unpacked(self) -> torch.Tensor:
        return torch.empty(self.out_features, self.in_features, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Unpack.apply(x.to(torch.bfloat16), self)


class FusedNorm(torch.autograd.Function):
    """What Liger's RMSNorm keeps and writes over (ops/rms_norm.py): the input, and its gradient over the output's."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight, torch.empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        return grad, torch.empty_like(ctx.saved_tensors[1])


class FusedProduct(torch.autograd.Function):
    """silu(gate) * up as Liger does it (ops/swiglu.py): keeps both, writes their gradients over them."""

    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return torch.empty_like(gate)

    @staticmethod
    def backward(ctx, grad):
        return ctx.saved_tensors


class FusedLoss(torch.autograd.Function):
    """Head and loss as Liger does them, chunk by chunk, gradients made in forward (ops/fused_linear_cross_entropy.py)."""

    @staticmethod
    def forward(ctx, x, weight):
        tokens, chunks = x.shape[0], -(-weight.shape[0] // x.shape[1])
        size = 1 << (-(-tokens // chunks) - 1).bit_length()
        grad = torch.zeros_like(x)
        grad_weight = torch.zeros_like(weight) if weight.requires_grad else None
        for start in range(0, tokens, size):
            part = x[start : start + size]
            logits = part @ weight.t()
            grad[start : start + size] = logits @ weight
            if grad_weight is not None:
                grad_weight += torch.mm(logits.t(), part).float()
        ctx.save_for_backward(grad, grad_weight)
        return x.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad):
        return ctx.saved_tensors


def fuse(model: nn.Module) -> None:
    """Llama with Liger's kernels; triton itself needs a GPU."""
    from transformers.models.llama import modeling_llama as llama

    for module in model.modules():
        if isinstance(module, llama.LlamaRMSNorm):
            module.forward = lambda x, module=module: FusedNorm.apply(x, module.weight)
        if isinstance(module, llama.LlamaMLP):
            module.forward = lambda x, m=module: m.down_proj(FusedProduct.apply(m.gate_proj(x), m.up_proj(x)))
    llama.apply_rotary_pos_emb = lambda q, k, cos, sin, **rest: (q, k)


def cuda_dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """CUDA's dropout keeps a mask of one byte an element; CPU's would keep one as wide as its input."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def cuda_log_softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """CUDA's log-softmax makes its input contiguous first (SoftMax.cu, host_softmax), unseen by a dispatch mode."""
    return torch.log_softmax(x.contiguous(), dim)


def load(case: dict[str, Any], *, frozen: bool = False) -> nn.Module:
    """The model as LLaMA-Factory loads it: 16-bit weights, 4-bit linears where asked."""
    raw = dict(case["hf"])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw, use_cache=False)
    config._attn_implementation = case.get("attention", "sdpa")
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(default)
    if case["config"].get("quantization_bit") == 4 and not frozen:
        for name, module in list(model.model.layers.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, own = name.rpartition(".")
                setattr(model.model.layers.get_submodule(parent), own, Linear4(module.in_features, module.out_features))
        del module
        gc.collect()
    return model.requires_grad_(False) if frozen else model


def prepare(model: nn.Module, options: dict[str, Any]) -> nn.Module:
    """Checkpointing, adapters and casts by LLaMA-Factory's own functions."""
    import peft.tuners.tuners_utils as tuners
    from llamafactory.model.adapter import init_adapter
    from llamafactory.model.model_utils.checkpointing import prepare_model_for_training

    arguments = SimpleNamespace(
        adapter_name_or_path=None,
        resize_vocab=False,
        use_kt=False,
        use_unsloth=False,
        upcast_layernorm=False,
        upcast_lmhead_output=False,
        use_unsloth_gc=False,
        use_reentrant_gc=options.get("use_reentrant_gc", True),
        disable_gradient_checkpointing=options.get("disable_gradient_checkpointing", False),
        quantization_bit=options.get("quantization_bit"),
    )
    prepare_model_for_training(model, arguments)
    tuning = finetuning_arguments(options)
    tuners.BaseTunerLayer._move_adapter_to_device_of_base_layer = lambda self, *args, **kwargs: None
    to, nn.Module.to = nn.Module.to, lambda self, *args, **kwargs: self  # peft moves modules to the device they are on: fake tensors cannot
    try:
        return init_adapter(model.config, model, arguments, tuning, is_trainable=True)
    finally:
        nn.Module.to = to


def finetuning_arguments(options: dict[str, Any]) -> Any:
    """LLaMA-Factory's own argument class."""
    from llamafactory.hparams import FinetuningArguments

    names = ("stage", "finetuning_type", "lora_rank", "lora_target", "lora_dropout", "use_dora", "additional_target", "pure_bf16")
    names += ("freeze_trainable_layers", "pref_loss")
    return FinetuningArguments(**{name: options[name] for name in names if name in options})


def optimizer_of(model: nn.Module, options: dict[str, Any]) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.get("optim") == "sgd":
        return torch.optim.SGD(trained, lr=1e-4)
    together = options.get("optim") == "adamw_torch"
    return torch.optim.AdamW(trained, lr=1e-4, foreach=together, fused=not together)


class Step:
    """One training step of a stage, phase by phase."""

    def __init__(self, case: dict[str, Any], live: LiveBytes | SimpleNamespace, device: str = "cpu") -> None:
        self.case, self.options, self.live, self.device = case, case["config"], live, device
        stage = self.options.get("stage", "sft")
        self.sequences = self.options["per_device_train_batch_size"] * (2 if stage in ("dpo", "rm") else 1)
        length = case["length"]
        self.ids = torch.zeros(self.sequences, length, dtype=torch.long)
        self.mask = torch.ones(self.sequences, 1, length, length, dtype=torch.bool) if case.get("padded") else None
        model = load(case)
        if self.options.get("enable_liger_kernel"):
            fuse(model)
        self.model = prepare(model, self.options)
        del model
        self.reference = load(case, frozen=True) if stage == "dpo" and self.options["finetuning_type"] != "lora" else None
        self.model.train()
        self.optimizer = optimizer_of(self.model, self.options)
        gc.collect()

    def __call__(self) -> None:
        self.live.phase = "forward"
        amp = torch.autocast(self.device, dtype=torch.bfloat16) if self.options.get("bf16") else contextlib.nullcontext()
        with amp:
            loss = self._loss()
        self.live.phase = "backward"
        loss.backward()
        del loss
        self.live.phase = "clip"
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self.live.phase = "optimizer"
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self) -> torch.Tensor:
        if self.options.get("stage") == "dpo":
            return self._preference_loss()
        if self.options.get("enable_liger_kernel"):
            causal = self.model.base_model.model if hasattr(self.model, "peft_config") else self.model
            hidden = causal.model(input_ids=self.ids, attention_mask=self.mask).last_hidden_state
            return FusedLoss.apply(hidden.view(-1, hidden.shape[-1]), causal.lm_head.weight)
        return self.model(input_ids=self.ids, attention_mask=self.mask, labels=self.ids.clone()).loss

    def _preference_loss(self) -> torch.Tensor:
        """What DPOTrainer.get_batch_loss_metrics keeps alive: the policy's logits while the reference runs."""
        kept, policy = self._log_probabilities(self.model)
        loss = policy.sum()
        if self.options.get("pref_loss", "sigmoid") == "sigmoid":
            adapted = self.reference is None
            with torch.no_grad(), self.model.disable_adapter() if adapted else contextlib.nullcontext():
                _, told = self._log_probabilities(self.model if adapted else self.reference)
            loss = (policy - told).sum()
        kept[0].mean()
        return loss

    def _log_probabilities(self, model: nn.Module) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        from llamafactory.train.trainer_utils import get_batch_logps

        logits = model(input_ids=self.ids.clone(), attention_mask=self.mask, return_dict=True, use_cache=False).logits.to(torch.float32)
        return logits.split(self.sequences // 2), get_batch_logps(logits=logits, labels=self.ids)[0]


def trace(case: dict[str, Any]) -> dict[str, Any]:
    """Bytes at the peak of the second step (the optimizer's states exist from then on), and the peak of each phase."""
    live = LiveBytes()
    with FakeTensorMode(allow_non_fake_inputs=True), live:
        step = Step(case, live)
        step()
        gc.collect()
        live.peaks.clear()
        step()
    phase = max(live.peaks, key=lambda name: live.peaks[name][0])
    return {
        "name": case["name"],
        "peak": live.peaks[phase][0],
        "phase": phase,
        "phases": {name: [value, op] for name, (value, op) in live.peaks.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    nn.functional.dropout, torch.Tensor.log_softmax = cuda_dropout, cuda_log_softmax
    for case in json.load(sys.stdin):
        try:
            print(json.dumps(trace(case)), flush=True)
        except Exception as error:  # one case that cannot be traced must not cost the others
            print(json.dumps({"name": case["name"], "error": repr(error)}), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
