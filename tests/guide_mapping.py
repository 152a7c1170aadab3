"""Writes docs/guide-mapping.md: the guide's 14 troubleshooting steps and what each is in today's LLaMA-Factory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doctor.config import yaml_edit
from doctor.rulebook import loader
from doctor.rulebook.model import GuideStep, Op

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guide-mapping.md"
HEAD = """\
# The guide's steps, and what they are today

Written by `python -m tests.guide_mapping` from `rules/guide.yaml`; checked against LLaMA-Factory 0.9.5. The steps are those of the
chapter 트러블슈팅 가이드 of *{title}*, in its own order and words.
"""


def page() -> str:
    """The whole page as Markdown."""
    guide = loader.load().guide
    if guide is None:
        raise SystemExit("rules/guide.yaml is missing")
    parts = [HEAD.format(title=guide.title.ko)]
    for section, heading in guide.sections.items():
        parts.append(f"## {heading.en} ({heading.ko})\n")
        parts += [_step(step) for step in guide.steps if step.section == section]
    return "\n".join(parts)


def _step(step: GuideStep) -> str:
    remedy = step.remedy
    rows = [f"### {step.step}. {step.guide_ko}\n", f"{remedy.text.en} `{remedy.id}`\n"]
    if remedy.patch:
        rows += ["| change | where |", "|---|---|", *(f"| {_changes(op)} | {_said(op.only_if)} |" for op in remedy.patch), ""]
    rows += [f"- {what}: {_said(condition)}" for what, condition in _conditions(step) if condition]
    rows += [f"- keeps: {', '.join(remedy.keep)}"] if remedy.keep else []
    rows += [f"- cost: {remedy.cost.en}"] if remedy.cost else []
    rows += [f"- needs: {', '.join(remedy.requires)}"] if remedy.requires else []
    rows += [f"- **out of date in the guide**: {step.correction.en}"] if step.correction else []
    return "\n".join(rows) + "\n"


def _conditions(step: GuideStep) -> list[tuple[str, Any]]:
    remedy = step.remedy
    return [("can help where", remedy.only_if), ("done where", remedy.done_if), ("harmful where", remedy.harmful_if)]


def _changes(op: Op) -> str:
    said = [f"`{key}: {yaml_edit.dump(value)}`" for key, value in (op.set or {}).items()]
    said += [f"remove `{key}`" for key in op.unset or ()]
    for key, scale in (op.scale or {}).items():
        limits = [f"{word} {yaml_edit.dump(limit)}" for word, limit in (("at least", scale.at_least), ("at most", scale.at_most)) if limit]
        said.append(f"`{key}` times {scale.by:g}" + (f" ({', '.join(limits)})" if limits else ""))
    return ", ".join(said)


def _said(condition: Any) -> str:
    return f"`{yaml_edit.dump(condition)}`".replace("|", "\\|") if condition else "always"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
