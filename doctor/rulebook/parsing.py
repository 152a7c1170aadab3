"""Parse rule files (YAML) into the records of `doctor.rulebook`; errors name file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import yaml

from doctor.errors import DoctorError
from doctor.rulebook import conditions
from doctor.rulebook.model import Guide, Remedy, Rule, Rulebook
from doctor.rulebook.name_lists import expand
from doctor.support.decoding import convert

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader, in C if available."""


def read(sources: Sequence[Path], detectors: Mapping[str, Any] | None = None) -> Rulebook:
    """All rules of these folders. guide.yaml and shared remedies come from the first folder. Raises DoctorError at the first bad file."""
    guide = _load_guide(sources[0] / "guide.yaml")
    shared = _shared_remedies(sources[0], guide)
    rules: dict[str, Rule] = {}
    raw = {f"{path.parent.name}/{path.stem}": path for folder in sources for path in rule_files(folder)}
    for folder in sources:
        for path in rule_files(folder):
            rule = parse_rule(path, shared, raw)
            if rule.id in rules:
                raise DoctorError(f"{path}: rule id {rule.id} is taken already")
            rules[rule.id] = rule
            if detectors is not None:
                _try_detector(path, rule, detectors)
    return Rulebook(tuple(rules.values()), guide)


def rule_files(folder: Path) -> Iterator[Path]:
    """The rule files of a folder (`<family>/<name>.yaml`), sorted."""
    return iter(sorted(folder.glob("*/*.yaml")))


def parse_rule(path: Path, shared: Mapping[str, Mapping[str, Any]], parents: Mapping[str, Path] = MappingProxyType({})) -> Rule:
    """Parse a rule file. Raises DoctorError with file and line.

    `shared`: remedies by `use:` name. `parents`: files by rule id, for an inherited `when:`.
    """
    raw, text = read_mapping(path)
    remedies = []
    for place, item in enumerate(raw.get("remedies") or []):
        for use in _each(item):
            remedies.append(_resolve(path, text, place, use, shared))
    resolved = {"when": _when(path, raw, parents), "remedies": remedies, "witness": _witnesses(raw)}
    rule: Rule = _convert({**raw, **resolved}, Rule, path, text)
    expected = f"{path.parent.name}/{path.stem}"
    if rule.id != expected:
        raise DoctorError(f"{path}:{_line_of(text, ['id'])}: id is {rule.id!r}, but the file's place says {expected!r}")
    if len(rule.when) != 1:
        raise DoctorError(f"{path}:{_line_of(text, ['when'])}: `when:` holds exactly one word, the detector; found {len(rule.when)}")
    _check_conditions(path, text, rule)
    return rule


def _when(path: Path, raw: Mapping[str, Any], parents: Mapping[str, Path]) -> Any:
    """A rule's `when:`, or that inherited from the first rule it refines, over several levels. Raises DoctorError for a cycle."""
    chain = [path]
    while "when" not in raw:
        parent = parents.get(next(iter(raw.get("refines") or []), ""))
        if parent is None or parent in chain:
            raise DoctorError(f"{path}:1: no `when:`, and no rule under `refines:` to take it from")
        chain.append(parent)
        raw, _ = read_mapping(parent)
    try:
        return expand(raw["when"])
    except DoctorError as error:
        line = _line_of(chain[-1].read_text(encoding="utf-8"), ["when"])
        raise DoctorError(f"{chain[-1]}:{line}: {error}") from error


def _witnesses(raw: Mapping[str, Any]) -> Any:
    """The `witness` entries as text: YAML reads `- thread: o/r#1` as a mapping, `- "thread: o/r#1"` as a string."""
    given = raw.get("witness", [])
    if not isinstance(given, list):
        return given
    return [": ".join(map(str, next(iter(item.items())))) if isinstance(item, dict) and len(item) == 1 else item for item in given]


def _each(item: Any) -> list[Any]:
    """Expand `use: [a, b]` to an item per name, with the same overrides."""
    if isinstance(item, dict) and isinstance(item.get("use"), list):
        return [{**item, "use": name} for name in item["use"]]
    return [item]


def _resolve(path: Path, text: str, place: int, item: Any, shared: Mapping[str, Mapping[str, Any]]) -> Any:
    """Expand a remedy given as `use: guide/memory/1`, or as the name alone, with its overrides."""
    if isinstance(item, str):
        item = {"use": item}
    if not isinstance(item, dict) or "use" not in item:
        return item
    name = item["use"]
    if name not in shared:
        line = _line_of(text, ["remedies", place])
        raise DoctorError(f"{path}:{line}: no shared remedy {name!r} in guide.yaml or remedies.yaml (known: {', '.join(sorted(shared))})")
    merged = {**shared[name], **{key: value for key, value in item.items() if key != "use"}}
    if "reasons" in item:
        merged["reasons"] = {**shared[name].get("reasons", {}), **item["reasons"]}
    return merged


def _check_conditions(path: Path, text: str, rule: Rule) -> None:
    asked: list[tuple[list[Any], Any]] = [
        (["where"], rule.where),
        (["note_if"], rule.note_if or {}),
        *((["body", place], body.where) for place, body in enumerate(rule.body)),
    ]
    for place, remedy in enumerate(rule.remedies):
        asked += [(["remedies", place], c) for c in (remedy.only_if, remedy.done_if, remedy.harmful_if) if c is not None]
        for op in remedy.patch:
            asked.append((["remedies", place], op.only_if))
            if sum(part is not None for part in (op.set, op.unset, op.scale)) != 1:
                raise DoctorError(f"{path}:{_line_of(text, ['remedies', place])}: a patch operation is exactly one of set, unset, scale")
    for keys, condition in asked:
        for problem in conditions.problems(condition):
            raise DoctorError(f"{path}:{_line_of(text, keys)}: {problem}")


def _try_detector(path: Path, rule: Rule, detectors: Mapping[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    line = _line_of(text, ["when"])
    if rule.detector not in detectors:
        raise DoctorError(f"{path}:{line}: no detector {rule.detector!r} (known: {', '.join(sorted(detectors))})")
    try:
        detector = detectors[rule.detector](**rule.params)
        detector.compile()
    except (TypeError, ValueError, re.error) as error:
        raise DoctorError(f"{path}:{line}: {rule.detector}: {error}") from error


def _load_guide(path: Path) -> Guide | None:
    if not path.is_file():
        return None
    raw, text = read_mapping(path)
    guide: Guide = _convert(raw, Guide, path, text)
    return guide


def _shared_remedies(folder: Path, guide: Guide | None) -> dict[str, Mapping[str, Any]]:
    """`use:` name -> remedy as raw data: the guide's steps as guide/<section>/<step>, those of remedies.yaml by their names."""
    shared: dict[str, Mapping[str, Any]] = {}
    if guide is not None:
        for step in guide.steps:
            name = f"guide/{step.section}/{step.step}"
            shared[name] = {**msgspec.to_builtins(step.remedy), "source": name}
    path = folder / "remedies.yaml"
    if path.is_file():
        raw, text = read_mapping(path)
        for name, body in raw.items():
            remedy = _convert({"id": name.rpartition("/")[2], **body}, Remedy, path, text, [name])
            shared[name] = msgspec.to_builtins(remedy)
    return shared


def read_mapping(path: Path) -> tuple[dict[str, Any], str]:
    """Read a YAML file; return its mapping and its text. Raises DoctorError with the file's name."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.load(text, LOADER)  # noqa: S506 (LOADER is a safe loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DoctorError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise DoctorError(f"{path}:1: expected a mapping, found {type(raw).__name__}")
    return raw, text


def _convert(raw: Any, kind: Any, path: Path, text: str, prefix: list[Any] | None = None) -> Any:
    try:
        return convert(raw, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        keys: list[Any] = [int(part) if part.isdigit() else part for part in re.findall(r"[\w-]+", place)]
        raise DoctorError(f"{path}:{_line_of(text, [*(prefix or []), *keys])}: {message}") from error


def _line_of(text: str, keys: list[Any]) -> int:
    """The 1-based line of the value at `keys`, or of its nearest parent."""
    node = yaml.compose(text, LOADER)
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if key not in pairs:
                break
            line, node = pairs[key][0].start_mark.line + 1, pairs[key][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
