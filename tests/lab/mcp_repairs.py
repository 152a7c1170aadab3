"""Fifty faults of the lab, repaired by a scripted client of `lfdoctor mcp` that follows the steps of the skill.

    python -m tests.lab.mcp_repairs [NAME_PATTERN ...] [--attempts 3] [--keep DIR] [--nice 10]

The client stands in for a coding agent: it knows nothing of the fault and decides by `verdict`, `cause` and `command` alone. It reads the
verdict, lets the patch be written, starts the command of the answer under `lfdoctor run`, and reads the new run; after three attempts, or
where a cause comes back after its patch, it stops. The fault stays where it was (the card that holds so many samples, the limit, the port).
Repaired means what `cures.py` means by cured: the planned end, finite weights, a loss that has not risen, the same effective batch, no
second fault; the client must also have stopped because the run was healthy. 32 faults are those of `cures.py` (near variants and the four
that no option cures left out), 18 were written before anybody looked how they are answered (`scenarios/unseen.py`).

Each answer is counted with its bound (`doctor/agents/budget.py`) and kept in NAME.json for counting with a tokenizer.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from doctor.agents.budget import DETAIL_TOKENS, VERDICT_TOKENS, tokens
from tests.lab import cures, runner
from tests.lab.cures import Cure
from tests.lab.install import ROOT, install
from tests.lab.scenarios.unseen import unseen

VARIANTS = (
    "gpu_oom_activations-forward-torch*",
    "gpu_oom_activations-both-ranks",
    "gpu_oom_activations-one-rank-backward",
    "gpu_oom_eval_or_predict-one-rank-eval",
    "lr_too_high-full-eval",
    "lr_too_high-dpo",
    "lr_too_high-saturated",
    "checkpoint_load_failure-full-over-lora",
    "config-unknown-key",
    "config-batch-zero",
)
"""Cures that another one of the list stands for here."""
PLAIN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli.main import main; sys.exit(main())"


def cases() -> list[Cure]:
    """The fifty faults."""
    known = [one for one in cures.CASES if one.by_hand is None and not any(fnmatch.fnmatch(one.scenario, name) for name in VARIANTS)]
    return known + [Cure(one.name) for one in unseen()]


@dataclass
class Outcome:
    """What came of a fault: the patches' causes in order, why the client stopped, what is wrong with the last run; answers by tool."""

    causes: list[str] = field(default_factory=list)
    stopped: str = ""
    wrong: list[str] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def repaired(self) -> bool:
        """The client took the run for healthy, and it is."""
        return self.stopped == "healthy" and not self.wrong

    def longest(self, tool: str) -> int:
        """The bound of the longest answer of a tool."""
        return max((tokens(text) for name, text in self.answers if name == tool), default=0)


@dataclass
class Agent:
    """The stand-in: one session with the server; `start` starts a command in the run's circumstances and returns its exit code."""

    client: Client
    work: Path
    case: Cure
    outcome: Outcome

    async def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """An answer as data; a refusal as `refused`."""
        result = await self.client.call_tool(name, arguments)
        text = "".join(part.text for part in result.content)
        self.outcome.answers.append((f"{name} {arguments['detail']}" if "detail" in arguments else name, text))
        return {"refused": text} if result.is_error else dict(json.loads(text))

    async def repair(self, attempts: int) -> Path | None:
        """Follow the skill until the run is healthy; return the config of the last run that was started."""
        run, config = self.work, None
        for number in range(1, attempts + 2):
            told = await self.ask("diagnose", path=str(run))
            verdict, cause = str(told.get("verdict")), str(told.get("cause"))
            if verdict in ("healthy", "undecided") or number > attempts or cause in self.outcome.causes:
                self.outcome.stopped = verdict if verdict in ("healthy", "undecided") else f"still {cause}"
                return config
            self.outcome.causes.append(cause)
            await self.ask("diagnose", path=str(run), detail="evidence")
            await self.ask("plan_patch", path=str(run))
            done = await self.ask("apply_patch", path=str(run), output=str(self.work / f"attempt{number}.yaml"))
            if not done.get("command"):
                self.outcome.stopped = f"no command for {cause}: {done.get('refused') or done.get('instead')}"
                return config
            config = Path(done["written"]) if done.get("written") else config or self.work / "train.yaml"
            run = self.work / f"attempt{number}"
            start(self.case, self.work, done["command"], run.name)
        raise AssertionError("the last round returns")


def start(case: Cure, work: Path, command: str, folder: str) -> int:
    """`lfdoctor run -o FOLDER -- COMMAND` in a shell with the limits and variables of the faulty run; its exit code."""
    words = shlex.split(command)
    given = 0
    while re.match(r"\w+=", words[given]):
        given += 1
    variables = runner._environment(work, case.faulty, {} if case.once else case.faulty.fault)
    variables |= {"LFDOCTOR_LAB_BF16": "1"} if case.bf16 else {}
    variables |= dict(word.split("=", 1) for word in words[:given])
    line = [sys.executable, "-c", PLAIN, "run", "-o", folder, "--", *words[given:]]
    shell = ["bash", "-c", f'{cures.limit(work)}; exec "$0" "$@"', *line]
    with runner.held(case.faulty.held_port), (work / f"{folder}.out").open("wb") as log:
        return subprocess.run(
            shell, cwd=work, env=variables, stdout=log, stderr=log, timeout=runner.TIMEOUT_SECONDS, check=False
        ).returncode


async def session(case: Cure, work: Path, attempts: int, outcome: Outcome) -> Path | None:
    """One fault over the real server."""
    program = StdioServerParameters(
        command=sys.executable,
        args=["-m", "doctor", "mcp", "--root", str(work), "--allow-write"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    async with Client(program) as client:
        return await Agent(client, work, case, outcome).repair(attempts)


def treat(case: Cure, base: Path, attempts: int) -> Outcome:
    """Let the run fail, let the client repair it, and judge the last run as `cures.py` does."""
    outcome, work = Outcome(), base / case.scenario
    cures.fail(case, work, base / "kit")
    config = asyncio.run(session(case, work, attempts, outcome))
    if config is None:
        outcome.wrong.append("nothing was started")
        return outcome
    result = cures.Result()
    try:
        cures.judge(result, 0, work, case.faulty, config)
    except FileNotFoundError as error:
        result.wrong.append(f"the last run left no {error.filename}")
    outcome.wrong += result.wrong
    return outcome


def tried(case: Cure, base: Path, attempts: int) -> Outcome:
    """`treat`, printed and kept; a run that breaks costs this fault only."""
    began = time.monotonic()
    try:
        outcome = treat(case, base, attempts)
    except Exception as error:
        outcome = Outcome(stopped="did not run", wrong=[f"{type(error).__name__}: {error}"])
    (base / f"{case.scenario}.json").write_text(json.dumps(dataclasses.asdict(outcome), ensure_ascii=False), encoding="utf-8")
    sizes = {name: outcome.longest(name) for name in ("diagnose", "diagnose evidence", "plan_patch", "apply_patch")}
    print(
        f"{'ok  ' if outcome.repaired else 'FAIL'} {case.scenario:45} {time.monotonic() - began:4.0f} s {list(sizes.values())}"
        f" {' > '.join(outcome.causes)}: {outcome.stopped} {'; '.join(outcome.wrong)}",
        flush=True,
    )
    return outcome


def main() -> int:
    """Print each fault and how many were repaired; exit code 1 if an answer broke its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the runs and the answers; default: a temporary one")
    parser.add_argument("--nice", type=int, default=10)
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    install()
    runner.TIMEOUT_SECONDS = cures.PATIENCE_SECONDS
    chosen = [one for one in cases() if any(fnmatch.fnmatch(one.scenario, pattern) for pattern in arguments.patterns)]
    with tempfile.TemporaryDirectory(prefix="lfdoctor-repairs-") as temporary:
        base = (arguments.keep or Path(temporary)).resolve()
        base.mkdir(parents=True, exist_ok=True)
        runner.kit(base / "kit")
        outcomes = [tried(one, base, arguments.attempts) for one in chosen]
    verdicts = max(one.longest("diagnose") for one in outcomes)
    others = max(one.longest(tool) for one in outcomes for tool in ("diagnose evidence", "plan_patch", "apply_patch"))
    print(f"{sum(one.repaired for one in outcomes)} of {len(chosen)} repaired; longest verdict {verdicts}, longest other answer {others}")
    return 1 if verdicts > VERDICT_TOKENS or others > DETAIL_TOKENS else 0


if __name__ == "__main__":
    sys.exit(main())
