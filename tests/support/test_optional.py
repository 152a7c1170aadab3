"""The door to optional libraries: a missing one is named with its pip command at the moment it is wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from doctor.core.run import Run
from doctor.errors import NOTHING_TO_READ, DoctorError
from doctor.support.optional import MissingPackage, need, optional, package_folder

NAMELESS = "a_library_that_nobody_has_written"


def test_a_missing_library_is_named_with_its_command() -> None:
    """Its own name, the extra, and what it is wanted for; the exit code is the caller's."""
    with pytest.raises(MissingPackage, match=rf"^the report needs the package {NAMELESS}: pip install 'lfdoctor\[html\]'$") as raised:
        need(NAMELESS, "html", "the report", NOTHING_TO_READ)
    assert raised.value.exit_code == NOTHING_TO_READ
    assert isinstance(raised.value, DoctorError)
    assert optional(NAMELESS, "html") is None
    assert package_folder(NAMELESS, "html") is None


def test_the_library_that_another_one_lacks_is_the_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is there but imports a missing one: the message names the missing one."""
    (tmp_path / "half_installed.py").write_text(f"import {NAMELESS}.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackage, match=f"the package {NAMELESS}:"):
        need("half_installed", "fleet")


def test_a_folder_is_found_without_importing() -> None:
    """The place of a package that this process has not loaded."""
    code = (
        "import sys; from doctor.support.optional import package_folder as at\n"
        "print(at('xml.dom', 'html')); print('xml.dom' in sys.modules)"
    )
    folder, loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert Path(folder, "minidom.py").is_file()
    assert loaded == "False"


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run.frame() is the one place that needs pandas."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match=r"Run\.frame\(\) needs the package pandas: pip install 'lfdoctor\[pandas\]'"):
        Run().frame()
