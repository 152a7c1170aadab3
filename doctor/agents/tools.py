"""What an agent can ask for: each method is one tool of `lfdoctor mcp`; its docstring is what the agent reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.agents import answers
from doctor.agents.budget import DETAIL_TOKENS, VERDICT_TOKENS, fitted
from doctor.agents.roots import Roots
from doctor.errors import DoctorError
from doctor.report.model import Report
from doctor.support.texts import with_names

READING = ("diagnose", "check", "data", "estimate", "plan_patch", "watch", "explain", "compare")
WRITING = ("apply_patch",)
"""Names of the tools that read only, and of those that write a file."""


class Agent:
    """The tools, bound to the folders that they may reach. Raises DoctorError, whose message tells the agent what to do instead."""

    def __init__(self, roots: Sequence[Path], *, allow_write: bool = False, lang: str = "en") -> None:
        self.roots = Roots(roots)
        self.allow_write = allow_write
        self.lang = lang

    def diagnose(self, path: str, detail: answers.Detail = "verdict", config: str = "", gpu_memory_gib: float = 0) -> dict[str, Any]:
        """Find the root cause of a LLaMA-Factory training run: verdict, cause, what to do with values, commands.

        path: the run's folder, its console log, or trainer_log.jsonl. detail: "verdict" (at most 800 tokens) or "evidence" (at most 3,000:
        quotes, other remedies, the diff of the patch). config: the training YAML if it is elsewhere. gpu_memory_gib: GiB of one GPU if the
        log does not say it. "failed" and "unhealthy" have a cause or say that it is unknown; "undecided" means that nothing was read that
        allows a verdict.
        """
        return answers.of_report(self._report(path, config, gpu_memory_gib), detail)

    def check(self, config: str, gpu_memory_gib: float = 0, num_gpus: int = 0, detail: answers.Detail = "verdict") -> dict[str, Any]:
        """Check a training YAML before it is run: what LLaMA-Factory would refuse, missing files, whether it fits in GPU memory.

        Memory is judged only with gpu_memory_gib (GiB of one GPU). detail: "verdict" or "evidence" (with the diff of what is corrected).
        """
        from doctor.diagnosis.check import check

        file = self.roots.reading(config)
        report = check(
            file,
            folder=file.parent,
            gpu_memory_gib=gpu_memory_gib or None,
            num_gpus=num_gpus or None,
            lang=self.lang,
            may_read=self.roots.allows,
        )
        return answers.of_report(self._allowed(report), detail)

    def data(self, config: str, rows: int = 20_000) -> dict[str, Any]:
        """Look at the data sets of a training YAML: what LLaMA-Factory stops at or leaves out, damage, duplicates, lengths in tokens.

        Texts of samples are never in the answer, only file:line. rows: rows of each data set that are read at most (0: all).
        """
        from doctor.config.files import read_values
        from doctor.dataset.inspect import Look, inspect
        from doctor.dataset.sources import files_of, find_sources, info_file

        file = self.roots.reading(config)
        values = read_values(file)
        self.roots.check_all([str(info_file(values, file.parent))])
        self.roots.check_all(str(path) for path in files_of(find_sources(values, file.parent)))
        report = inspect(values, file.parent, Look(rows=max(0, rows), near=False), name=config)
        return answers.of_data(report, file.parent, self.lang)

    def estimate(self, config: str, gpu_memory_gib: float = 0, num_gpus: int = 0, fit: bool = False) -> dict[str, Any]:
        """Predict the peak memory of one GPU for a training YAML, in GiB, term by term.

        fit: also search for the longest cutoff_len and the largest batch that fit into gpu_memory_gib, and for the cheapest change.
        """
        from doctor.memory.estimate import estimate, read_config
        from doctor.memory.fit import fit as search

        file = self.roots.reading(config)
        given = {"gpu.total_gib": gpu_memory_gib or None, "world_size": num_gpus or None}
        facts: dict[str, Any] = {"config.folder": str(file.parent), **{name: value for name, value in given.items() if value is not None}}
        values = read_config(file)
        facts |= self._longest(values, file.parent, num_gpus or 1)
        peak = estimate(values, facts=facts)
        unknown = {"verdict": "unknown: give gpu_memory_gib"} if peak.verdict == "unknown" else {"verdict": peak.verdict}
        found = {"fit": search(values, facts=facts).to_dict()} if fit else {}
        return fitted({**unknown, **found, **{name: value for name, value in peak.to_dict().items() if name != "verdict"}}, DETAIL_TOKENS)

    def plan_patch(self, path: str, config: str = "", gpu_memory_gib: float = 0) -> dict[str, Any]:
        """Show the smallest change of the training config that is predicted to cure the run's root cause; nothing is written.

        path: the run's folder or console log; or a training YAML, which is then checked as by check.
        The answer says which keys change from what to what and why, the predicted effect, and the command to train with it. "patch": "none"
        means that no option cures the cause; do what "instead" says.
        """
        return answers.of_patch(self._report(path, config, gpu_memory_gib))

    def apply_patch(self, path: str, output: str, config: str = "", gpu_memory_gib: float = 0) -> dict[str, Any]:
        """Write the patched training config of plan_patch to a new YAML file; existing files are never changed.

        output: the new file. Train with the command in the answer. Needs a server that was started with --allow-write.
        """
        if not self.allow_write:
            raise DoctorError(
                "this server is read-only; the user can start it with: lfdoctor mcp --allow-write. plan_patch shows the patch"
            )
        target = self.roots.writing(output)
        report = self._report(path, config, gpu_memory_gib)
        patch = report.patch
        if patch is None or patch.yaml is None:
            return {"written": None, **answers.of_patch(report)}
        from doctor.reporters.advice import with_config

        with target.open("x", encoding="utf-8", newline="\n") as file:  # "x": a file that came meanwhile is not overwritten
            file.write(patch.yaml)
        command = with_config(patch.command, patch.file, str(target))
        return {"written": str(target), "packages": patch.packages, "command": command, "notes": patch.notes}

    def watch(self, path: str) -> dict[str, Any]:
        """The state of a running or finished training right now: status, step, time left, loss, memory, findings so far."""
        from doctor.live.watch.view import Watched

        state = Watched(self.roots.reading(path), self.lang).state()
        data: dict[str, Any] = msgspec.to_builtins(state)
        findings = [{"rule": one.rule, "severity": one.severity, "title": one.title, "why": one.text} for one in state.findings]
        return fitted(
            {"status": state.status, "findings": findings, **{key: value for key, value in data.items() if _short(key, value)}},
            VERDICT_TOKENS,
        )

    def explain(self, rule: str) -> dict[str, Any]:
        """What a rule or cause means, how it is detected, and what helps. rule: an id such as memory/gpu-oom-activations, or a cause."""
        from doctor.diagnosis.tools import Tools
        from doctor.rulebook.lookup import find

        rules = find(Tools.load().book, rule)
        pages = [
            {
                "rule": one.id,
                "title": with_names(one.title.get(self.lang)),
                "means": [with_names(body.get(self.lang)) for body in one.body],
                "helps": [with_names(remedy.text.get(self.lang)) for remedy in one.remedies],
                "references": one.references,
            }
            for one in rules
        ]
        return fitted({"found": len(rules), "rules": pages}, DETAIL_TOKENS)

    def compare(self, paths: list[str]) -> dict[str, Any]:
        """What differs between two or more runs, and which difference explains why some failed ("cannot tell" is an answer)."""
        from doctor.fleet.attribution.compare import compare
        from doctor.fleet.output import explanations

        compared = compare([str(self.roots.reading(path)) for path in paths], lang=self.lang)
        found = compared.explanation
        return fitted(
            {
                "verdict": found.verdict,
                "says": explanations.verdict(found, self.lang) if found.verdict != "found" else "",
                "guilty": [explanations.candidate(one, self.lang) for one in found.suspects if one.guilty][:5],
                "runs": [{"path": run.path, "status": run.status, "cause": run.cause} for run in compared.runs],
                "differences": {one.key: one.values for one in compared.differences},
            },
            DETAIL_TOKENS,
        )

    def _longest(self, values: Mapping[str, Any], folder: Path, world: int) -> dict[str, Any]:
        """The longest sample of small data sets inside the roots, as facts."""
        from doctor.dataset.longest import SMALL_BYTES, longest
        from doctor.dataset.sources import files_of, find_sources, info_file

        allowed = self.roots.allows
        if not allowed(info_file(values, folder)) or not all(map(allowed, files_of(find_sources(values, folder)))):
            return {}
        return longest(values, folder, world=world, most_bytes=SMALL_BYTES).facts()

    def _report(self, path: str, config: str, gpu_memory_gib: float) -> Report:
        from doctor.diagnosis.check import check
        from doctor.diagnosis.pipeline import analyze

        real = self.roots.reading(path)
        about: dict[str, Any] = {"gpu_memory_gib": gpu_memory_gib or None, "lang": self.lang, "may_read": self.roots.allows}
        if real.suffix in (".yaml", ".yml"):
            return self._allowed(
                check(real, folder=real.parent, gpu_memory_gib=gpu_memory_gib or None, lang=self.lang, may_read=self.roots.allows)
            )
        given = self.roots.reading(config) if config else None
        return self._allowed(analyze(real, config=given, **about))

    def _allowed(self, report: Report) -> Report:
        """The report, if all files that it was made from lie inside the roots (a script may name a config elsewhere)."""
        sources = [source.path for source in report.run.sources]
        self.roots.check_all([*sources, *([report.patch.source] if report.patch and report.patch.source else [])])
        return report


def _short(key: str, value: Any) -> bool:
    """Whether a part of a live state is a figure or a short text, no curve."""
    return key not in ("findings", "status") and isinstance(value, str | int | float) and len(str(value)) < 200
