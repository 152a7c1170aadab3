"""Repeats steps under hooks: finds the first step, and in it the sample, the weight or the module, at which a value is not finite.

Only in a training that `lfdoctor run --repeat` (or `--heal`) has started for this; any other has no hook of ours on its modules.
Standard library only: torch is the training's own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from doctor.privacy.secrets import mask

VARIABLE = "LFDOCTOR_REPEAT"
"""`FIRST-LAST`: the optimizer steps to look at; the process ends after the last, or after the first that is not finite."""
TEXT_CHARACTERS = 200
"""Of a sample's text that are told."""
Found = dict[str, Any]


def wanted() -> tuple[int, int] | None:
    """The steps that this process is to look at."""
    first, _, last = os.environ.get(VARIABLE, "").partition("-")
    return (int(first), int(last)) if first.isdigit() and last.isdigit() else None


class ProbeCallback:
    """The probe as a callback of transformers' trainer; `owner()` is our recording callback, which knows the trainer."""

    def __init__(self, steps: tuple[int, int], owner: Callable[[], Any]) -> None:
        self._steps, self._owner = steps, owner
        self._probe: StepProbe | None = None

    def __getattr__(self, name: str) -> Any:
        """Events that are not used here."""
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(name)

    def on_train_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The trainer is known from now on."""
        owner = self._owner()

        def tell(found: Found) -> None:
            owner.recorder.put({"type": "Repeat", **found})
            owner.recorder.flush()

        trainer = owner.trainer
        self._probe = StepProbe(trainer, self._steps, owner.recorder.rank, tell)
        inner = trainer.training_step

        def training_step(*arguments: Any, **keywords: Any) -> Any:
            try:
                return inner(*arguments, **keywords)
            except Exception as error:
                if self._probe is not None:
                    self._probe.failed(error)
                raise

        trainer.training_step = training_step

    def on_step_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A step's batches are there."""
        if self._probe is not None:
            self._probe.step_begins(state.global_step + 1)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The gradients of a step are there."""
        if self._probe is not None:
            self._probe.before_optimizer()

    def on_step_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The weights are those after the step."""
        if self._probe is not None:
            self._probe.step_ends(state.global_step)


class StepProbe:
    """Hooks on every module of `trainer.model` from a step on. `tell` gets a finding or {"kind": "nothing"}; then the process ends.

    A finding has `kind` (sample, weight, module, loss, gradient, exception), `name` (of the parameter or module), `step`, `direction`
    (forward, backward), `micro_batch` (from 1), `rows` (of the micro batch, from 0), `text` (of the first of them) and `rank`.
    """

    def __init__(self, trainer: Any, steps: tuple[int, int], rank: int, tell: Callable[[Found], None]) -> None:
        self._trainer, self._model, self._tell = trainer, trainer.model, tell
        self.first, self.last = steps
        self._rank = rank
        self._names = {module: _short(name) for name, module in self._model.named_modules()}
        self._attached = False
        self._step = self._micro = 0
        self._found: Found | None = None
        self._batches: list[dict[str, Any]] = []
        self._good: dict[str, Any] | None = None
        self._inside: list[str] = []
        self._trial: list[bool] | None = None
        self._later: str | None = None
        self._first_backward = True
        self._by_design: set[str] = set()
        """Modules whose outputs are not finite and do no harm: a router that masks with infinity."""
        self._scaled = bool(getattr(trainer.args, "fp16", False))
        """Gradients may overflow: the loss scale is lowered then, and the step left out."""

    # events

    def step_begins(self, step: int) -> None:
        """`step` counts from 1. The weights are looked at before it."""
        if step < self.first:
            return
        if not self._attached:
            self._attach()
        self._good = self._batches[-1] if self._batches else self._good
        self._step, self._micro, self._batches, self._later = step, 0, [], None
        if (name := self._broken_weight(self._model)) is not None:
            self._end({"kind": "weight", "name": name})

    def before_optimizer(self) -> None:
        """All gradients of the step are there, and the weights are still those that it began with."""
        if self._found is not None and self._found["kind"] == "module" and self._does_no_harm():
            self._by_design.add(self._found["name"])
            self._found = None
        if self._found is None and self._attached:
            self._found = self._left_over()
        if self._found is not None:
            with contextlib.suppress(Exception):  # other people's models: what was found counts without it, too
                self._found |= self._whose_fault(self._found)
            self._end(self._found)

    def step_ends(self, step: int) -> None:
        """Nothing was found in it."""
        if self._found is not None:
            self._end(self._found)
        if step >= self.last:
            self._end({"kind": "nothing"})

    def failed(self, error: BaseException) -> None:
        """The step ends with an exception: in which module it was raised."""
        if self._attached and self._found is None:
            inside = self._inside[-1] if self._inside else ""
            self._tell({"kind": "exception", "name": inside, "text": mask(str(error))[:TEXT_CHARACTERS], **self._where()})

    def _end(self, found: Found) -> None:
        self._tell({**found, **self._where()})
        sys.stdout.flush()
        os._exit(0)  # nothing of this training is to be saved, and other ranks find the same in the same step

    def _where(self) -> Found:
        return {"step": self._step, "rank": self._rank}

    # hooks

    def _attach(self) -> None:
        self._attached = True
        self._model.register_forward_pre_hook(self._model_begins, with_kwargs=True)
        for module in self._names:
            module.register_forward_pre_hook(self._enters)
            module.register_forward_hook(self._leaves)
            if module is not self._model:
                module.register_full_backward_hook(self._goes_back)

    def _model_begins(self, module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        if self._trial is None:
            self._micro += 1
            self._batches.append(dict(keywords))
            self._inside, self._first_backward = [], True
            bad = next((name for name, value in keywords.items() if "mask" not in name and not _finite(value)), None)
            if bad is not None and self._found is None:
                self._found = {"kind": "sample", "name": bad, "direction": "forward", "micro_batch": self._micro}

    def _enters(self, module: Any, arguments: Any) -> None:
        self._inside.append(self._names[module])

    def _leaves(self, module: Any, arguments: Any, output: Any) -> None:
        if self._inside:
            self._inside.pop()
        is_model = module is self._model
        if _finite(output if not is_model else getattr(output, "loss", None)):
            return
        if self._names[module] in self._by_design:
            return
        if self._trial is not None:
            self._trial.append(True)
        elif self._found is None and module.training:
            weight = None if is_model else self._broken_weight(module)
            kind = "weight" if weight else "loss" if is_model else "module"
            self._found = {"kind": kind, "name": weight or self._names[module], "direction": "forward", "micro_batch": self._micro}

    def _goes_back(self, module: Any, to_input: Any, from_output: Any) -> None:
        if self._scaled:
            return
        arrives, leaves = _finite(from_output), _finite(to_input)
        name = self._names[module]
        if self._trial is not None:
            self._trial += [True] * (not arrives or not leaves)
        elif self._found is None and arrives and not leaves:
            self._found = {"kind": "module", "name": name, "direction": "backward", "micro_batch": self._micro}
        elif self._found is None and not arrives and self._later is None:
            # a module around this one may still tell that it was it: its own hook comes after those of its parts
            self._later = name if not self._first_backward else ""
        self._first_backward = False

    def _left_over(self) -> Found | None:
        """What no module's hook could tell: a gradient that came from the loss, or one of a weight alone."""
        name = self._spoilt_gradient()
        if self._scaled or (name is None and self._later is None):
            return None
        kind = "loss" if self._later == "" else "gradient"
        return {"kind": kind, "name": name or self._later, "direction": "backward", "micro_batch": self._micro}

    def _does_no_harm(self) -> bool:
        """Whether there are gradients (DeepSpeed keeps them elsewhere), and all are finite."""
        return any(one.grad is not None for one in self._model.parameters()) and self._spoilt_gradient() is None

    def _spoilt_gradient(self) -> str | None:
        """The first weight whose gradient is not finite."""
        gradients = ((_short(name), one.grad) for name, one in self._model.named_parameters() if one.grad is not None)
        return next((name for name, gradient in gradients if not _finite(gradient)), None)

    def _broken_weight(self, module: Any) -> str | None:
        prefix = self._names[module]
        for name, parameter in module.named_parameters():
            if not _finite(parameter):
                return _short(f"{prefix}.{name}" if prefix and module is not self._model else name)
        return None

    # whose fault it is

    def _whose_fault(self, found: Found) -> Found:
        """A module is not to blame that computes another batch well: then the rows that fail alone are. One process only."""
        if (
            found["kind"] == "weight"
            or int(os.environ.get("WORLD_SIZE", "1")) > 1
            or type(self._trainer.model_wrapped) is not type(self._model)
        ):
            return {}
        backward = found["direction"] == "backward"
        batch = self._batches[found["micro_batch"] - 1]
        others = [self._batches[found["micro_batch"] - 2]] if found["micro_batch"] > 1 else [self._good] if self._good else []
        if any(self._fails(other, backward) for other in others):
            return {}
        count = len(batch["input_ids"])
        rows = [row for row in range(count) if self._fails(_row(batch, row, count), backward)]
        if not rows or (len(rows) == count and not others):
            return {}
        return {"kind": "sample", "rows": rows, "text": self._text(batch["input_ids"][rows[0]])}

    def _fails(self, batch: dict[str, Any], backward: bool) -> bool:
        torch: Any = sys.modules["torch"]
        self._trial = []
        try:
            with torch.random.fork_rng(), contextlib.nullcontext() if backward else torch.no_grad():
                loss = self._model(**batch).loss
                if backward:
                    self._model.zero_grad()
                    loss.backward()
                    self._trial += [True for one in self._model.parameters() if one.grad is not None and not _finite(one.grad)]
            return bool(self._trial)
        finally:
            self._trial = None

    def _text(self, ids: Any) -> str:
        tokenizer: Any = getattr(self._trainer, "processing_class", None)
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        return mask(str(tokenizer.decode(ids, skip_special_tokens=True)).strip())[:TEXT_CHARACTERS]


def _row(batch: dict[str, Any], row: int, count: int) -> dict[str, Any]:
    """One row of a micro batch; what is not one entry a row stays."""
    return {name: value[row : row + 1] if getattr(value, "shape", None) and len(value) == count else value for name, value in batch.items()}


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
    elif hasattr(value, "values") and hasattr(value, "keys"):
        yield from _tensors(list(value.values()))
    elif hasattr(value, "is_floating_point") and value.is_floating_point():
        yield value


def _finite(value: Any) -> bool:
    """Whether all floating numbers of tensors, also nested ones, are finite; quantized and empty ones count as finite."""
    torch: Any = sys.modules["torch"]
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors(value))


def _short(name: str) -> str:
    """A module's name without PEFT's wrapper."""
    return name.removeprefix("base_model.model.")
