"""First failure, not last: which finding is the root, and which are only what followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import doctor
from doctor.core.events import Where
from doctor.diagnosis.causes import assign_roles
from doctor.diagnosis.refinement import LANE_WIDTH
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding
from doctor.rulebook.model import Rule
from doctor.support.texts import Text

WORDS = Text(en="x", ko="가")


def finding(name: str, order: int, *, by: tuple[str, ...] = (), severity: Any = "error", confidence: float = 0.9, **more: Any) -> Finding:
    rule = Rule(
        id=name, cause="c", symptom="crash", severity=severity, when={"x": {}}, title=WORDS, body=[WORDS], confidence=confidence,
        explained_by=list(by), fallback=more.get("fallback", False),
    )  # fmt: skip
    rank = more.get("rank")
    first = Match(
        evidence=(Evidence(Where(more.get("file", "log"), more.get("line", order)), name),),
        facts=more.get("facts", {}),
        rank=rank,
        attempt=more.get("attempt", 0),
    )
    ranks = () if rank is None else (rank,)
    return Finding(
        rule=rule, first=first, count=1, ranks=ranks, steps=None, evidence=first.evidence, order=order, notice=more.get("notice", False)
    )


def roles(*findings: Finding) -> dict[str, str]:
    return {one.finding.rule.id: one.role for one in assign_roles(findings)}


def root(*findings: Finding) -> str | None:
    return next((one.finding.rule.id for one in assign_roles(findings) if one.role == "root"), None)


def test_the_earliest_unexplained_error_is_the_root():
    """Of several failures that nothing explains the first one counts, whatever came later."""
    assert root(finding("a/late", 9), finding("a/early", 2)) == "a/early"


def test_a_victim_printed_first_is_not_the_root():
    """A lost connection that stands above the failure which explains it is its consequence."""
    assert roles(finding("d/peer-gone", 1, by=("memory/*",)), finding("memory/oom", 5)) == {
        "d/peer-gone": "consequence",
        "memory/oom": "root",
    }


def test_of_two_that_explain_each_other_the_earlier_does():
    """Mutual explanations end with the earlier one as the root, never with none."""
    assert root(finding("a/x", 3, by=("a/*",)), finding("a/y", 1, by=("a/*",))) == "a/y"


def test_a_circle_of_explanations_still_has_a_root():
    """Even where every finding is explained by another the earliest one is told as the root."""
    circle = (finding("a/x", 3, by=("b/y",)), finding("b/y", 1, by=("c/z",)), finding("c/z", 2, by=("a/x",)))
    assert root(*circle) == "b/y"


def test_a_consequence_points_to_the_root_not_to_another_consequence():
    """Of several explanations the one that needs none itself is named."""
    judged = assign_roles([finding("d/echo", 9, by=("*/*",)), finding("d/timeout", 2, by=("memory/*",)), finding("memory/oom", 5)])
    assert {one.finding.rule.id: one.explained_by for one in judged} == {
        "memory/oom": None,
        "d/timeout": "memory/oom",
        "d/echo": "memory/oom",
    }


def test_a_guess_is_the_root_only_where_nothing_surer_is_left():
    """A finding that says `don't know for sure` gives way to a sure one that came later."""
    guess, sure = finding("a/guess", 1, confidence=0.35), finding("b/sure", 8)
    assert root(guess, sure) == "b/sure"
    assert root(guess) == "a/guess"


def test_a_surer_failure_is_the_root_though_it_came_later():
    """Of two that nothing explains, "almost certain" beats "likely"; within one of these words the earlier wins."""
    assert root(finding("a/likely", 1, confidence=0.85), finding("b/certain", 8, confidence=0.95)) == "b/certain"
    assert root(finding("a/likely", 1, confidence=0.72), finding("b/surer", 8, confidence=0.85)) == "a/likely"


def test_what_the_config_alone_says_comes_after_what_the_run_shows():
    """A certain mistake of the configuration does not displace a likely failure of the run."""
    assert root(finding("config/value", 2 * LANE_WIDTH + 1, confidence=0.95), finding("a/likely", 3, confidence=0.72)) == "a/likely"


def test_a_notice_is_never_the_root_of_a_failure():
    """A failure that an INFO line speaks of contributes; an error without such a doubt, or a warning, is the root."""
    notice = finding("memory/oom", 1, notice=True)
    assert roles(notice, finding("a/late", 9)) == {"memory/oom": "contributing", "a/late": "root"}
    assert root(notice) is None
    assert root(finding("speed/slow", 1, severity="warning", notice=True)) == "speed/slow"
    assert roles(notice, finding("d/exit", 9, by=("memory/*",)))["d/exit"] == "root"


def test_a_warning_about_the_config_explains_no_failure():
    """Training goes on with an option that is ignored, so a crash is not its consequence; a refused option is an error and explains it."""
    ignored = finding("config/ignored", 2 * LANE_WIDTH + 1, severity="warning")
    refused = finding("config/refused", 2 * LANE_WIDTH + 1)
    crash = finding("distributed/timeout", 5, by=("config/*",))
    assert roles(ignored, crash) == {"config/ignored": "contributing", "distributed/timeout": "root"}
    assert roles(refused, crash) == {"config/refused": "root", "distributed/timeout": "consequence"}


def test_a_warning_does_not_explain_a_failure_by_a_wildcard():
    """`*/*` means anything as severe; a warning explains an error only where its family is named."""
    warning = finding("stability/spike", 1, severity="warning")
    assert roles(warning, finding("d/exit", 5, by=("*/*",)))["d/exit"] == "root"
    assert roles(warning, finding("d/exit", 5, by=("stability/*",)))["d/exit"] == "consequence"


def test_a_warning_is_the_root_where_there_is_no_error():
    """Notes are never the root; a warning is, if nothing is worse."""
    assert root(finding("a/note", 1, severity="note"), finding("a/warning", 5, severity="warning")) == "a/warning"
    assert root(finding("a/note", 1, severity="note")) is None


def test_an_unknown_traceback_explains_what_came_after_it():
    """Where the first failure is one that nobody knows, its victims do not take its place."""
    unknown = finding("e/unknown", 99, severity="note", confidence=0.05, fallback=True, line=10)
    victim = finding("d/peer-gone", 5, by=("e/*",), line=40)
    assert root(unknown, victim) == "e/unknown"
    assert roles(unknown, victim)["d/peer-gone"] == "consequence"


def test_an_unknown_traceback_does_not_explain_what_came_before():
    """A known failure above an unknown traceback in one file stays the root."""
    unknown = finding("e/unknown", 99, severity="note", confidence=0.05, fallback=True, line=80)
    assert root(unknown, finding("d/timeout", 5, by=("e/*",), line=40)) == "d/timeout"


def test_of_several_attempts_the_latest_failure_counts():
    """A log that holds yesterday's run too: the cause is that of the attempt that failed last, an older one only contributes."""
    old = finding("memory/old", 1, attempt=0)
    assert roles(old, finding("memory/new", 2, attempt=1)) == {"memory/old": "contributing", "memory/new": "root"}
    assert root(old, finding("speed/slow", 3, attempt=1, severity="warning")) == "memory/old"


def test_the_launchers_first_rank_breaks_the_tie():
    """Of two equally sure failures the one on the rank that torchrun names as first is the root, even if printed later."""
    named = finding("d/exited", 20, by=("a/*",), confidence=0.3, rank=1, facts={"first": True})
    assert root(finding("a/on-rank-0", 3, rank=0), finding("a/on-rank-1", 9, rank=1), named) == "a/on-rank-1"


def test_roots_are_told_first():
    """The order of a report: root, what contributes, consequences."""
    judged: list[RankedFinding] = assign_roles(
        [finding("d/echo", 1, by=("m/*",)), finding("s/slow", 2, severity="warning"), finding("m/oom", 3)]
    )
    assert [one.finding.rule.id for one in judged] == ["m/oom", "s/slow", "d/echo"]


BLOCK = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
src/train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2025-04-02_11:20:15
  host      : node0
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 4241)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 4241
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2025-04-02_11:20:13
  host      : node0
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 4242)
  error_file: <N/A>
  traceback : {told}
============================================================
"""
EXITED = BLOCK.format(code=1, told="To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html")
OOM = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "/opt/venv/lib/python3.11/site-packages/transformers/trainer.py", line 3698, in training_step
[rank1]:     loss = self.compute_loss(model, inputs)
[rank1]:   File "/opt/venv/lib/python3.11/site-packages/transformers/models/qwen2/modeling_qwen2.py", line 240, in forward
[rank1]:     return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 592.00 MiB. GPU 1 has a total capacity of 23.65 GiB.
"""
WATCHDOG = (
    "[rank0]:[E1206 18:44:12.715298746 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=753, OpType=ALLREDUCE, NumelIn=256, Timeout(ms)=600000) ran for 600061 milliseconds before timing out.\n"
)
GONE = "[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:21654\n"
MAP = '''\
multiprocess.pool.RemoteTraceback:
"""
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/datasets/arrow_dataset.py", line 3400, in _map_single
    writer.write_batch(batch)
OSError: [Errno 28] No space left on device
"""
The above exception was the direct cause of the following exception:
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/multiprocess/pool.py", line 774, in get
    raise self._value
OSError: [Errno 28] No space left on device
'''
UNKNOWN = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "/home/lee/hooks.py", line 8, in on_step
[rank1]:     plan.check(step)
[rank1]: OddError: the plan is empty
"""
CASES = {
    "a-victim-first": (GONE + OOM + EXITED, "gpu_oom_activations", [1]),
    "a-watchdog-first": (WATCHDOG + OOM + EXITED, "gpu_oom_activations", [1]),
    "killed-rank": (GONE + BLOCK.format(code=-9, told="Signal 9 (SIGKILL) received by PID 4242"), "process_killed_unconfirmed", [1]),
    "crashed-rank": (GONE + BLOCK.format(code=-11, told="Signal 11 (SIGSEGV) received by PID 4242"), "native_library_crash", [1]),
    "bus-error": (GONE + BLOCK.format(code=-7, told="Signal 7 (SIGBUS) received by PID 4242"), "shm_too_small", [1]),
    "exit-without-a-word": (GONE + EXITED, "process_exited_unexplained", [1]),
    "unknown-then-victims": (UNKNOWN + GONE + WATCHDOG + EXITED, None, [1]),
    "worker-of-a-map": (MAP + EXITED, "disk_full", None),
    "only-a-watchdog": (WATCHDOG, "nccl_timeout_rank_desync", [0]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_cascade_is_told_by_what_began_it(name: str, tmp_path: Path):
    """Launcher blocks, watchdogs, lost connections and SIGTERM victims stand beside the failure; cause and rank are the first one's."""
    log, cause, ranks = CASES[name]
    (tmp_path / "console.log").write_text(log, encoding="utf-8")
    report = doctor.analyze(tmp_path)
    first = next(one for one in report.findings if one.role == "root")
    assert report.cause == cause
    assert ranks is None or first.ranks == ranks


def test_a_guess_is_honest_and_patches_nothing(tmp_path: Path):
    """A bare `Killed` is told with low confidence, names a command that would tell more, and changes no option."""
    (tmp_path / "console.log").write_text("[INFO|2025-01-10 11:02:33] llamafactory.launcher:143 >> started\nKilled\n", encoding="utf-8")
    report = doctor.analyze(tmp_path)
    only = report.findings[0]
    assert (only.cause, report.patch) == ("process_killed_unconfirmed", None)
    assert only.confidence <= 0.4
    assert any(remedy.command for remedy in only.remedies)
    assert not any(remedy.changes for remedy in only.remedies)
