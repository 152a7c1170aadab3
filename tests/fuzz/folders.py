"""Run folders to be read: a recorded run, more formats beside it, and a few things that went wrong. One seed, one folder."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.damage import damaged
from tests.fuzz.material import material

Dice = random.Random
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
_NOT_OF_A_RUN = ("expected.yaml", "ORIGIN.md")

ODD_NAMES = (
    b"\xff\xfe.log", b"a\nb.log", b"-rf.log", b"--config", b"console .log", b"it's.log", b'"q".yaml', b"$(touch x).log",
    b"\xed\xa0\x80.yaml", "학습 로그.log".encode(), "训练.yaml".encode(), b"x" * 250 + b".log", b"\x1b[31m.log", b"%s%n.log", b"<b>.log",
    b"train.yaml.orig", b".log", b"...",
    b"trainer_log.jsonl.gz", b"console.log.1", b"CON.log", b"\xe2\x80\xaegol.log", b"run-abc.wandb", b"checkpoint-9",
    b"checkpoint-99999999999999999999999", b"rank-1.log", b"job-7.out", b"job-7.err", b"job-\xd9\xa3.out", b"events.out.tfevents.0",
)  # fmt: skip
"""File names: no UTF-8, control characters, shell words, long ones, numbers beyond integers, digits of other scripts."""

_TARGETS = ("/dev/zero", "/dev/null", "..", ".", "self", "nowhere", "/proc/self/mem", "/proc/self/environ")


def make(folder: Path, seed: int) -> Path:
    """Fill `folder` (not there yet) from `seed`; return what `analyze` is to read: the folder, or one file of it."""
    dice = random.Random(seed)
    fixtures = sorted(path.parent for path in FIXTURES.glob("*/ORIGIN.md"))
    folder.mkdir()
    for origin in dice.sample(fixtures, dice.choice((1, 1, 1, 2))):
        _copy(origin, folder)
    for name in dice.sample(sorted(material()), dice.choice((0, 0, 1, 3, 8))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(material()[name])
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        _damage(folder, dice)
    files = files_of(folder)
    if files and dice.random() < 0.12:
        return dice.choice(files)
    return _zipped(folder, files) if files and dice.random() < 0.03 else folder


def files_of(folder: Path) -> list[Path]:
    """Regular files below a folder that are not forbidden (for root neither), in a fixed order; links are none."""
    found: list[Path] = []
    for root, below, names in os.walk(folder):
        below[:] = [name for name in below if Path(root, name).lstat().st_mode & 0o400]
        found += [Path(root, name) for name in names]
    return sorted((path for path in found if stat.S_ISREG(mode := path.lstat().st_mode) and mode & 0o400), key=os.fsencode)


def _copy(origin: Path, folder: Path) -> None:
    for path in origin.rglob("*"):
        if path.is_file() and path.name not in _NOT_OF_A_RUN:
            target = folder / path.relative_to(origin)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = target.read_bytes() if target.exists() else b""
            target.write_bytes(data + path.read_bytes())


def _damage(folder: Path, dice: Dice) -> None:
    files = files_of(folder)
    if not files:
        return
    path = dice.choice(files)
    if dice.random() < 0.68:
        path.write_bytes(damaged(path.read_bytes(), path.suffix, dice))
    else:
        try:
            dice.choice(_ACTS)(path, folder, dice)
        except OSError:  # the name is taken, too long, or not allowed here
            return


def _joined(path: Path, folder: Path, dice: Dice) -> None:
    other = dice.choice(files_of(folder)).read_bytes() if dice.random() < 0.6 else dice.choice(list(material().values()))
    data = path.read_bytes()
    place = dice.choice((0, len(data), dice.randrange(len(data) + 1)))
    path.write_bytes(data[:place] + other + data[place:])


def _interleaved(path: Path, folder: Path, dice: Dice) -> None:
    lines, others = path.read_bytes().splitlines(keepends=True), dice.choice(files_of(folder)).read_bytes().splitlines(keepends=True)
    for line in others[:400]:
        lines.insert(dice.randrange(len(lines) + 1), line)
    path.write_bytes(b"".join(lines))


def _swapped(path: Path, folder: Path, dice: Dice) -> None:
    other = dice.choice(files_of(folder))
    mine = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)


def _doubled(path: Path, folder: Path, dice: Dice) -> None:
    for _ in range(dice.choice((1, 2, 30))):
        copy = path.with_name(_name(dice) if dice.random() < 0.4 else f"{dice.randrange(99)}-{path.name}")
        copy.write_bytes(damaged(path.read_bytes(), path.suffix, dice) if dice.random() < 0.5 else path.read_bytes())


def _renamed(path: Path, folder: Path, dice: Dice) -> None:
    target = path.with_name(Path(dice.choice(sorted(material()))).name) if dice.random() < 0.5 else path.with_name(_name(dice))
    path.rename(target)


def _name(dice: Dice) -> str:
    return os.fsdecode(dice.choice(ODD_NAMES))


def _moved(path: Path, folder: Path, dice: Dice) -> None:
    places = (
        "checkpoint-10",
        "wandb/run-1/files",
        "logs",
        "run/run/run/run/run",
        "attempt_2",
        _name(dice),
        "runs/a",
        "global_step5",
        "node-1",
    )
    target = folder / dice.choice(places) / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def _missing(path: Path, folder: Path, dice: Dice) -> None:
    path.unlink()


def _emptied(path: Path, folder: Path, dice: Dice) -> None:
    path.write_bytes(b"")


def _pipe(path: Path, folder: Path, dice: Dice) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path, folder: Path, dice: Dice) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _linked(path: Path, folder: Path, dice: Dice) -> None:
    target = dice.choice((*_TARGETS, str(folder), path.name, str(dice.choice(files_of(folder)))))
    path.unlink()
    path.symlink_to(target)


def _folder_instead(path: Path, folder: Path, dice: Dice) -> None:
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.name).write_bytes(data)


def _forbidden(path: Path, folder: Path, dice: Dice) -> None:
    (path if dice.random() < 0.7 or path.parent == folder else path.parent).chmod(0)


def _sparse(path: Path, folder: Path, dice: Dice) -> None:
    with path.open("r+b") as file:
        file.truncate(dice.choice((1 << 16, 50 << 20)))
        if dice.random() < 0.5:
            file.seek(0, os.SEEK_END)
            file.write(b"\nRuntimeError: CUDA error: an illegal memory access was encountered\n")


def _dated(path: Path, folder: Path, dice: Dice) -> None:
    seconds = dice.choice((0, -(10**9), 10**10, 2**33, 1))
    os.utime(path, (seconds, seconds))


def _crowded(path: Path, folder: Path, dice: Dice) -> None:
    data = path.read_bytes()[:300]
    for at in range(dice.choice((30, 300))):
        (path.parent / f"{at}{path.name}"[-200:]).write_bytes(data)


_ACTS: tuple[Callable[[Path, Path, Dice], None], ...] = (
    _joined, _joined, _interleaved, _swapped, _doubled, _renamed, _renamed, _moved, _missing, _emptied, _pipe, _socket, _linked, _linked,
    _folder_instead, _forbidden, _sparse, _dated, _crowded,
)  # fmt: skip


def _zipped(folder: Path, files: list[Path]) -> Path:
    target = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in files[:50]:
            if path.stat().st_size < 1 << 20 and os.access(path, os.R_OK):
                archive.writestr(os.fsencode(path.relative_to(folder)).decode("utf-8", "replace"), path.read_bytes())
    return target


def remove(folder: Path) -> None:
    """Delete what `make` made, whatever its permissions."""
    for root, below, _ in os.walk(folder):
        for name in below:
            if not Path(root, name).is_symlink():
                Path(root, name).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.zip").unlink(missing_ok=True)
