"""Token ids and labels as LLaMA-Factory's processors make them (LLaMA-Factory 0.9.5, data/processor/*.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from doctor.dataset.convert import Sample, Turn
from doctor.dataset.templates import Element, Template, many_turns, one_turn
from doctor.dataset.tokenizer import Tokenizer
from doctor.dataset.tools import LengthUnknown

IGNORE = -100


class Options(msgspec.Struct, frozen=True):
    """Options of the configuration that shape a sequence; `cutoff_len` in tokens, as the processors get it."""

    stage: str = "sft"
    cutoff_len: int = 2048
    train_on_prompt: bool = False
    mask_history: bool = False
    packing: bool = False
    neat_packing: bool = False


def options_of(config: Mapping[str, Any]) -> Options:
    """The options. `packing: true` takes one token from cutoff_len, also where nothing is packed (hparams/data_args.py)."""
    stage = str(config.get("stage") or "sft")
    neat = bool(config.get("neat_packing"))
    asked = bool(config.get("packing")) or neat
    cutoff = config.get("cutoff_len")
    length = cutoff if isinstance(cutoff, int) and not isinstance(cutoff, bool) else 2048
    packing = asked if config.get("packing") is not None or neat else stage == "pt"
    return Options(stage, length - int(asked), bool(config.get("train_on_prompt")), bool(config.get("mask_history")), packing, neat)


class Sequence(msgspec.Struct, gc=False):
    """One sequence after truncation. `whole` and `answer`: tokens and answer tokens before it."""

    ids: list[int]
    labels: list[int]
    whole: int
    answer: int

    @property
    def trained(self) -> int:
        """Tokens that the loss is computed on."""
        return len(self.labels) - self.labels.count(IGNORE)


def infer_seqlen(source: int, target: int, cutoff: int) -> tuple[int, int]:
    """Lengths of prompt and answer after truncation (processor_utils.py)."""
    if target * 2 < cutoff:
        most = cutoff
    elif source * 2 < cutoff:
        most = cutoff - source
    else:
        most = int(cutoff * (target / (source + target)))
    kept = min(most, target)
    return min(max(cutoff - kept, 0), source), kept


def plan(sample: Sample, template: Template, options: Options, end: str = "") -> list[list[list[Element]]]:
    """What has to be encoded: one list of turns for each sequence of the sample. `end`: the text that ends one in pre-training.

    Raises LengthUnknown, NotEncodable.
    """
    if sample.images or sample.videos or sample.audios:
        raise LengthUnknown("media")
    if options.stage == "sft":
        return [many_turns(template, sample, mask_history=options.mask_history)]
    if options.stage == "pt":
        return [[[str(sample.prompt[0].content) + end]]]
    return [one_turn(template, sample, answer) for answer in _answers(sample, options.stage)]


def _answers(sample: Sample, stage: str) -> list[Turn]:
    if stage in ("rm", "dpo"):
        return sample.response[:2]
    if stage == "kto":  # an empty first turn stands for a bad answer (feedback.py)
        return [sample.response[0] if sample.response[0].content else sample.response[1]]
    return sample.response if len(sample.response) == 1 else [Turn("assistant", "")]


def build(turns: list[list[list[Element]]], tokenizer: Tokenizer, template: Template, options: Options) -> list[Sequence]:
    """The sequences of one sample, each as its processor truncates and labels it."""
    encoded = [[tokenizer.ids(parts) for parts in conversation] for conversation in turns]
    if options.stage == "sft":
        return [_supervised(encoded[0], tokenizer.eos, template, options)]
    if options.stage == "pt":
        ids = encoded[0][0] if options.packing else encoded[0][0][: options.cutoff_len]
        return [Sequence(ids, ids, len(encoded[0][0]), 0)]
    return _paired(encoded, tokenizer.eos, template, options)


def _supervised(encoded: list[list[int]], eos: int | None, template: Template, options: Options) -> Sequence:
    pairs = list(zip(encoded[::2], encoded[1::2], strict=True))
    tail = int(template.efficient_eos)
    whole, answer = sum(map(len, encoded)) + tail, sum(len(target) for _, target in pairs)
    ids: list[int] = []
    labels: list[int] = []
    total = tail
    for number, (source, target) in enumerate(reversed(pairs) if options.mask_history else pairs):
        if total >= options.cutoff_len:
            break
        source_len, target_len = infer_seqlen(len(source), len(target), options.cutoff_len - total)
        source, target = source[:source_len], target[:target_len]
        total += source_len + target_len
        source_labels = _source_labels(source, number, eos, template, options)
        target_labels = [IGNORE] * target_len if options.mask_history and number else target
        if options.mask_history:
            ids, labels = source + target + ids, source_labels + target_labels + labels
        else:
            ids, labels = ids + source + target, labels + source_labels + target_labels
    if tail and eos is not None:
        ids, labels = [*ids, eos], [*labels, eos]
    return Sequence(ids, labels, whole, answer)


def _source_labels(source: list[int], number: int, eos: int | None, template: Template, options: Options) -> list[int]:
    if options.train_on_prompt:
        return source
    if template.efficient_eos and number and eos is not None:
        return [eos] + [IGNORE] * (len(source) - 1)  # one token longer than an empty source, as in supervised.py
    return [IGNORE] * len(source)


def _paired(encoded: list[list[list[int]]], eos: int | None, template: Template, options: Options) -> list[Sequence]:
    """Pairwise, KTO and PPO: one prompt, one or two answers, truncated together ("the response is more important")."""
    prompt = [token for turn in encoded[0][:-1] for token in turn]
    answers = [conversation[-1] + ([eos] if template.efficient_eos and eos is not None else []) for conversation in encoded]
    source_len, target_len = infer_seqlen(len(prompt), max(map(len, answers)), options.cutoff_len)
    if options.stage == "ppo":
        return [Sequence(prompt[:source_len], answers[0][:target_len], len(prompt), len(answers[0]))]
    kept = prompt[:source_len]
    return [
        Sequence(kept + answer[:target_len], [IGNORE] * source_len + answer[:target_len], len(prompt) + len(answer), len(answer))
        for answer in answers
    ]
