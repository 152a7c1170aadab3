"""Runs of the lab with faults put in, repaired by a scripted client of `lfdoctor mcp`: reads the verdict, applies the patch, starts again.

    python -m tests.lab.agent [NAME_PATTERN ...] [--attempts 3]

The client stands in for a coding agent: it knows nothing of the fault and decides by `verdict`, `patch` and `command` alone. A case is
repaired if a later run of the real LLaMA-Factory, with the fault still put in where a config can cure it, is diagnosed as healthy. Answers
are counted against their budgets.

2026-11-30, 18 of the 36 cases that a config can cure (the others were not run): 18 repaired, each by the first patch; longest verdict
536 tokens of 800, longest other answer 213 of 3,000. In one of them (gpu_oom_activations-forward) the fault is played and struck once only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fnmatch
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from doctor.agents.budget import DETAIL_TOKENS, VERDICT_TOKENS, tokens
from tests.lab import runner
from tests.lab.install import ROOT, install
from tests.lab.scenarios import SCENARIOS, Scenario

FOLDER = ROOT / ".lab"


class Agent:
    """The stand-in: one session with the server, asks for JSON, remembers the longest answers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.longest = {"diagnose": 0, "other": 0}

    async def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(name, arguments)
        text = "".join(part.text for part in result.content)
        place = "diagnose" if name == "diagnose" else "other"
        self.longest[place] = max(self.longest[place], tokens(text))
        return {"refused": text} if result.is_error else dict(json.loads(text))

    async def repair(self, scenario: Scenario, work: Path, attempts: int) -> str:
        """What came of it: `repaired`, or why not."""
        log, config = "console.log", "train.yaml"
        for number in range(1, attempts + 1):
            told = await self.ask("diagnose", path=str(work / log), config=str(work / config))
            if told.get("verdict") == "healthy":
                return "repaired" if number > 1 else "the fault was not seen"
            if number == attempts:
                return f"still {told.get('cause')}"
            new = f"attempt{number}.yaml"
            done = await self.ask("apply_patch", path=str(work / log), config=str(work / config), output=str(work / new))
            if not done.get("written"):
                return f"no patch for {told.get('cause')}: {done.get('refused') or done.get('instead')}"
            config, log = new, f"attempt{number}.log"
            started = runner.shell(
                work,
                (work / new).read_text(encoding="utf-8"),
                scenario,
                fault=_fault(scenario),
                name=new,
                log=log,
                env=_variables(done["command"]),
            )
            if started == 127:
                return "the command cannot be started"
        return "too many attempts"


def _fault(scenario: Scenario) -> dict[str, Any]:
    """The fault stays where a config can cure it; a fault that strikes whatever the config says is put in once."""
    return dict(scenario.fault) if scenario.curable else {}


def _variables(command: str | None) -> dict[str, str]:
    """The variables before a proposed command."""
    words = shlex.split(command or "")
    return dict(word.split("=", 1) for word in words[: next((at for at, word in enumerate(words) if "=" not in word), 0)])


async def session(scenario: Scenario, work: Path, attempts: int) -> tuple[str, dict[str, int]]:
    """One case over the real server."""
    program = StdioServerParameters(
        command=sys.executable,
        args=["-m", "doctor", "mcp", "--root", str(work), "--allow-write"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    async with Client(program) as client:
        agent = Agent(client)
        return await agent.repair(scenario, work, attempts), agent.longest


def main() -> int:
    """Print each case and the share that was repaired; exit code 1 if an answer broke its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--attempts", type=int, default=3)
    arguments = parser.parse_args()
    install()
    kit = runner.kit(FOLDER / "kit")
    cases = [one for one in SCENARIOS if one.cause and (one.curable or one.patch_runs) and one.script]
    chosen = [one for one in cases if any(fnmatch.fnmatch(one.name, pattern) for pattern in arguments.patterns)]
    repaired, over = 0, 0
    for scenario in chosen:
        began, work = time.monotonic(), FOLDER / "agent" / scenario.name
        longest: dict[str, int] = {}
        outcome = "did not run"
        with contextlib.suppress(TimeoutError, RuntimeError):
            runner.run(scenario, work, kit)
            outcome, longest = asyncio.run(session(scenario, work, arguments.attempts))
        repaired += outcome == "repaired"
        over += longest.get("diagnose", 0) > VERDICT_TOKENS or longest.get("other", 0) > DETAIL_TOKENS
        print(
            f"{'ok  ' if outcome == 'repaired' else 'FAIL'} {scenario.name:52} {time.monotonic() - began:4.0f} s {longest} {outcome}",
            flush=True,
        )
    print(f"{repaired} of {len(chosen)} repaired; answers over their budget in {over}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
