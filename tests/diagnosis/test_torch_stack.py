"""torch beside torch_npu, torchvision and torchaudio: what belongs together is told with numbers, and a CUDA build never on an NPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.diagnosis.torch_stack import mismatch
from doctor.report.model import FindingView
from doctor.reporters.advice import todo

NPU_CRASH = """\
Traceback (most recent call last):
  File "/usr/local/lib/python3.11/site-packages/torch_npu/utils/__init__.py", line 4, in <module>
    from torch_npu import _C
ImportError: /usr/local/lib/python3.11/site-packages/torch_npu/lib/libtorch_npu.so: undefined symbol: _ZN3c10abcE
"""
VISION_CRASH = "RuntimeError: operator torchvision::nms does not exist\n"


def first_steps(folder: Path, log: str) -> tuple[FindingView, list[str]]:
    (folder / "console.log").write_text(log, encoding="utf-8")
    report = analyze(folder)
    return report.findings[0], [remedy.text for remedy in todo(report)]


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        ({"torch": "2.9.1", "torch_npu": "2.8.0"}, {"torch": "2.8.0"}),
        ({"torch": "2.6.0+cpu", "torch_npu": "2.5.1.post1", "torchvision": "0.21.0"}, {"torch": "2.5.1", "torchvision": "0.20.1"}),
        ({"torch": "2.5.1+cpu", "torch_npu": "2.5.1.post1", "torchvision": "0.20.1"}, None),
        ({"torch": "2.8.0", "torchvision": "0.24.1+cu128", "torchaudio": "2.8.0"}, {"torchvision": "0.23.0"}),
        ({"torch": "2.8.0+cu126", "torchvision": "0.23.0+cu126"}, None),
        # a nightly that the table does not have says nothing
        ({"torch": "2.99.0", "torchvision": "0.23.0"}, None),
        ({"torch_npu": "2.8.0"}, None),
    ],
)
def test_what_belongs_together(installed: dict[str, str], wanted: dict[str, str] | None) -> None:
    """By the tables of pytorch.org and of Ascend's extension."""
    found = mismatch({f"versions.{name}": version for name, version in installed.items()})
    assert (dict(found.wanted) if found else None) == wanted


def test_pip_list_beside_the_error_gives_the_numbers(tmp_path: Path) -> None:
    """torch_npu decides: it is built for one torch."""
    table = "torch                  2.9.1\ntorch_npu              2.8.0\ntorchaudio             2.9.1\ntorchvision            0.24.1\n"
    found, _ = first_steps(tmp_path, NPU_CRASH + "\n" + table)
    assert found.cause == "package_version_conflict"
    assert found.remedies[0].command == "pip install torch==2.8.0 torchvision==0.23.0 torchaudio==2.8.0"
    assert "torch_npu 2.8.0 is built for torch 2.8.0, and torch 2.9.1 is installed" in found.remedies[0].text


def test_without_versions_the_rule_is_told(tmp_path: Path) -> None:
    """No number is invented, and no CUDA build is named on an Ascend machine."""
    _, steps = first_steps(tmp_path, NPU_CRASH)
    assert "both have the same number" in steps[0]
    assert not any("CUDA" in step for step in steps)


def test_on_a_gpu_the_partner_follows_torch(tmp_path: Path) -> None:
    """torchvision of another torch: it is replaced, torch stays."""
    found, _ = first_steps(tmp_path, VISION_CRASH + "torch              2.6.0\ntorchvision        0.22.0\n")
    assert found.remedies[0].command == "pip install torchvision==0.21.0"
    assert "the installed torch 2.6.0" in found.remedies[0].text


def test_versions_that_fit_change_nothing(tmp_path: Path) -> None:
    """The same error with fitting numbers: another CUDA build is the likelier reason, and the general step stays first."""
    found, steps = first_steps(tmp_path, VISION_CRASH + "torch              2.6.0\ntorchvision        0.21.0\n")
    assert "one CUDA version" in steps[0]
    assert not any("torchvision==" in (remedy.command or "") for remedy in found.remedies)
