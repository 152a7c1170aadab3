"""Sources of one version of LLaMA-Factory, transformers or mcore_adapter, out of a wheel, an sdist, a checkout or a git repository.

They are read as text, never imported.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PRODUCTS = {"llamafactory": "llamafactory", "llmtuner": "llamafactory", "transformers": "transformers", "mcore_adapter": "mcore_adapter"}
"""Package -> what it is a version of: LLaMA-Factory was llmtuner up to 0.7."""

_PYTHON = re.compile(
    r"(?:^|/)(?:(llamafactory|llmtuner)/(.+\.py)|(transformers)/((?:training_args\w*|trainer_utils|debug_utils|__init__)\.py)|"
    r"(mcore_adapter)/((?:training_args|__init__)\.py))$"
)
_SETUP = re.compile(r"(?:^|/)(setup\.py|pyproject\.toml|requirements\.txt|METADATA)$")
_VERSION = re.compile(r"""^\s*(?:VERSION|__version__|version|Version)\s*[=:]\s*["']?(\d[^"',\s]*)""", re.M)
_VERSION_FILES = ("extras/env.py", "cli.py", "__init__.py", "METADATA", "setup.py", "pyproject.toml")


class Source(NamedTuple):
    """One version: `files` by their path inside the package; setup.py and its like by their bare name. `product` as in PRODUCTS."""

    product: str
    name: str
    distribution: str
    files: Mapping[str, str]


def read(place: str, name: str | None = None) -> Source:
    """The sources at `place`: a .whl, a .tar.gz, a folder, or `REPOSITORY@REF` (`@REF:FOLDER`). `name` replaces the version stated.

    A version that ends in `.dev0` is called `main`, that of llamafactory-kt `kt`. Raises SystemExit where none of the products is.
    """
    packages: set[str] = set()
    files = dict(_wanted(place, packages))
    stated = next((found[1] for path in _VERSION_FILES if (found := _VERSION.search(files.get(path, "")))), None)
    if stated is None or not packages:
        raise SystemExit(f"{place}: none of {', '.join(PRODUCTS)} with a version in {', '.join(_VERSION_FILES)}")
    fork = re.search(r"^Name: (\S+)", files.get("METADATA", ""), re.M)
    product = PRODUCTS[min(packages)]  # of LLaMA-Factory's own folder, should a checkout hold others
    distribution = fork[1] if fork else product
    if name is None and ".dev" in stated:
        name = "kt" if distribution.endswith("-kt") else "main"
    return Source(product, name or stated, distribution, files)


def _wanted(place: str, packages: set[str]) -> Iterator[tuple[str, str]]:
    """(path in the package, text) of the files that matter; the packages that they are of are added to `packages`."""
    for path, data in _entries(place):
        python, setup = _PYTHON.search(path), _SETUP.search(path)
        if python:
            package, inner = [part for part in python.groups() if part]
            packages.add(package)
            yield inner, data.decode("utf-8", "replace")
        elif setup and path.count("/") <= 1:
            yield setup[1], data.decode("utf-8", "replace")


def _entries(place: str) -> Iterator[tuple[str, bytes]]:
    """Every file's path and content."""
    repository, at, ref = place.rpartition("@")
    path = Path(place)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist() if _PYTHON.search(name) or _SETUP.search(name))
    elif path.is_dir():
        yield from ((found.relative_to(path).as_posix(), found.read_bytes()) for found in _files(path))
    elif path.is_file():
        with tarfile.open(path) as archive:
            yield from _members(archive)
    elif at and Path(repository).is_dir():
        ref, _, inside = ref.partition(":")
        top = _git(repository, "ls-tree", "--name-only", f"{ref}:{inside}").decode().split()
        here = [name for name in top if name == "src" or _SETUP.search(name)]
        ref = f"{ref}:{inside}"
        with tarfile.open(fileobj=io.BytesIO(_git(repository, "archive", "--format=tar", ref, *here))) as archive:
            yield from _members(archive)
    else:
        raise SystemExit(f"{place}: no wheel, source distribution, folder or REPOSITORY@REF")


def _files(folder: Path) -> Iterator[Path]:
    places = [folder.glob("*"), (folder / "src").rglob("*.py"), *((folder / package).rglob("*.py") for package in PRODUCTS)]
    for found in sorted(found for place in places for found in place):
        if found.is_file() and (found.suffix == ".py" or _SETUP.search(found.name)):
            yield found


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        content = archive.extractfile(member) if member.isfile() and member.name.endswith((".py", ".toml", ".txt")) else None
        if content is not None:
            yield member.name, content.read()


def _git(repository: str, *words: str) -> bytes:
    return subprocess.run(["git", "-C", repository, *words], capture_output=True, check=True).stdout
