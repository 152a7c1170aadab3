"""Write every event of consoles as text, to compare two versions of the readers.

    python benchmarks/console_events.py OUT FILE_OR_FOLDER ...

Each file is read on its own with the rules' literals. OUT gets one line an event, after a line with the file's name; `diff` of two
such files shows what a change of the readers changed. Lines and phases are part of an event.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from doctor.diagnosis.engine import Engine
from doctor.errors import DoctorError
from doctor.readers import reading
from doctor.rulebook.loader import load

SUFFIXES = (".log", ".out", ".err", ".txt", "")
"""Suffixes of consoles in a folder."""


def consoles(paths: list[Path]) -> Iterator[Path]:
    """The given files, and what may be a console in the given folders."""
    for path in paths:
        yield from (path,) if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file() and one.suffix in SUFFIXES)


def main() -> None:
    """Write the events."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("paths", type=Path, nargs="+")
    arguments = parser.parse_args()
    literals = Engine(load().rules).literals
    with arguments.out.open("w", encoding="utf-8", errors="backslashreplace") as out:
        for path in consoles(arguments.paths):
            print(f"== {path}", file=out)
            try:
                for event in reading.read([path], literals=literals).events():
                    print(repr(event), file=out)
            except DoctorError as error:
                print(error, file=out)


if __name__ == "__main__":
    main()
