"""A real shell in which the programs that reports name only write down what they get."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

PROGRAMS = ("llamafactory-cli", "lfdoctor", "pip", "torchrun", "accelerate", "deepspeed", "python", "srun", "nohup", "nvidia-smi")
_DRY = """#!/bin/sh
{ printf '%s\\0' "${0##*/}" "$@"; printf '\\0'; env -0; printf '\\0'; } > "$DRY/$(ls "$DRY" | wc -l).call"
"""


class Call(NamedTuple):
    """What one program got: its own name, its arguments, and the variables that the line set for it."""

    program: str
    arguments: list[str]
    env: dict[str, str]


class DryShell:
    """`paste` gives lines to a shell as a terminal does, one after the other."""

    def __init__(self, folder: Path, shell: str = "bash") -> None:
        self.bin, self.cwd, self._calls = folder / "bin", folder / "cwd", folder / "calls"
        for made in (self.bin, self.cwd, self._calls):
            made.mkdir()
        for name in PROGRAMS:
            (self.bin / name).write_text(_DRY)
            (self.bin / name).chmod(0o755)
        for name in ("env", "ls", "wc"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self._shell = [str(shutil.which(shell)), *(["--norc", "--noprofile"] if shell == "bash" else []), "-s"]
        self._env = {"PATH": str(self.bin), "DRY": str(self._calls), "HOME": "/home/somebody", "LANG": "C.UTF-8"}

    def paste(self, *lines: str) -> list[Call]:
        """The calls that these lines make. Fails if the shell has anything to say, if a file was written, or if a line is several."""
        assert all("\n" not in line for line in lines), lines
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run(self._shell, input=text.encode(), env=self._env, cwd=self.cwd, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), (lines, done.stderr)
        assert list(self.cwd.iterdir()) == [], lines
        calls = [self._read(self._calls / f"{number}.call") for number in range(len(list(self._calls.iterdir())))]
        for path in self._calls.iterdir():
            path.unlink()
        return calls

    def _read(self, path: Path) -> Call:
        words, _, rest = path.read_bytes().partition(b"\0\0")
        program, *arguments = map(os.fsdecode, words.split(b"\0"))
        env = dict(os.fsdecode(entry).split("=", 1) for entry in rest.split(b"\0") if b"=" in entry)
        shells = {"_", "PWD", "SHLVL", "OLDPWD"}
        return Call(program, arguments, {name: value for name, value in env.items() if name not in self._env and name not in shells})
