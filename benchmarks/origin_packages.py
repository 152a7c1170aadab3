"""The packages whose messages the index of origins holds, their releases, and the Python sources in them."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

_PLATFORMS = ("macosx_11_0_arm64", "macosx_14_0_arm64", "macosx_10_12_universal2", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
"""macOS first: its wheels have the same Python sources as the CUDA wheels and a tenth of their size."""
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:\.post(\d+))?")


class Package(NamedTuple):
    """A package: its name on PyPI, its folder, the oldest release of interest, its parts that a fine-tuning can reach (all if empty).

    `every`: of each minor release the last patch is taken; 2 takes every other minor, the newest always.
    """

    name: str
    module: str
    oldest: str
    parts: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    every: int = 1
    sdist: bool = False


_TESTS = ("*/tests/*", "*/testing/*", "*/test_*.py", "*/testing_utils.py", "*/conftest.py")
STACK = (
    Package("llamafactory", "llamafactory", "0.7"),
    Package("transformers", "transformers", "4.37"),
    Package("trl", "trl", "0.7"),
    Package("peft", "peft", "0.8"),
    Package("accelerate", "accelerate", "0.26"),
    Package("datasets", "datasets", "2.14"),
    Package("huggingface_hub", "huggingface_hub", "0.20"),
)
"""From the oldest release that LLaMA-Factory 0.7 allows to the newest: fine-tunings outside LLaMA-Factory use newer ones than it allows."""


def releases(package: Package, cache: Path, newest: str | None) -> list[str]:
    """The releases to read, oldest first: the last patch of each minor. Asked from the index once, then kept in the cache folder."""
    kept = cache / f"{package.name}.versions"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        answer = _pip("index", "versions", package.name)
        kept.write_text("\n".join(re.findall(r"[\w.+]+", answer.partition("Available versions:")[2].partition("\n")[0])), encoding="utf-8")
    found = [version for version in kept.read_text(encoding="utf-8").split() if _VERSION.fullmatch(version)]
    wanted = [version for version in found if _key(package.oldest) <= _key(version) and (newest is None or _key(version) <= _key(newest))]
    last_patch = {_key(version)[:2]: version for version in sorted(wanted, key=_key)}
    chosen = list(last_patch.values())
    return chosen[(len(chosen) - 1) % package.every :: package.every]


def downloaded(package: Package, version: str, cache: Path) -> Path | None:
    """The wheel or sdist of a release in the cache folder; None if there is none for any platform."""
    if (found := _archive(package, version, cache)) is not None:
        return found
    platforms = [part for platform in _PLATFORMS for part in ("--platform", platform)]
    kind = [] if package.sdist else ["--only-binary", ":all:", *platforms, "--python-version", "3.11", "--implementation", "cp"]
    try:
        _pip("download", "--quiet", "--no-deps", "--dest", str(cache), *kind, f"{package.name}=={version}")
    except subprocess.CalledProcessError as error:
        print(f"{package.name} {version}: {error.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return _archive(package, version, cache)


def release_sources(package: Package, archive: Path) -> Iterator[tuple[str, bytes]]:
    """The paths (`transformers/trainer.py`) and contents of the Python files that can raise, without tests."""
    for path, source in _members(archive):
        if _wanted(package, path) and (b"raise" in source or b"assert" in source):
            yield path, source


def checkout_sources(name: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The same for a folder that holds the package, as a git checkout's `src`."""
    package = next(package for package in STACK if package.name == name)
    for file in sorted((folder / package.module).rglob("*.py")):
        path = file.relative_to(folder).as_posix()
        if _wanted(package, path):
            yield path, file.read_bytes()


def _wanted(package: Package, path: str) -> bool:
    inside = path.startswith(f"{package.module}/") and not any(fnmatch(path, pattern) for pattern in (*_TESTS, *package.without))
    return inside and (not package.parts or any(fnmatch(path, pattern) for pattern in package.parts))


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if name.endswith(".py"))
        return
    with tarfile.open(archive) as sdist:
        for member in sdist:
            file = sdist.extractfile(member) if member.isfile() and member.name.endswith(".py") else None
            if file is not None:
                yield member.name.partition("/")[2], file.read()


def _archive(package: Package, version: str, cache: Path) -> Path | None:
    name = package.name.replace("-", "_")
    return next((file for pattern in (f"{name}-{version}-*.whl", f"{name}-{version}.tar.gz") for file in cache.glob(pattern)), None)


def _key(version: str) -> tuple[int, ...]:
    found = _VERSION.fullmatch(version)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _pip(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, text=True).stdout
