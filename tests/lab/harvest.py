"""Turns what a run left behind into a fixture: texts kept as they are, weights left out, this machine's names replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.lab.install import ROOT, lab_venv, stack
from tests.lab.runner import WATCHED
from tests.lab.scenarios import Scenario

KEPT = ("trainer_log.jsonl", "trainer_state.json", "*_results.json", "adapter_config.json", "README.md", "events.out.tfevents.*", "*.jsonl",
        "swanlab_public_config.json")  # fmt: skip
"""Of a run folder; where it has no trainer_state.json of its own, the last checkpoint keeps its one."""
SMALL_BYTES = 10_000
"""training_args.bin is kept up to this size."""

_INJECTED = re.compile(
    r'^(?P<rank>(?:\[rank\d+\]:\s)?)\s*File "[^"]*/faults/sitecustomize\.py", line .*\n(?:(?P=rank)    .*\n)*', re.MULTILINE
)
_NO_GPU = re.compile(r"^.*pin_memory.*no accelerator.*\n(?:  .*\n)?", re.MULTILINE)
_DEVICE = re.compile(r"(Process rank: (\d+), world size: \d+, device: )cpu(?::\d+)?")


def harvest(work: Path, target: Path, scenario: Scenario) -> Path:
    """Writes the fixture of `scenario` from its finished run in `work`; an expected.yaml that stands in `target` is kept."""
    kept = (target / "expected.yaml").read_bytes() if (target / "expected.yaml").exists() else None
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    if kept is not None:
        (target / "expected.yaml").write_bytes(kept)
    clean = cleaner(work, scenario)
    for name in ("console.log", "stdout.log", "stderr.log", "train.yaml", "run.sh", *scenario.files):
        if (work / name).exists() and (scenario.script or name != "run.sh"):
            _copy(work / name, target / name, clean)
    for journal in (work / WATCHED).glob("*.jsonl"):
        _copy(journal, target / WATCHED / journal.name, clean)
    for folder in _run_folders(work):
        _copy_run(folder, target / "run", clean)
    for folder in (work / "swanlog").glob("run-*"):
        _copy(folder / "files/config.yaml", target / "swanlog" / folder.name / "files/config.yaml", clean)
        _copy(folder / "files/swanlab-metadata.json", target / "swanlog" / folder.name / "files/swanlab-metadata.json", _no_machine(clean))
        for path in folder.glob("*.swanlab"):
            data = resealed(path.read_bytes(), {**machine_paths(work), str(work.parent): "/home/user"})
            (target / "swanlog" / folder.name / path.name).write_bytes(data)
    (target / "ORIGIN.md").write_text(origin(work, scenario), encoding="utf-8")
    return target


def cleaner(work: Path, scenario: Scenario) -> Callable[[bytes], bytes]:
    """What is done to each text: no machine path, no frame of the injector; `gpu` scenarios say cuda where this machine says cpu."""
    paths = machine_paths(work)

    def clean(data: bytes) -> bytes:
        for path in sorted(paths, key=len, reverse=True):
            data = data.replace(path.encode(), paths[path].encode())
        text = data.decode("utf-8", "surrogateescape")
        text = _INJECTED.sub("", text)
        if scenario.gpu:
            text = _DEVICE.sub(r"\1cuda:\2", _NO_GPU.sub("", text))
        return text.encode("utf-8", "surrogateescape")

    return clean


def _no_machine(clean: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """What SwanLab's metadata says of this machine and its checkout is nobody's business."""

    def cleaned(data: bytes) -> bytes:
        told = json.loads(clean(data))
        told.pop("git", None)
        told["runtime"] |= {"os": "Linux", "os_pretty": "Linux", "hostname": "node0"}
        return json.dumps(told).encode()

    return cleaned


def machine_paths(work: Path) -> dict[str, str]:
    """This machine's paths, and what a fixture says instead."""
    paths = {str(work): "/home/user/work", str(lab_venv()): "/home/user/venv", str(ROOT): "/home/user/lfdoctor"}
    paths[_base_prefix()] = "/usr"
    return paths | {os.path.realpath(path): name for path, name in paths.items()}


def resealed(data: bytes, paths: dict[str, str]) -> bytes:
    """A file of LevelDB's log format with other paths of the same length in it, and the checksums of its records made anew."""
    out = bytearray(data)
    for path in sorted(paths, key=len, reverse=True):
        out = out.replace(path.encode(), paths[path].ljust(len(path), "-")[: len(path)].encode())
    place = 7
    while place + 7 <= len(out):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", out, place + 4)
        struct.pack_into("<I", out, place, zlib.crc32(bytes([kind]) + out[place + 7 : place + 7 + length]))
        place += 7 + length
    return bytes(out)


def _base_prefix() -> str:
    """Where the lab environment's Python came from."""
    home = re.search(r"^home = (.*)$", (lab_venv() / "pyvenv.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    return str(Path(home[1].strip()).parent) if home else "/usr"


def _copy(source: Path, target: Path, clean: Callable[[bytes], bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(clean(source.read_bytes()))


def _run_folders(work: Path) -> Iterable[Path]:
    """The output folders of `work`: those that hold a trainer_log.jsonl or a result."""
    found = {path.parent for pattern in ("trainer_log.jsonl", "trainer_state.json") for path in (work / "saves").rglob(pattern)}
    return sorted(path for path in found if not path.name.startswith("checkpoint-"))


def _copy_run(folder: Path, target: Path, clean: Callable[[bytes], bytes]) -> None:
    for pattern in KEPT:
        for path in folder.glob(pattern):
            _copy(path, target / path.name, clean)
    for path in folder.glob("runs/**/events.out.tfevents.*"):
        copied = target / path.relative_to(folder)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
    arguments = folder / "training_args.bin"
    if arguments.exists() and arguments.stat().st_size <= SMALL_BYTES:
        shutil.copyfile(arguments, target / arguments.name)
    if (folder / "trainer_state.json").exists():
        return
    for checkpoint in sorted(folder.glob("checkpoint-*"))[-1:]:
        for name in ("trainer_state.json", "adapter_config.json"):
            if (checkpoint / name).exists():
                _copy(checkpoint / name, target / checkpoint.name / name, clean)


def origin(work: Path, scenario: Scenario) -> str:
    """ORIGIN.md: what was run, what was put in, what was changed afterwards."""
    lines = [f"# {scenario.name}", "", f"{scenario.says[0].upper()}{scenario.says[1:]}.", ""]
    lines.append(f"Made by the project's lab (`make lab`, tests/lab/scenarios.py) with the real {stack().says} on CPU:")
    software = ", ".join(f"{package} {stack().pinned(package)}" for package in ("torch", "transformers"))
    lines.append(f"{software}, a 2-layer random Llama, toy data. Nothing of it comes from anybody else's run.")
    lines.append("")
    if scenario.fault:
        told = ", ".join(f"{key} {value}" for key, value in scenario.fault.items())
        lines.append(f"- injected: {told}; the injector's own traceback frames were taken out")
    else:
        lines.append("- injected: nothing, this is what the software does by itself")
    if scenario.gpu:
        lines.append("- the log says device cuda where the lab has only a CPU; the memory figures in the message are made up")
    if scenario.watched:
        lines.append("- run under `lfdoctor run`, whose journals lie in watched/; the console ends with the report that it printed")
    if scenario.clock != 1:
        lines.append(f"- the wall clock ran {scenario.clock} times too fast, so that minutes passed in seconds")
    if scenario.share:
        truth = json.loads((work / "truth.json.0").read_text(encoding="utf-8"))
        seconds, whole = truth[scenario.share], truth["logged"]
        lines.append(f"- really spent: {seconds} s ({scenario.share}) of {whole} s from the first log to the last, by an unhurried clock")
    if scenario.limit_mib:
        lines.append(f"- `ulimit -v` {scenario.limit_mib} MiB above what one sample per batch needs: the allocation failure is real")
    if scenario.earlier:
        lines.append("- an earlier run had used the same output folder")
    lines.append("- machine paths and the host name were replaced; weights, tokenizers and optimizer states left out")
    return "\n".join(lines) + "\n"
