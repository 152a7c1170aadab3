"""`make lab`: runs every scenario with the real LLaMA-Factory, lets the doctor look at it, and proves the patches.

    python -m tests.lab.run [NAME_PATTERN ...] [--all] [--write] [--jobs 2] [--recorded] [--no-patches]

Per scenario: the declared root cause is reported, on the rank that failed first; healthy runs are left in peace; the patched config is
accepted by the real parser; where the fault is curable by config, the patched run really trains to its end under the same conditions
(same `ulimit`, same injected slowness) and the cause is gone. `--write` makes the fresh runs the new fixtures.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import doctor
from doctor.report.model import Report
from tests.lab import runner
from tests.lab.harvest import harvest
from tests.lab.install import RELEASE, ROOT, install, lab_bin, lab_folder, stack
from tests.lab.scenarios import SCENARIOS, VARIANTS, Scenario

FOLDER = lab_folder()
FIXTURES = ROOT / "fixtures"
SHARE_POINTS = 10.0


@dataclass
class Outcome:
    """What came of one scenario; `wrong` is empty where all went as declared."""

    scenario: Scenario
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    said: str = ""
    patched: Path | None = None


def judge(scenario: Scenario, report: Report) -> list[str]:
    """What is wrong with the doctor's answer to a run whose fault is known."""
    loud = [one.rule for one in report.findings if one.severity != "note"]
    if scenario.cause is None:
        return [f"healthy run, but {loud}"] if loud or report.patch else []
    wrong = list(report.problems)
    if scenario.status and report.run.status != scenario.status:
        wrong.append(f"status {report.run.status}, wanted {scenario.status}")
    if not scenario.decidable:
        return wrong
    if not scenario.accepts(report.cause):
        wrong.append(f"cause {report.cause}, wanted {scenario.cause}")
    root = next((one for one in report.findings if one.role == "root"), None)
    if root and scenario.failing_rank is not None and root.ranks != [scenario.failing_rank]:
        wrong.append(f"ranks {root.ranks}, wanted {[scenario.failing_rank]}")
    return wrong


def share_told(report: Report) -> float | None:
    """The share of the training time, in per cent, that the root finding's text names."""
    root = next((one for one in report.findings if one.role == "root"), None)
    found = re.search(r"(\d+(?:\.\d+)?) ?%", root.text) if root else None
    return float(found[1]) if found else None


def judge_share(scenario: Scenario, report: Report, truth: dict[str, float]) -> list[str]:
    """A speed finding that names a share must be within 10 points of what was really spent."""
    told = share_told(report)
    if scenario.share is None or not scenario.decidable or told is None:
        return []
    real = 100 * truth[scenario.share] / truth["logged"]
    return [f"share {told:.0f} %, really {real:.0f} %"] if abs(told - real) > SHARE_POINTS else []


def try_scenario(scenario: Scenario, kit: Path, arguments: argparse.Namespace) -> Outcome:
    """Runs, harvests, analyzes, and where it is curable runs again as patched."""
    outcome, began, work = Outcome(scenario), time.monotonic(), FOLDER / "work" / scenario.name
    try:
        recorded = arguments.recorded or (scenario.name in VARIANTS and not (arguments.all or arguments.write))
        if recorded:
            runner.prepare(scenario, work, kit)
            fixture = FIXTURES / scenario.name
        else:
            runner.run(scenario, work, kit)
            fixture = harvest(work, (FIXTURES if arguments.write else FOLDER / "fresh") / scenario.name, scenario)
        report = doctor.analyze(fixture)
        outcome.said = report.cause or "healthy"
        outcome.wrong += judge(scenario, report)
        if scenario.share and not recorded:
            outcome.wrong += judge_share(scenario, report, runner.truth(work, scenario.fault.get("rank", 0)))
        if report.patch and report.patch.yaml and scenario.cause:
            outcome.patched = work / "patched.yaml"
            outcome.patched.write_text(report.patch.yaml, encoding="utf-8")
        if (scenario.curable or scenario.patch_runs) and not (arguments.no_patches or recorded or needs_deepspeed(report)):
            outcome.wrong += cure(scenario, work, report)
    except Exception as error:  # a broken run or a broken doctor costs this scenario only
        outcome.wrong.append(f"{type(error).__name__}: {error}")
    outcome.seconds = time.monotonic() - began
    print(
        f"{'ok  ' if not outcome.wrong else 'FAIL'} {scenario.name:58} {outcome.seconds:5.0f} s  {outcome.said} {'; '.join(outcome.wrong)}",
        flush=True,
    )
    return outcome


def needs_deepspeed(report: Report) -> bool:
    """Whether the patched run would need DeepSpeed's compiled operators, which the lab lacks: such a patch is only parsed."""
    return report.patch is not None and report.patch.yaml is not None and "deepspeed:" in report.patch.yaml


def cure(scenario: Scenario, work: Path, report: Report) -> list[str]:
    """Trains with the patched config; returns what is wrong with that."""
    if report.patch is None or report.patch.yaml is None:
        return ["curable by config, but there is no patch"]
    env = {one.key: str(one.new) for one in report.patch.changes if one.target == "env" and one.op == "set"}
    if scenario.gpu and "bf16: true" in report.patch.yaml:
        env["LFDOCTOR_LAB_BF16"] = "1"
    fault = scenario.fault if scenario.curable else {}
    before = set((work / "saves").rglob("*"))
    code = runner.shell(work, report.patch.yaml, scenario, fault=fault, name="patched.yaml", log="patched.log", env=env)
    for path in sorted(set((work / "saves").rglob("*")) - before, reverse=True):  # the parser is asked as the user's folder is: before that
        path.rmdir() if path.is_dir() else path.unlink()
    if code:
        return [f"the patched run ended with exit code {code}, see {work}/patched.log"]
    again = doctor.analyze(work / "patched.log")
    if again.run.status not in ("completed", "unknown"):
        return [f"the patched run is {again.run.status}"]
    return [f"the patched run still has {again.cause}"] if again.cause and scenario.accepts(again.cause) else []


def accepted(outcomes: list[Outcome]) -> None:
    """Lets the real parser read every patched config."""
    patched = {str(one.patched): one for one in outcomes if one.patched}
    answers = subprocess.run(
        [str(lab_bin() / "python"), str(Path(__file__).with_name("accept.py"))],
        input="\n".join(patched), text=True, capture_output=True, check=True, cwd=FOLDER / "kit",
    ).stdout  # fmt: skip
    for line in answers.splitlines():
        if line.startswith('{"config"') and (answer := json.loads(line))["error"]:
            patched[answer["config"]].wrong.append(f"LLaMA-Factory refuses the patched config: {answer['error']}")
    print(f"{len(patched)} patched configs were read by the real parser")


def main() -> int:
    """Exit code 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=list(stack().scenarios), help="those of the stack (stacks.yaml) by default")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--all", action="store_true", help="run the variants too, of which else only the recordings are judged")
    parser.add_argument("--recorded", action="store_true", help="train nothing: judge the fixtures, let the parser read their patches")
    parser.add_argument("--no-patches", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.write and stack().name != RELEASE:
        parser.error("fixtures are runs of the release")
    chosen = [one for one in SCENARIOS if any(fnmatch.fnmatch(one.name, pattern) for pattern in arguments.patterns)]
    began = time.monotonic()
    install()
    kit = runner.kit(FOLDER / "kit")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outcomes = list(pool.map(lambda one: try_scenario(one, kit, arguments), chosen))
    if not arguments.no_patches:
        accepted(outcomes)
    bad = [one for one in outcomes if one.wrong]
    for one in bad:
        print(f"FAIL {one.scenario.name}: {'; '.join(one.wrong)}", file=sys.stderr)
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} scenarios as declared, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
