"""Puts the real LLaMA-Factory (CPU torch) into an environment of its own: `.lab/venv`, or the one that LFDOCTOR_LAB_VENV names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch==2.13.0", "llamafactory==0.9.5", "transformers==5.6.0", "bitsandbytes==0.50.2", "tensorboard", "swanlab==0.10.3")
DEEPSPEED = "deepspeed==0.18.4"
"""bitsandbytes runs on CPU too, so that patches with quantization_bit: 4 can be trained; DeepSpeed, whose operators would first have to
be compiled for minutes, only parses its configs here."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def lab_venv() -> Path:
    """The folder of the lab's environment, whether it exists yet or not."""
    named = os.environ.get("LFDOCTOR_LAB_VENV")
    return Path(named) if named else ROOT / ".lab" / "venv"


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
    subprocess.run([*pip, "--index-url", CPU_INDEX, PACKAGES[0]], check=False, capture_output=True)
    subprocess.run([*pip, *PACKAGES], check=True)
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
    print(f"LLaMA-Factory is ready in {lab_venv()}", file=sys.stderr)
