"""Compressed files, archives of a run, buckets: the same events as the plain folder, and nothing that a hostile one could do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import zstandard

from doctor.errors import DoctorError
from doctor.readers import file, reading
from doctor.readers.walk import CROWD
from tests.readers.helpers import Seen, jsonl, log_record

LOG = jsonl(*(log_record(step) for step in range(1, 6))).encode()
CONSOLE = b'[INFO|x.py:1] hello\nTraceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: bad\n'
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard.compress,
}  # fmt: skip


def run_folder(folder: Path) -> Path:
    run = folder / "run"
    (run / "checkpoint-4").mkdir(parents=True)
    (run / "trainer_log.jsonl").write_bytes(LOG)
    (run / "train.log").write_bytes(CONSOLE)
    (run / "model.safetensors").write_bytes(b"never opened")
    return run


def tarred(run: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(run, "run")
    return target


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_log_tells_what_the_plain_one_does(tmp_path: Path, ending: str):
    """gzip, xz, bzip2, zstd, by their first bytes; cut in the middle they give what is whole, and a problem."""
    data = PACKERS[ending](CONSOLE * 3)
    path = tmp_path / f"train.log.{ending}"
    path.write_bytes(data)
    assert [crash.message for crash in Seen(path).crashes] == ["bad"] * 3
    lines = (b"[INFO|x.py:1] %x\n" % (number * 0x9E3779B97F4A7C15 % (1 << 64)) + CONSOLE for number in range(16_000))
    long = PACKERS[ending](b"".join(lines))
    path.write_bytes(long[: len(long) // 2])
    seen = Seen(path, literals=frozenset())
    assert [crash.message for crash in seen.crashes[:9]] == ["bad"] * 9
    assert 1000 < len(seen.crashes) < 16_000


@pytest.mark.parametrize("name", ["run.tar", "run.tar.gz", "run.tgz", "run.tar.xz", "run.tar.zst", "run.zip"])
def test_an_archive_is_read_like_its_folder(tmp_path: Path, name: str):
    """The same steps and crashes under names inside the archive; weights stay packed and are told as skipped; no copy stays behind."""
    run = run_folder(tmp_path)
    target = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(run.rglob("*")):
                archive.write(path, path.relative_to(tmp_path))
    elif name.endswith(".zst"):
        target.write_bytes(zstandard.compress(tarred(run, tmp_path / "plain.tar", "w").read_bytes()))
    else:
        tarred(run, target, {"run.tar": "w", "run.tar.xz": "w:xz"}.get(name, "w:gz"))
    seen, plain = Seen(target), Seen(run)
    assert seen.series("loss") == plain.series("loss") != []
    assert [crash.message for crash in seen.crashes] == ["bad"]
    assert {source.path for source in seen.reading.sources} == {f"{target}/run/trainer_log.jsonl", f"{target}/run/train.log"}
    assert seen.reading.skipped.reasons["weights"][0] == 1


def test_hostile_members_stay_inside_and_links_are_not_followed(tmp_path: Path):
    """Absolute names, `..`, links and devices in a tar write nothing outside and read nothing outside."""
    secret = tmp_path / "secret.log"
    secret.write_bytes(CONSOLE)
    target = tmp_path / "evil.tar"
    with tarfile.open(target, "w") as archive:
        for name in ("../../escaped.log", "/tmp/lfdoctor-absolute.log", "a/../../b.log"):
            info = tarfile.TarInfo(name)
            info.size = len(CONSOLE)
            archive.addfile(info, io.BytesIO(CONSOLE))
        for kind, name in ((tarfile.SYMTYPE, "link.log"), (tarfile.LNKTYPE, "hard.log"), (tarfile.CHRTYPE, "device.log")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    seen = Seen(target)
    assert len(seen.crashes) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar", "secret.log"]
    assert not Path("/tmp/lfdoctor-absolute.log").exists()


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_a_torn_archive_gives_what_stands_before_the_tear(tmp_path: Path, cut: float):
    """Nothing but DoctorError leaves the reading."""
    whole = tarred(run_folder(tmp_path), tmp_path / "whole.tar.gz", "w:gz").read_bytes()
    target = tmp_path / "torn.tar.gz"
    target.write_bytes(whole[: int(len(whole) * cut)])
    try:
        seen = Seen(target)
    except DoctorError:
        return
    assert "damaged archive" in seen.reading.skipped.reasons


def test_a_bucket_is_read_through_fsspec(tmp_path: Path):
    """A folder and a single file of a remote storage, weights left where they are."""
    storage = fsspec.filesystem("memory")
    storage.pipe("/bucket/run/trainer_log.jsonl", LOG)
    storage.pipe("/bucket/run/checkpoint-4/model.safetensors", b"weights")
    seen = Seen("memory://bucket/run")
    assert [step for step, _ in seen.series("loss")] == [1, 2, 3, 4, 5]
    assert seen.reading.sources[0].path == "memory://bucket/run/trainer_log.jsonl"
    assert len(Seen("memory://bucket/run/trainer_log.jsonl").steps) == 5
    with pytest.raises(DoctorError, match="cannot be read"):
        reading.read(["memory://bucket/none"])


def test_pipes_sockets_weights_and_crowds_cost_nothing(tmp_path: Path):
    """A FIFO would block for ever, a crowded data set is not opened, and all of it is told."""
    run = run_folder(tmp_path)
    os.mkfifo(run / "pipe.log")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(run)  # a socket's path must be short
    try:
        server.bind("socket.log")
    finally:
        os.chdir(here)
    (run / "nowhere.log").symlink_to(run / "missing")
    (run / "loop").symlink_to(run)
    crowd = run / "images"
    crowd.mkdir()
    for number in range(CROWD + 50):
        (crowd / f"{number}.txt").write_bytes(b"")
    seen = Seen(run)
    server.close()
    assert len(seen.steps) == 5
    reasons = seen.reading.skipped.reasons
    assert reasons["no regular file"][0] == 3
    assert reasons["weights"] == (1, [str(run / "model.safetensors")])
    assert reasons["crowded folder"] == (CROWD + 50, [str(crowd)])


def test_a_bomb_is_left_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What unpacks to far more than a log would is not read to its end."""
    monkeypatch.setattr(file, "MAX_UNPACKED", 1 << 20)
    path = tmp_path / "train.log.gz"
    path.write_bytes(gzip.compress(b"[INFO|x.py:1] hello\n" * (1 << 20)))
    assert any("far more than a log" in problem for problem in Seen(path).problems)
