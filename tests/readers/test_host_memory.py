"""What lines say of host memory is read, and told with the kill that it explains; what they deny is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.readers.console.facts import parse_facts
from doctor.reporters.advice import todo

KILL = "[2024-07-02 03:11:12,130] [ERROR] [launch.py:321:sigkill_handler] ['python', 'train.py'] exits with return code = -9"


def host(line: str) -> dict[str, Any]:
    return {name: value for name, value in parse_facts(line)[0] if name.startswith("host.")}


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        (
            "[INFO] [utils.py:782:see_memory_usage] CPU Virtual Memory:  used = 203.5 GB, percent = 80.9%",
            {"host.used_gib": 203.5, "host.percent": 80.9},
        ),
        ("memory: usage 65536000kB, limit 65536000kB, failcnt 12", {"host.used_gib": 62.5, "host.total_gib": 62.5, "host.percent": 100.0}),
        (
            "Memory on the node (IP: 10.0.0.2, ID: ab) where the task (train) was running was 120.00GB / 125.00GB (0.96), which exceeds",
            {"host.used_gib": 120.0, "host.total_gib": 125.0, "host.percent": 96.0},
        ),
        ("then the CPU memory (252G) is full", {"host.full": True, "host.total_gib": 252.0}),
        ("CPU内存（252G）占满", {"host.full": True, "host.total_gib": 252.0}),
        ("시스템 메모리가 가득 찼습니다", {"host.full": True}),
        ("RAM usage reaches 100% and the machine stops", {"host.full": True}),
        ("CPU memory was not full at any time", {}),
        ("CPU memory usage is fine", {}),
        ("CPU Virtual Memory:  used = 203.5 GB, percent = 0.0%", {}),
    ],
)
def test_figures_of_host_memory(line: str, facts: dict[str, Any]) -> None:
    """DeepSpeed's, the kernel's and Ray's figures, a person's words; a denial states nothing."""
    assert host(line) == pytest.approx(facts) if "host.full" not in facts else host(line) == facts


def test_a_persons_word_that_memory_was_full_is_heard(tmp_path: Path) -> None:
    """It stands below the error, and the first step is what fills host memory, not a look into the kernel's log."""
    (tmp_path / "console.log").write_text(f"{KILL}\nwhen it happens the CPU memory (252G) is full\n", encoding="utf-8")
    report = analyze(tmp_path)
    assert "252 GB" in report.findings[0].text
    assert "the log does not say" not in report.findings[0].title
    assert todo(report)[0].text.startswith("Offload less")


def test_a_bare_kill_comes_with_a_remedy_beside_the_check(tmp_path: Path) -> None:
    """The cause stays unproved, but the step says what to do if it was memory."""
    (tmp_path / "console.log").write_text(f"{KILL}\n", encoding="utf-8")
    report = analyze(tmp_path)
    first = todo(report)[0]
    assert report.findings[0].title.endswith("the log does not say by whom")
    assert "dmesg" in (first.command or "")
    assert "dataloader_num_workers: 0" in first.text


def test_deepspeeds_last_figure_is_quoted(tmp_path: Path) -> None:
    """The figure of the last line before the kill, not of an earlier one."""
    usage = (
        "[2024-07-02 03:1{n}:12,130] [INFO] [utils.py:782:see_memory_usage] CPU Virtual Memory:  used = {gib} GB, percent = {percent}%\n"
    )
    log = usage.format(n=0, gib=52.5, percent=20.9) + usage.format(n=1, gib=231.25, percent=92.0)
    (tmp_path / "console.log").write_text(f"{log}{KILL}\n", encoding="utf-8")
    assert "231.2 GiB in use, 92 % of it" in analyze(tmp_path).findings[0].text
