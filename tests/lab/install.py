"""Puts a real LLaMA-Factory (CPU torch) into an environment of its own: one of the stacks of stacks.yaml, by default the release.

LFDOCTOR_LAB_STACK names the stack, LFDOCTOR_LAB_VENV an environment that has it already, LFDOCTOR_LAB_SOURCE a checkout of LLaMA-Factory
to install in place of what the stack names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEEPSPEED = "deepspeed==0.18.4"
"""bitsandbytes runs on CPU too, so that patches with quantization_bit: 4 can be trained; DeepSpeed, whose operators would first have to
be compiled for minutes, only parses its configs here."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
RELEASE = "release"


@dataclass(frozen=True)
class Stack:
    """An entry of stacks.yaml."""

    name: str
    version: str
    says: str
    llamafactory: str
    packages: tuple[str, ...]
    scenarios: tuple[str, ...] = ("*",)
    stages: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, str]:
        """What tells the rules which LLaMA-Factory is meant; of the release nothing, it is what they take without."""
        versions = {"llamafactory": self.version, "transformers": self.pinned("transformers")}
        return {} if self.name == RELEASE else {f"versions.{package}": version for package, version in versions.items()}

    def pinned(self, package: str) -> str:
        """The version of a package that `packages` states."""
        return next(one.partition("==")[2] for one in self.packages if one.startswith(f"{package}=="))


@cache
def stack() -> Stack:
    """The one that LFDOCTOR_LAB_STACK names. Raises SystemExit for a name that stacks.yaml does not have."""
    known = yaml.safe_load(Path(__file__).with_name("stacks.yaml").read_text(encoding="utf-8"))
    name = os.environ.get("LFDOCTOR_LAB_STACK") or RELEASE
    if name not in known:
        raise SystemExit(f"LFDOCTOR_LAB_STACK={name}: stacks.yaml has {', '.join(known)}")
    return Stack(name, **{key: tuple(value) if isinstance(value, list) else value for key, value in known[name].items()})


def lab_folder() -> Path:
    """What the stack's runs leave behind; a stack beside the release has a folder of its own."""
    return ROOT / ".lab" if stack().name == RELEASE else ROOT / ".lab" / stack().name


def lab_venv() -> Path:
    """The folder of the lab's environment, whether it exists yet or not."""
    named = os.environ.get("LFDOCTOR_LAB_VENV")
    return Path(named) if named else lab_folder() / "venv"


def lab_bin() -> Path:
    """The folder with `python`, `llamafactory-cli` and `torchrun` of the lab's environment."""
    return lab_venv() / ("Scripts" if os.name == "nt" else "bin")


def install() -> None:
    """Makes the environment importable; does nothing to one that already is."""
    python = lab_bin() / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(lab_venv())], check=True)
    if not all(_has(python, module) for module in ("llamafactory", "bitsandbytes", "swanlab", "deepspeed")):
        _pip_install(python)
    _drop_what_does_not_fit(python)
    subprocess.run([str(python), "-c", "import llamafactory.train.tuner"], check=True, capture_output=True)


def _has(python: Path, module: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([str(python), "-c", code], check=False).returncode == 0


def _pip_install(python: Path) -> None:
    """torch from the CPU index where it can be reached (a tenth of the size), else from the configured one; named again beside the
    others, or a torchvision that fits another torch would replace it."""
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    torch = next(one for one in stack().packages if one.startswith("torch=="))
    subprocess.run([*pip, "--index-url", CPU_INDEX, torch], check=False, capture_output=True)
    subprocess.run([*pip, os.environ.get("LFDOCTOR_LAB_SOURCE") or stack().llamafactory, *stack().packages], check=True)
    # built from source, which asks the torch beside it what to build: nothing, its few operators are compiled when first used
    subprocess.run([*pip, "--no-build-isolation", DEEPSPEED], check=True, env={**os.environ, "DS_BUILD_OPS": "0"})


def _drop_what_does_not_fit(python: Path) -> None:
    """torchvision and torchaudio are built for another torch than the CPU one; LLaMA-Factory imports both, text runs use neither."""
    if _has(python, "torchvision"):
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
    for library in lab_venv().glob("[Ll]ib/**/torchaudio/lib/*"):
        if library.suffix in {".so", ".pyd", ".dylib", ".dll"}:
            library.unlink()


if __name__ == "__main__":
    install()
    print(f"{stack().says} is ready in {lab_venv()}", file=sys.stderr)
