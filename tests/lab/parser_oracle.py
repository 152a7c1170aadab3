"""Asks the real LLaMA-Factory what it says of configurations: JSON lines {id, config} in, {id, accepted, error} out.

Run with the lab's Python. Each config is parsed by `get_train_args` in a forked process of its own, in an empty folder, as on a
machine with what the config needs: optional packages seem installed, a bf16 GPU seems present (`--bare`: neither), DeepSpeed
configs are parsed as under torchrun, with a file of the stage that their file's name tells. `--source SRC` asks the release whose `src`
folder that is, under the transformers of this environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from forked import answer, free_port

PACKAGES = {
    "unsloth": "2026.1",
    "liger-kernel": "0.6.0",
    "galore_torch": "1.0",
    "apollo_torch": "1.0",
    "badam": "1.2.2",
    "adam-mini": "1.1",
    "swanlab": "0.6.0",
    "jieba": "0.42",
    "nltk": "3.9",
    "rouge_chinese": "1.0",
    "flash-attn": "2.8.0",
    "mixture-of-depth": "1.2.0",
    "matplotlib": "3.10.0",
    "kt-kernel": "1.0",
    "transformers-kt": "1.0",
    "accelerate-kt": "1.0",
}


def pretend_packages(folder: Path) -> None:
    """Metadata alone makes LLaMA-Factory's version checks pass; nothing is imported while a config is parsed."""
    for name, version in PACKAGES.items():
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    sys.path.append(str(folder))


def take_release(source: Path) -> None:
    """Make `llamafactory` that of another release: its package without its __init__ (which imports the trainers), its parser without the
    checks of versions, and with options that a newer transformers has too.
    """
    import argparse
    import types

    import transformers.utils

    package = types.ModuleType("llamafactory")
    package.__path__ = [str(source / "llamafactory")]
    sys.modules["llamafactory"] = package
    os.environ["DISABLE_VERSION_CHECK"] = "1"
    transformers.utils.is_safetensors_available = lambda: True  # 0.8.2 imports it; gone in transformers 5
    as_it_is = argparse.ArgumentParser.__init__

    def with_doubles(self, *given, **named):
        as_it_is(self, *given, **{"conflict_handler": "resolve", **named})

    argparse.ArgumentParser.__init__ = with_doubles


def deepspeed_file(path: str) -> str:
    """A settings file of the stage that its name tells, here, in place of the one that the config names somewhere else."""
    name = re.split(r"[\\/]", path)[-1]
    found = re.search(r"(?:z|zero|stage)[-_]?([0-3])", name.lower())
    target = Path(name)
    if target.suffix == ".json":
        settings: dict[str, Any] = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": int(found[1]) if found else 2}}
        target.write_text(json.dumps(settings), encoding="utf-8")
    return name


def parse(config: dict[str, Any], bare: bool) -> str | None:
    """The error that get_train_args raises, None if it accepts."""
    from llamafactory.hparams import parser

    if not bare:
        import transformers.training_args

        parser.is_torch_bf16_gpu_available = transformers.training_args.is_torch_tf32_available = lambda: True
    config = {**config, "use_cpu": config.get("use_cpu", True) if bare else config.get("use_cpu") or True}  # no GPU here to be found
    if isinstance(config.get("deepspeed"), str):
        config["deepspeed"] = deepspeed_file(config["deepspeed"])
    if config.get("deepspeed"):
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(free_port())
    try:
        parser.get_train_args(dict(config))
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:400]}"
    return None


def parse_apart(config: dict[str, Any], bare: bool) -> str | None:
    """`parse` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return parse(config, bare)


def main() -> None:
    """One answer a line, in the order of the questions."""
    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "ERROR")
    os.environ["HF_HUB_OFFLINE"] = "1"
    bare = "--bare" in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        if not bare:
            pretend_packages(Path(folder, "packages"))
        if "--source" in sys.argv:
            take_release(Path(sys.argv[sys.argv.index("--source") + 1]))
        with contextlib.redirect_stdout(sys.stderr):
            from llamafactory.hparams import parser  # noqa: F401 (imported once, before the forks)
        for line in sys.stdin:
            asked = json.loads(line)
            error = answer(partial(parse_apart, asked["config"], bare))
            print(json.dumps({"id": asked["id"], "accepted": error is None, "error": error}), flush=True)


if __name__ == "__main__":
    main()
