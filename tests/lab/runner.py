"""Runs one scenario as a user would: `bash run.sh > console.log 2>&1`, with the real `llamafactory-cli train train.yaml` inside."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.install import lab_bin
from tests.lab.scenarios.base import Scenario, yaml_text

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 240
WATCHED = "watched"
"""The folder in which `lfdoctor run` keeps its journal."""


def kit(folder: Path) -> Path:
    """Model and data of the lab, made once in `folder`."""
    subprocess.run([str(lab_bin() / "python"), str(HERE / "tiny.py"), str(folder)], check=True, capture_output=True)
    return folder


def asked(script: str, jobs: Sequence[Mapping[str, Any]], base: Path) -> list[str]:
    """The lines that an oracle of this folder answers to its jobs; run by the lab's Python, with few variables and no network or GPU."""
    (base / "jobs.json").write_text(json.dumps(jobs))
    environment = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "PATH", "LD_LIBRARY_PATH")}
    environment |= {
        "HOME": str(base),
        "HF_HOME": str(base / ".cache"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [str(lab_bin() / "python"), str(HERE / script), str(base / "jobs.json")]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return ended.stdout.splitlines()


def prepare(scenario: Scenario, work: Path, kit_folder: Path) -> None:
    """The new folder `work` with everything that the scenario's config names."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copytree(kit_folder / "data", work / "data")
    shutil.copytree(kit_folder / "models", work / "models")
    for name, text in scenario.files.items():
        (work / name).write_text(text, encoding="utf-8")


def run(scenario: Scenario, work: Path, kit_folder: Path) -> int:
    """Runs `scenario` in the new folder `work`; returns the exit code of its shell. Raises TimeoutError if it hangs."""
    prepare(scenario, work, kit_folder)
    with held(scenario.held_port):
        return _run(scenario, work)


@contextlib.contextmanager
def held(port: int | None) -> Iterator[None]:
    """Keeps a port busy, as another program would."""
    with socket.socket() as other:
        if port:
            other.bind(("127.0.0.1", port))
            other.listen()
        yield


def _run(scenario: Scenario, work: Path) -> int:
    limit = _limit_kib(scenario, work) if scenario.limit_mib else None
    for earlier in scenario.earlier:
        shell(work, yaml_text(earlier), scenario, fault={}, log="earlier.log")
    return shell(work, scenario.yaml, scenario, fault=scenario.fault, limit_kib=limit)


def _limit_kib(scenario: Scenario, work: Path) -> int:
    """What the run needs with one sample per batch (measured), plus the scenario's allowance; KiB for `ulimit -v`."""
    small = {**scenario.change, "per_device_train_batch_size": 1, "max_steps": 1, "output_dir": "calibration"}
    if shell(work, yaml_text(small), scenario, fault={}, name="calibration.yaml", log="calibration.log"):
        raise RuntimeError(f"{scenario.name}: the calibration run failed, see {work}/calibration.log")
    return (truth(work)["address_space_mib"] + (scenario.limit_mib or 0)) * 1024


def truth(work: Path, rank: int = 0) -> dict[str, Any]:
    """What really happened in the last run in `work`: seconds from first to last log, saving, evaluation, injected ones."""
    return dict(json.loads((work / f"truth.json.{rank}").read_text(encoding="utf-8")))


def shell(
    work: Path,
    config: str,
    scenario: Scenario,
    *,
    fault: Mapping[str, Any],
    name: str = "train.yaml",
    log: str = "console.log",
    limit_kib: int | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """One `llamafactory-cli train` on `config` in `work`, captured the scenario's way."""
    (work / name).write_text(config, encoding="utf-8")
    script = Path("run.sh" if name == "train.yaml" else f"run_{name}.sh")
    (work / script).write_text(_script(scenario, name, limit_kib), encoding="utf-8")
    command = ["bash", str(script)] if scenario.script else ["bash", "-c", f"exec {_command(scenario, name)}"]
    began = time.monotonic()
    variables = {**_environment(work, scenario, fault), **(env or {})}
    code = (_on_terminal if scenario.capture == "terminal" else _to_files)(command, work, variables, scenario, log)
    if time.monotonic() - began > TIMEOUT_SECONDS:
        raise TimeoutError(f"{scenario.name} took longer than {TIMEOUT_SECONDS} s")
    return code


def _command(scenario: Scenario, name: str) -> str:
    given = dict(scenario.env)
    if scenario.ranks > 1:
        given = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(scenario.ranks)} | given
    words = [f"{key}={value}" for key, value in given.items()]
    watcher = ["lfdoctor", "run", "-o", WATCHED, "--"] if scenario.watched else []
    return " ".join([*(["env", *words] if words and not scenario.script else words), *watcher, "llamafactory-cli", "train", name])


def _script(scenario: Scenario, name: str, limit_kib: int | None) -> str:
    limit = f"ulimit -v {limit_kib}\n" if limit_kib else ""
    return f"#!/bin/bash\n{limit}{_command(scenario, name)}\n"


def _environment(work: Path, scenario: Scenario, fault: Mapping[str, Any]) -> dict[str, str]:
    """Few variables, so that the run depends on nothing of this machine."""
    variables = {key: value for key, value in os.environ.items() if key in ("LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")}
    variables |= {
        "PATH": os.pathsep.join((str(lab_bin()), os.environ["PATH"], str(Path(sys.executable).parent))),
        "HOME": str(work),
        "HF_HOME": str(work / ".cache"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "NPROC_PER_NODE": str(scenario.ranks),  # without a GPU FORCE_TORCHRUN=1 alone would start none
        "PYTHONPATH": str(HERE / "faults"),
        "LFDOCTOR_LAB_TRUTH": str(work / "truth.json"),
        "LFDOCTOR_LAB_CLOCK": str(scenario.clock),
        "LFDOCTOR_LAB_FAULT": json.dumps(dict(fault)),
    }
    return variables | ({"PYTHONUNBUFFERED": "1"} if scenario.unbuffered else {})


def _to_files(command: list[str], work: Path, variables: dict[str, str], scenario: Scenario, log: str) -> int:
    with contextlib.ExitStack() as stack:
        if scenario.capture == "split":
            out = stack.enter_context((work / "stdout.log").open("wb"))
            err = stack.enter_context((work / "stderr.log").open("wb"))
        else:
            out = err = stack.enter_context((work / log).open("ab"))
        process = subprocess.Popen(
            command, cwd=work, env=variables, stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True
        )
        return _wait(process)


def _on_terminal(command: list[str], work: Path, variables: dict[str, str], scenario: Scenario, log: str) -> int:
    """As `script` or a copied terminal window shows it: line-buffered stdout, both streams in the order of time."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=work,
        env={**variables, "TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    with (work / log).open("ab") as file:
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                break
            if not chunk:
                break
            file.write(chunk)
    os.close(ours)
    return _wait(process)


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise TimeoutError(f"killed after {TIMEOUT_SECONDS} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
