"""The lengths of sequences.py without the sequences: half of the time went into lists of ids that were only counted."""

from __future__ import annotations

from typing import NamedTuple

from doctor.dataset.sequences import Options, infer_seqlen
from doctor.dataset.templates import Element, Template
from doctor.dataset.tokenizer import Tokenizer


class Count(NamedTuple):
    """Tokens of one sequence: before and after truncation, of the answer before it, with a label after it."""

    whole: int
    kept: int
    answer: int
    trained: int


def count(turns: list[list[list[Element]]], tokenizer: Tokenizer, template: Template, options: Options) -> list[Count]:
    """The lengths of what `build` makes of the same turns (tests/dataset/test_counts.py holds one against the other)."""
    lengths = [[tokenizer.count(parts) for parts in conversation] for conversation in turns]
    eos = tokenizer.eos is not None
    if options.stage == "sft":
        return [_supervised(lengths[0], eos, template, options)]
    if options.stage == "pt":
        whole = lengths[0][0]
        kept = whole if options.packing else min(whole, options.cutoff_len)
        return [Count(whole, kept, 0, kept)]
    return _paired(lengths, template.efficient_eos and eos, options)


def _supervised(lengths: list[int], eos: bool, template: Template, options: Options) -> Count:
    pairs = list(zip(lengths[::2], lengths[1::2], strict=True))
    tail = int(template.efficient_eos)
    kept, total, trained = 0, tail, 0
    for number, (source, target) in enumerate(reversed(pairs) if options.mask_history else pairs):
        if total >= options.cutoff_len:
            break
        source, target = infer_seqlen(source, target, options.cutoff_len - total)
        total += source + target
        kept += source + target
        if options.train_on_prompt:
            trained += source
        elif template.efficient_eos and number and eos:
            trained += 1  # the end of the answer before
        trained += 0 if options.mask_history and number else target
    end = int(tail and eos)
    return Count(sum(lengths) + tail, kept + end, sum(target for _, target in pairs), trained + end)


def _paired(lengths: list[list[int]], end: bool, options: Options) -> list[Count]:
    prompt = sum(lengths[0][:-1])
    answers = [conversation[-1] + int(end) for conversation in lengths]
    source, most = infer_seqlen(prompt, max(answers), options.cutoff_len)
    if options.stage == "ppo":
        kept = min(answers[0], most)
        return [Count(prompt, source, answers[0], kept)]
    return [Count(prompt + answer, source + min(answer, most), answer, min(answer, most)) for answer in answers]
