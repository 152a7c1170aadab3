"""The packages whose messages the index of origins holds, their releases, and the Python sources in them."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import NamedTuple

_PLATFORMS = ("macosx_11_0_arm64", "macosx_14_0_arm64", "macosx_10_12_universal2", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
"""macOS first: its wheels have the same Python sources as the CUDA wheels and a tenth of their size."""
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:\.post(\d+))?")


class Package(NamedTuple):
    """A package: its name on PyPI, its folder, the oldest release of interest, the parts that a fine-tuning can reach (all if empty).

    Of each minor release the last patch is taken, with `patches` every one, of `some` those alone.
    """

    name: str
    module: str
    oldest: str = ""
    parts: str = ""
    patches: bool = False
    some: str = ""
    sdist: bool = False


class Source(NamedTuple):
    """A Python file: its path (`transformers/trainer.py`), checksum and size (CRC 32, as in the wheel's directory), and what reads it."""

    path: str
    key: tuple[int, int]
    read: Callable[[], bytes]


_MIRRORS = ("torch/_meta_registrations.py",)
"""Copies of checks that PyTorch's C++ code makes before them, with the same messages."""
_TESTS = ("*/tests/*", "*/testing/*", "*/test_*.py", "*/testing_utils.py", "*/conftest.py")
_COPIES = ("*/_vendor/*", "*/thirdparty/*", "*/thirdparty_files/*")
"""Other people's packages inside one: their messages are not its own."""
_TORCH = "nn optim distributed utils cuda autograd amp multiprocessing accelerator backends mps xpu"
_VLLM = (
    "config engine entrypoints/llm.py executor model_executor/model_loader platforms worker v1/engine v1/executor v1/worker v1/core "
    "distributed/parallel_state.py lora multimodal transformers_utils inputs"
)
_RAY = "train tune air util _private runtime_env"
STACK = (
    Package("llamafactory", "llamafactory", "0.7", patches=True),
    Package("transformers", "transformers", "4.37"),
    Package("trl", "trl", "0.7"),
    Package("peft", "peft", "0.8"),
    Package("accelerate", "accelerate", "0.26"),
    Package("datasets", "datasets", "2.14"),
    Package("huggingface_hub", "huggingface_hub", "0.20"),
    Package("deepspeed", "deepspeed", some="0.9.5 0.10.3 0.12.6 0.13.5 0.14.5 0.15.4 0.16.9 0.17.6 0.18.9 0.19.8", sdist=True),
    Package("bitsandbytes", "bitsandbytes", some="0.42.0 0.43.3 0.44.1 0.45.5 0.47.0 0.49.2 0.50.2"),
    Package("safetensors", "safetensors", some="0.4.5 0.8.0"),
    Package("liger_kernel", "liger_kernel", "0.3"),
    Package("optimum", "optimum", "1.17"),
    Package("unsloth", "unsloth", some="2024.12.12 2025.3.19 2025.6.12 2025.8.10 2025.12.10 2026.10.9"),
    Package("unsloth_zoo", "unsloth_zoo", some="2024.12.7 2025.3.17 2025.6.8 2025.8.9 2025.12.8 2026.10.9"),
    Package("torch", "torch", some="2.1.2 2.3.1 2.5.1 2.6.0 2.8.0 2.10.0 2.14.1", parts=_TORCH),
    Package("vllm", "vllm", some="0.6.3.post1 0.8.5 0.11.0 0.33.0", parts=_VLLM),
    Package("ray", "ray", some="2.9.3 2.40.0 2.60.0", parts=_RAY),
    Package("requests", "requests", some="2.32.5"),
    Package("axolotl", "axolotl", some="0.17.0 0.18.0 0.19.0"),
    Package("ms-swift", "swift", some="2.6.1 3.0.3 3.4.1 3.8.3 3.12.6 4.6.0"),
)
"""From the oldest release that LLaMA-Factory 0.7 allows to the newest: fine-tunings outside LLaMA-Factory use newer ones than it allows."""


def releases(package: Package, cache: Path, newest: str | None) -> list[str]:
    """The releases to read, oldest first: the last patch of each minor. Asked from the index once, then kept in the cache folder."""
    if package.some:
        return [version for version in package.some.split() if newest is None or _key(version) <= _key(newest)]
    kept = cache / f"{package.name}.versions"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        answer = _pip("index", "versions", package.name)
        kept.write_text("\n".join(re.findall(r"[\w.+]+", answer.partition("Available versions:")[2].partition("\n")[0])), encoding="utf-8")
    found = [version for version in kept.read_text(encoding="utf-8").split() if _VERSION.fullmatch(version)]
    wanted = [version for version in found if _key(package.oldest) <= _key(version) and (newest is None or _key(version) <= _key(newest))]
    part = None if package.patches else 2
    return list({_key(version)[:part]: version for version in sorted(wanted, key=_key)}.values())


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


def release_sources(package: Package, archive: Path) -> Iterator[Source]:
    """The Python files of a release, without tests."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if _wanted(package, info.filename):
                    yield Source(info.filename, (info.CRC, info.file_size), partial(wheel.read, info))
        return
    with tarfile.open(archive) as sdist:
        for member in sdist:
            path = member.name.partition("/")[2]
            file = sdist.extractfile(member) if member.isfile() and _wanted(package, path) else None
            if file is not None:
                yield _read_source(path, file.read())


def checkout_sources(package: Package, folder: Path) -> Iterator[Source]:
    """The same for a folder that holds the package, as the `src` of a git checkout."""
    for file in sorted((folder / package.module).rglob("*.py")):
        path = file.relative_to(folder).as_posix()
        if _wanted(package, path):
            yield _read_source(path, file.read_bytes())


def _read_source(path: str, text: bytes) -> Source:
    return Source(path, (zlib.crc32(text), len(text)), lambda: text)


def _wanted(package: Package, path: str) -> bool:
    folder, _, inside = path.partition("/")
    if folder != package.module or not path.endswith(".py") or any(fnmatch(path, pattern) for pattern in (*_TESTS, *_COPIES, *_MIRRORS)):
        return False
    return not package.parts or "/" not in inside or inside.startswith(tuple(package.parts.split()))


def _archive(package: Package, version: str, cache: Path) -> Path | None:
    name = package.name.replace("-", "_")
    return next((file for pattern in (f"{name}-{version}-*.whl", f"{name}-{version}.tar.gz") for file in cache.glob(pattern)), None)


def _key(version: str) -> tuple[int, ...]:
    found = _VERSION.fullmatch(version)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _pip(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, text=True).stdout
