"""What commands install and remove."""

from __future__ import annotations

import pytest

from doctor.report.packages import package_changes


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ('pip install "transformers>=4.38"', [("set", "transformers", "4.30.2", ">=4.38")]),
        ("python -m pip install jieba nltk", [("set", "jieba", None, "any"), ("set", "nltk", None, "any")]),
        (
            "pip install -U 'bitsandbytes>=0.43.0' liger-kernel",
            [("set", "bitsandbytes", None, ">=0.43.0"), ("set", "liger-kernel", None, "newest")],
        ),
        ("pip uninstall -y flash-attn", [("unset", "flash-attn", None, None)]),
        ("git pull && pip install -e .", []),
        ("pip install -r requirements.txt -e ./here", []),
        ("pip install torch --index-url https://download.pytorch.org/whl/cu118", [("set", "torch", None, "any")]),
        ("pip install 'deepspeed[ops]<0.17'; ds_report", [("set", "deepspeed", None, "<0.17")]),
        ("llamafactory-cli env; pip check", []),
        ("pip install 'open", []),
        (None, []),
    ],
)
def test_what_pip_is_told_to_do(command: str | None, changes: list[tuple[str, str, str | None, str | None]]) -> None:
    """Each package with its installed and asked releases; folders, files and other programs are none."""
    assert list(package_changes(command, {"versions.transformers": "4.30.2"})) == changes
