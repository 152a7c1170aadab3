"""Lints of rule files: mistakes that load and run, but hide a sentence, a pattern or the origin of a rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from re import _compiler as compiler  # type: ignore[attr-defined]
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from doctor.config import options
from doctor.core import facts
from doctor.core.events import Crash, LogLine
from doctor.detectors.base import Detector
from doctor.diagnosis.rule_examples import forms
from doctor.rulebook import parsing
from doctor.rulebook.conditions import comparisons, paths
from doctor.rulebook.model import Rule
from doctor.support.languages import LANGUAGES
from doctor.support.texts import Text

LONGEST_LINE = 160
"""Characters of a line of a rule file: what fits beside another file on a screen."""
LONGEST_EXPRESSION = 400
"""Characters of a regular expression (after generated lists are taken out: rulebook/parsing.py)."""
LONGEST_LIST = 8
"""An alternation of more names than that is a list (of options, model types, ...): one example stands for all of them."""
WITNESS = re.compile(
    r"lab: fixtures/[\w-]+|parser: \S.+|source: [\w.-]+ \d[\w.+-]* [\w./-]+(?::[\w.]+)?|thread: [\w.-]+/[\w.-]+#\d+",
)
"""The four forms of docs/writing-a-rule.md."""
PLACEHOLDER = re.compile(r"(?<!\{)\{([a-z_][\w./]*)(?::[^{}]*)?\}(?!\})")
IDENTIFIERS = (
    "import_utils", "modeling_utils", "training_args", "training_step", "per_device_train_batch_size", "gradient_accumulation_steps",
    "gradient_checkpointing", "from_pretrained", "state_dict", "load_state_dict", "tokenizer_config", "preprocessing_num_workers",
    "dataset_info", "get_dataset", "converted_examples", "output_dir", "save_pretrained", "checkpoint", "scaled_dot_product_attention",
    "data_collator", "dataloader", "forward", "backward", "optimizer_step", "accelerator", "transformers", "llamafactory", "deepspeed",
    "site-packages", "launcher", "workflow", "run_exp", "callbacks", "support", "report_to", "export_model", "exporting", "inputs_embeds",
    "hidden_states", "past_key_values", "position_ids", "parameters", "initialize", "distributed", "process_group", "torchrun", "threading",
    "multiprocessing", "subprocess", "concatenate_datasets", "evaluation_loop", "prediction_step", "learning_rate_scheduler",
    "information", "warnings", "assertion", "unittest", "context_manager", "logging_steps", "loading", "loaded", "original", "interpreter",
)  # fmt: skip
"""Names that stand in the tracebacks and logs of every training: a word that is part of one of them says nothing."""


def lint_rule(rule: Rule, detectors: Mapping[str, type[Detector]]) -> list[str]:
    """What is wrong with a rule beyond its examples, one sentence each; empty if nothing is."""
    detector = detectors[rule.detector](**rule.params)
    return [
        *_body_order(rule),
        *_words(rule),
        *_unknown_facts(rule, detector),
        *_always_set(rule),
        *_alternatives(rule),
        *_origin(rule),
    ]


def lint_file(path: Path) -> list[str]:
    """What is wrong with the form of a rule file."""
    raw, text = parsing.read_mapping(path)
    long = [(number, len(line)) for number, line in enumerate(text.splitlines(), 1) if len(line) > LONGEST_LINE]
    out = [f"line {number} has {length} characters (at most {LONGEST_LINE})" for number, length in long]
    for params in (raw.get("when") or {}).values():
        for name, expression in expressions(params or {}):
            if len(expression) > LONGEST_EXPRESSION:
                problem = f"an expression of {len(expression)} characters (at most {LONGEST_EXPRESSION})"
                out.append(f"{name}: {problem}: split it, or use a generated list")
    return out


def placeholders(text: str) -> set[str]:
    """The names in `{braces}` of a text; doubled braces are no placeholder."""
    return set(PLACEHOLDER.findall(text))


def texts(rule: Rule) -> list[Text]:
    """Every text of a rule that a user reads."""
    out: list[Text] = [rule.title, *rule.body]
    for remedy in rule.remedies:
        out += [remedy.text, *(text for text in (remedy.cost, remedy.excluded) if text), *remedy.reasons.values()]
    return out


def _body_order(rule: Rule) -> Iterator[str]:
    for place, body in enumerate(rule.body[:-1]):
        if not body.where and not placeholders(body.en):
            yield f"body[{place}] has neither `where` nor placeholder and hides all that follow: give it a condition or put it last"


def _words(rule: Rule) -> Iterator[str]:
    """`contains` words that say nothing or that another one covers, `none_of` expressions that begin or end inside a usual name."""
    words = [word for word in rule.params.get("contains") or () if isinstance(word, str)]
    for word in words:
        covering = [other for other in words if other != word and other in word]
        if covering:
            yield f"contains: {word!r} is never needed beside {covering[0]!r}"
        if names := [name for name in IDENTIFIERS if word in name]:
            yield f"contains: {word!r} stands in usual names ({names[0]}): take more of the message"
    if len(set(words)) < len(words):
        yield "contains: a word stands twice"
    for expression in rule.params.get("none_of") or ():
        for name in IDENTIFIERS:
            found = re.search(expression, name)
            if found and found[0] != name:
                yield f"none_of: {expression!r} matches inside the usual name {name}: add \\b or take more of the message"
                break


def _conditions(rule: Rule) -> Iterator[Any]:
    yield rule.where
    if rule.note_if is not None:
        yield rule.note_if
    yield from (body.where for body in rule.body)
    for remedy in rule.remedies:
        yield from (condition for condition in (remedy.only_if, remedy.done_if, remedy.harmful_if) if condition is not None)
        yield from (op.only_if for op in remedy.patch)


def _always_set(rule: Rule) -> Iterator[str]:
    """`set:` and null asked of an option that has a default: `config.*` always holds a value, whatever the user wrote."""
    asked = [*_conditions(rule), *(rule.params.get(name) for name in ("all", "any") if rule.detector == "config")]
    for path, wanted in (line for condition in asked for line in comparisons(condition)):
        root, _, name = path.partition(".")
        option = options.table().get(name) if root == "config" else None
        defaults = [] if option is None else [value for value in (option.default, *option.was.values()) if value is not None]
        if defaults and _asks_presence(wanted, defaults):
            yield f"{path}: {wanted} says nothing, the default is {defaults[0]!r}: compare with a value, or ask `written.{name}`"


def _asks_presence(wanted: Any, defaults: list[Any]) -> bool:
    """Whether a comparison asks only whether there is a value. `{set: true, ne: DEFAULT}` asks for another value."""
    if isinstance(wanted, Mapping):
        return "set" in wanted and not (wanted["set"] and all(wanted.get("ne") == value for value in defaults))
    return wanted is None or (isinstance(wanted, list) and all(value is None for value in wanted))


def _unknown_facts(rule: Rule, detector: Detector) -> Iterator[str]:
    asked = {path.removeprefix("fact.") for condition in _conditions(rule) for path in paths(condition) if path.startswith("fact.")}
    if rule.detector == "fact" and facts.info(rule.params["name"]) is None:
        yield f"fact {rule.params['name']!r} is not registered in core/facts.py: nobody sets it"
    for name in _placeholders_of(rule):
        root, _, rest = name.partition(".")
        if root in _SETTABLE and rest not in _SETTABLE[root]():
            yield f"{{{name}}}: `{root}` has no {rest!r}, nobody sets it"
        elif root not in _SETTABLE:
            asked.add(name.removeprefix("fact."))
    for name in sorted(asked - set(detector.facts)):
        if facts.info(name) is None:
            yield f"fact {name!r} is neither one of the detector {rule.detector} nor registered in core/facts.py: nobody sets it"


_SETTABLE: dict[str, Callable[[], Container[str]]] = {
    "config": lambda: {*options.table(), *options.effective({})},
    "run": lambda: ("completed", "first_step", "last_step", "ranks", "attempts"),
    "plan": lambda: ("output_dir",),
}
"""First part of a placeholder -> the names that it can have (config/options.py scope_of, planner/situation.py); all others are facts."""


def _placeholders_of(rule: Rule) -> set[str]:
    """What the texts (in every language), commands and patches of a rule ask for."""
    asked = {name for text in texts(rule) for lang in LANGUAGES for name in placeholders(text.get(lang))}
    for remedy in rule.remedies:
        asked |= placeholders(remedy.command or "")
        values = str([[op.set, op.unset, {key: (key, scale.by) for key, scale in (op.scale or {}).items()}] for op in remedy.patch])
        asked |= set(_PATCH_PLACEHOLDER.findall(values))
    return asked


_PATCH_PLACEHOLDER = re.compile(r"\{((?:fact|config|plan|run)\.[\w.]+)\}")
"""In a patch (its values are nested mappings, whose braces are none)."""


def expressions(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(parameter, regular expression) for everything under `when:` that decides on a match."""
    for name in ("any_of", "frames", "last", "exception", "none_of"):
        value = params.get(name)
        for expression in [value] if isinstance(value, str) else value or ():
            yield name, expression


def _alternatives(rule: Rule) -> Iterator[str]:
    """Alternatives and words that no `match` example needs."""
    events = [event for example in rule.examples.match for form in forms(example) for event in form if isinstance(event, LogLine | Crash)]
    if not events:
        return
    shown = [event.text for event in events]
    crashes = [event for event in events if isinstance(event, Crash)]
    places = [f"{frame.file}:{frame.function}: {frame.code}" for event in crashes for frame in event.frames]
    subjects = {"any_of": shown, "last": shown, "frames": places, "exception": [event.exception for event in crashes]}
    if rule.detector == "traceback":
        subjects["exception"] = shown
    for name, expression in expressions(rule.params):
        if name not in subjects:
            continue
        for alternative, pattern in ways(expression):
            if not any(pattern.search(text) for text in subjects[name]):
                yield f"{name}: no example for {_cut(alternative)} of {_cut(expression)}"
    for word in rule.params.get("contains") or ():
        if not any(word in text for text in shown):
            yield f"contains: no example holds the word {word!r}"


def ways(expression: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    """The expression once for each alternative in it (at any depth), with the other alternatives of that place left out.

    One without alternatives comes back whole. Lookarounds and generated lists are left alone.
    """
    if not (count := len(_branches(parser.parse(expression)))):
        yield "all", re.compile(expression)
        return
    for place in range(count):
        for number in range(len(_branches(parser.parse(expression))[place][1])):
            tree = parser.parse(expression)
            branch = _branches(tree)[place]
            kept = branch[1][number]
            branch[1][:] = [kept]
            yield f"alternative {number + 1} ({_shown(kept)})", compiler.compile(tree)


def _branches(tree: Any) -> list[Any]:
    """Every alternation of a parsed expression, outermost first: its list of alternatives can be cut in place."""
    out: list[Any] = []
    for code, value in tree:
        if code is codes.BRANCH:
            out.append(value)
            out += [inner for way in value[1] for inner in _branches(way)]
        elif code is codes.SUBPATTERN:
            out += _branches(value[3])
        elif code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            out += _branches(value[2])
    return [branch for branch in out if not _is_list(branch[1])]


def _is_list(alternatives: list[Any]) -> bool:
    """Names (no spaces), not wordings, and many of them."""
    letters = [chr(value) for way in alternatives for code, value in way if code is codes.LITERAL]
    return len(alternatives) > LONGEST_LIST and not any(letter.isspace() for letter in letters)


def _shown(tree: Any) -> str:
    """The literal letters of a parsed alternative, to recognise it by."""
    return "".join(chr(value) if code is codes.LITERAL else "." for code, value in tree)


def _cut(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _origin(rule: Rule) -> Iterator[str]:
    for witness in rule.witness:
        if not WITNESS.fullmatch(witness):
            yield f"witness: {witness!r} has none of the forms lab:, parser:, source:, thread: (docs/writing-a-rule.md)"
    if not rule.witness and rule.status != "trial":
        yield "no witness: say where this failure was really seen, or set `status: trial`"
