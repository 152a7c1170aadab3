"""The short texts that a page's buttons copy: an issue in Markdown, and plain lines for a chat, with a person or with a model."""

from __future__ import annotations

from collections.abc import Iterator

from doctor.report.model import Report
from doctor.reporters import advice, base
from doctor.reporters.markup import code, escaped, fenced
from doctor.words.catalogue import Words

QUOTE_CHARS = 1200
"""Characters of a quote: a long traceback is cut, so that an issue stays readable."""


def issue(report: Report, words: Words) -> str:
    """Title, sentence, evidence, environment and the patch, as an issue wants it; all text of logs is inert."""
    title, sentence = headline(report, words)
    roots = base.parts(report)[0]
    blocks = [f"### {escaped(title)}", escaped(sentence)]
    blocks += [f"**{words.how_sure(root.confidence)}** · {code(root.rule)}" for root in roots[:1]]
    blocks += [line(base.run_row(report, words)), line(base.vitals(report, words))]
    for piece in [piece for root in roots for piece in root.evidence[:2]][:3]:
        blocks += [code(base.place(piece, words)), fenced(_cut(piece.text))]
    environment = [f"- {code(name)} {escaped(str(value))}" for name, value in report.run.environment.items()]
    if environment:
        blocks += [f"**{words('html_environment')}**", "\n".join(environment)]
    if report.patch and report.patch.diff:
        blocks += [f"**{words('patch')}**", fenced(report.patch.diff, "diff")]
    blocks.append(f"<sub>{words('written_by', tool=report.tool.name, version=report.tool.version)}</sub>")
    return "\n\n".join(filter(None, blocks)) + "\n"


def line(pieces: list[str]) -> str:
    """Pieces as one line of Markdown."""
    return " · ".join(escaped(piece) for piece in pieces if piece)


def chat(report: Report, words: Words) -> str:
    """The verdict, the run, the deciding line and what to do, in plain text without markup."""
    title, sentence = headline(report, words)
    lines = [title, sentence, " · ".join(piece for piece in base.run_row(report, words) if piece), " · ".join(base.vitals(report, words))]
    quoted = [piece for root in base.parts(report)[0] for piece in root.evidence][:1]
    lines += [f"{base.place(piece, words)}\n{_cut(piece.mark or piece.text)}" for piece in quoted]
    lines += _do_next(report, words)
    return "\n".join(one.replace("`", "") for one in lines if one) + "\n"


def _do_next(report: Report, words: Words) -> Iterator[str]:
    todo, commands = advice.todo(report)[:4], advice.next_commands(report)
    if todo or commands:
        yield f"\n{words('do_next')}"
    for remedy in todo:
        yield f"- {remedy.text}"
        values = advice.new_values(remedy, words)
        if values:
            yield f"  {values}"
    yield from (f"$ {command}" for command in commands)


def headline(report: Report, words: Words) -> tuple[str, str]:
    """The title and the sentence that stand first in every report."""
    roots = base.parts(report)[0]
    if roots:
        return roots[0].title, roots[0].text
    _, title, sentence = base.verdict(report, words)
    return title, sentence


def _cut(text: str) -> str:
    return text if len(text) <= QUOTE_CHARS else text[:QUOTE_CHARS].rstrip() + " [...]"
