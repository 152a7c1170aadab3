"""What benchmarks/origin_store.py joins from several releases, and that the file it writes is found in by origins.find."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import origin_store
from origin_packages import Source
from origin_store import Collected, write

from doctor.diagnosis.unlisted import origin_index, origins

OLD = b"""
def load(path):
    raise OSError(f"cannot decipher {path} without its keyring")

class Reader:
    def __getattr__(self, name):
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
"""
NEW = b"""
def open_file(path):
    raise OSError(f"cannot decipher {path} without its keyring")

def check(a, b):
    if a != b:
        raise ValueError(f"Both halves must agree about zeppelins, but found:\\n - {a} for quaternions\\n - {b}")
    raise ValueError(f"{a} is no {b}")
"""


def source(path: str, text: bytes) -> Source:
    return Source(path, (zlib.crc32(text), len(text)), lambda: text)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> origin_index.Index:
    """Three releases of a package: `load` became `open_file` with the last one. Many other words make those of the messages rare."""
    words = [f"filler{number} other{number} more{number}" for number in range(400)]
    filler = "\n".join(f'def f{number}():\n    raise ValueError("{text}")' for number, text in enumerate(words)).encode()
    releases = [
        (version, [source("pack/a.py", text), source("pack/filler.py", filler)])
        for version, text in (("1.0", OLD), ("1.1", OLD), ("2.0", NEW))
    ]
    collected = Collected()
    collected.add("pack", releases)
    file = tmp_path_factory.mktemp("index") / "origins.msgpack"
    # the filler, `decipher` and `zeppelins`; neither `{} is no {}` nor what the interpreter says too
    assert write(collected, file) == 402
    return origin_index.load(file)


def test_places_and_releases(index: origin_index.Index) -> None:
    """One message, two functions, each with the releases that have it."""
    found = origins.find("OSError", "cannot decipher /data/x without its keyring", index=index)
    assert found is not None
    assert [(site.function, site.first.name, site.last.name, site.oldest, site.newest) for site in found.sites] == [
        ("load", "1.0", "1.1", True, False),
        ("open_file", "2.0", "2.0", False, True),
    ]
    assert (found.package, found.module, found.function, found.template) == (
        "pack",
        "pack/a.py",
        "",
        "cannot decipher {} without its keyring",
    )


def test_the_frame_chooses_the_place(index: origin_index.Index) -> None:
    """With the function that raised, only its releases are left."""
    found = origins.find("OSError", "cannot decipher /data/x without its keyring", "pack", "open_file", index=index)
    assert found is not None
    assert [site.function for site in found.sites] == ["open_file"]


def test_a_first_line_is_enough(index: origin_index.Index) -> None:
    """The template is filed under a word of its first line, though `quaternions` of the second is as rare."""
    found = origins.find("ValueError", "Both halves must agree about zeppelins, but found:", index=index)
    assert found is not None
    assert found.function == "check"


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    """The shipped file changes only if the packages do."""
    for name in ("one", "two"):
        collected = Collected()
        collected.add("pack", [("1.0", [source("pack/a.py", NEW)])])
        write(collected, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_was_parsed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run takes over the parts that the first one parsed."""
    first = Collected()
    first.add("pack", [("1.0", [source("pack/a.py", NEW)])])
    first.save_parsed(tmp_path)
    second = Collected()
    second.load_parsed(tmp_path)
    monkeypatch.setattr(origin_store, "_parse", lambda new: pytest.fail(str(new)) if new else {})
    second.add("pack", [("1.0", [source("pack/a.py", NEW)])])
    assert second.templates == first.templates
