"""The user's own cache of what YAML files say: parsing the shipped ones costs 0.1 s of every start, their compiled form 2 ms."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from doctor.support.decoding import unpack

_KEPT = 8
"""So many older compiled forms of one thing stay: another install may use them."""


def folder() -> Path | None:
    """Where compiled forms are kept; None where LFDOCTOR_CACHE is `off`."""
    where = os.environ.get("LFDOCTOR_CACHE")
    if where == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
    return Path(where or base) / "lfdoctor"


def write_cache(path: Path, data: bytes) -> None:
    """Writes a compiled form, `NAME-DIGEST.msgpack`. Best effort: a cache that cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        older = sorted(path.parent.glob(f"{path.name.rpartition('-')[0]}-*.msgpack"), key=lambda one: one.stat().st_mtime)
        for old in older[:-_KEPT]:
            old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
    except OSError:
        return


def cache_path(name: str, data: bytes, *code: Path) -> Path | None:
    """Where the compiled form of `data` is (or is to be) kept, made by these versions of `code`; None where nothing is kept."""
    where = folder()
    if where is None:
        return None
    made_by = "".join(f"{stat.st_size} {stat.st_mtime_ns}\0" for stat in (one.stat() for one in code))
    digest = hashlib.blake2b(made_by.encode() + data, digest_size=12).hexdigest()
    return where / f"{name}-{digest}.msgpack"


def load_yaml(path: Path) -> Any:
    """What a YAML file of ours says, as plain data. Raises OSError, UnicodeDecodeError or yaml.YAMLError."""
    stat = path.stat()
    kept = cache_path(path.stem, f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    if kept is not None:
        try:
            return unpack(kept.read_bytes(), Any)
        except (OSError, msgspec.DecodeError):
            pass
    import yaml

    raw = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (a safe loader)
    if kept is not None:
        write_cache(kept, msgspec.msgpack.encode(raw))
    return raw
