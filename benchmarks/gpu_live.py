"""Check the live readings on the CUDA device at hand: figures, indices, cost, and that they neither change nor disturb a training.

Needs torch with CUDA and nvidia-ml-py; takes three to six minutes, each check in a process of its own and at most two minutes. Prints one
line of JSON a check and ends with the number of failed ones; with 0 and a message where there is no CUDA device.

    python benchmarks/gpu_live.py [-o FILE.json] [name of a check ...]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

GIB = 1 << 30
LIMIT_SECONDS = 120
"""For one check: a device that hangs costs that check."""
FIGURES = ("used_gib", "total_gib", "util_percent", "power_watts", "temperature_c", "throttled")
STEPS = 300
"""Of the training that is timed."""
Result = dict[str, Any]


def readings() -> tuple[Any, dict[str, float]]:
    """The sampler's reader and one reading."""
    from doctor.live.trainer.nvml import Gpus

    gpus = Gpus()
    return gpus, gpus.read()


def figures() -> Result:
    """Every visible card gives its figures; which are missing is told (MIG and unified memory lack some), `used_gib` never is."""
    gpus, seen = readings()
    missing = sorted(name for index in gpus.indices for name in FIGURES if f"gpu.{index}.{name}" not in seen)
    return {"ok": bool(seen) and not any(name == "used_gib" for name in missing), "readings": seen, "missing": missing}


def memory_follows() -> Result:
    """8 GiB (an eighth of a small card) that torch allocates show in `used_gib`, on the card that torch calls its first."""
    import torch

    torch.cuda.init()
    gpus, before = readings()
    card, total = gpus.indices[0], torch.cuda.get_device_properties(0).total_memory
    size = min(8 * GIB, total // 8)
    torch.zeros(1, device="cuda:0")
    before = gpus.read()
    held = torch.empty(size, dtype=torch.uint8, device="cuda:0")
    held.fill_(1)
    torch.cuda.synchronize()
    after = gpus.read()
    grown = after[f"gpu.{card}.used_gib"] - before[f"gpu.{card}.used_gib"]
    seen_total = after[f"gpu.{card}.total_gib"]
    ok = abs(grown - size / GIB) < 0.3 and abs(seen_total - total / GIB) / seen_total < 0.05
    return {
        "ok": ok,
        "allocated_gib": size / GIB,
        "grown_gib": round(grown, 3),
        "torch_total_gib": round(total / GIB, 2),
        "nvml": seen_total,
    }


def same_cards() -> Result:
    """NVML's UUID of the n-th index is torch's UUID of device n."""
    import pynvml
    import torch

    gpus, _ = readings()
    ours = [str(pynvml.nvmlDeviceGetUUID(handle)).removeprefix("GPU-").removeprefix("MIG-") for _, handle in gpus._gpus or []]
    theirs = [str(getattr(torch.cuda.get_device_properties(at), "uuid", "")) for at in range(torch.cuda.device_count())]
    known = all(theirs)
    return {"ok": not known or ours == theirs, "ours": ours, "torch": theirs, "torch_tells": known}


def visible_devices() -> Result:
    """An index, a UUID, a shortened UUID, nothing, and a name that no card has: torch and we see as many cards."""
    import pynvml

    pynvml.nvmlInit()
    uuid = str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)))
    code = (
        "import sys; sys.path.insert(0, {root!r}); import json, torch; from benchmarks.gpu_live import readings; gpus, seen = readings(); "
    )
    code += "print(json.dumps([torch.cuda.device_count(), len({{name.split('.')[1] for name in seen}})]))"
    found = {}
    for named in ("0", uuid, uuid[:12], "", "GPU-ffffffff", "0,99,0"):
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": named}
        done = subprocess.run([sys.executable, "-c", code.format(root=str(ROOT))], env=env, capture_output=True, text=True, timeout=60)
        found[named] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr[-300:]
    return {"ok": all(isinstance(pair, list) and pair[0] == pair[1] for pair in found.values()), "torch_and_ours": found}


def full_load() -> Result:
    """Twenty seconds of matrix products: utilisation and power rise, and a card at its power limit is not called throttled for that."""
    import pynvml
    import torch

    gpus, idle = readings()
    card, handle = gpus._gpus[0]
    matrix = torch.randn(8192, 8192, device="cuda:0", dtype=torch.bfloat16)
    busy, reasons, until = [], 0, time.monotonic() + 20
    while time.monotonic() < until:
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()
        busy.append(gpus.read())
        reasons |= int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    util = statistics.median(one.get(f"gpu.{card}.util_percent", 0.0) for one in busy[len(busy) // 2 :])
    watts = max(one.get(f"gpu.{card}.power_watts", 0.0) for one in busy)
    throttled = max(one.get(f"gpu.{card}.throttled", 0.0) for one in busy)
    slowed = bool(reasons & (0x8 | 0x20 | 0x40 | 0x80))
    ok = util > 80 and watts > idle.get(f"gpu.{card}.power_watts", 0.0) and throttled == float(slowed)
    return {"ok": ok, "util_percent": util, "watts": watts, "event_reasons": hex(reasons), "throttled": throttled, "readings": len(busy)}


def no_context() -> Result:
    """A process that only reads has no CUDA context: NVML does not list it among those that compute."""
    import pynvml

    gpus, seen = readings()
    for _ in range(10):
        gpus.read()
    listed = {process.pid for _, handle in gpus._gpus or [] for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return {"ok": bool(seen) and os.getpid() not in listed, "listed": len(listed), "torch_loaded": "torch" in sys.modules}


def cost() -> Result:
    """Milliseconds that one reading takes, and processor time of it; once a second, 20 ms of a core are 2 %."""
    gpus, _ = readings()
    cards, times = len(gpus.indices), []
    before = time.process_time()
    for _ in range(200):
        began = time.perf_counter()
        gpus.read()
        times.append(time.perf_counter() - began)
    cpu = (time.process_time() - before) / 200
    return {
        "ok": cpu < 0.02 * max(1, cards),
        "cards": cards,
        "median_ms": round(1e3 * statistics.median(times), 3),
        "longest_ms": round(1e3 * max(times), 3),
        "processor_ms": round(1e3 * cpu, 3),
    }


def fork_after_reading() -> Result:
    """A worker forked after the readings began can still use CUDA: NVML initialises no CUDA driver in the parent."""
    code = (
        "import sys; sys.path.insert(0, {root!r}); import os; from benchmarks.gpu_live import readings; readings(); child = os.fork()\n"
        "if child == 0:\n    import torch; torch.ones(4, device='cuda').sum().item(); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code.format(root=str(ROOT))], capture_output=True, text=True, timeout=90)
    return {"ok": done.returncode == 0, "code": done.returncode, "stderr": done.stderr[-300:]}


def train(callback: Any) -> tuple[str, list[float]]:
    """A small regression on the card with a trainer's events; a hash of the weights, and the seconds of each step."""
    import torch

    torch.manual_seed(0)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(8))).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    args = types.SimpleNamespace(output_dir=".", learning_rate=1e-4, world_size=1, report_to=[], to_dict=lambda: {"learning_rate": 1e-4})
    state = types.SimpleNamespace(global_step=0, max_steps=STEPS, is_world_process_zero=True, num_input_tokens_seen=0)
    control = types.SimpleNamespace(should_training_stop=False)
    times = []
    if callback:
        callback.on_train_begin(args, state, control, model=model)
    for step in range(STEPS):
        began = time.perf_counter()
        if callback:
            callback.on_step_begin(args, state, control)
        loss = model(torch.randn(64, 1024, device="cuda")).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        state.global_step = step + 1
        if callback:
            callback.on_step_end(args, state, control)
            if step % 10 == 9:
                callback.on_log(args, state, control, logs={"loss": 1.0 / (step + 1)})
        times.append(time.perf_counter() - began)
    if callback:
        callback.on_train_end(args, state, control)
    torch.cuda.synchronize()
    digest = hashlib.sha256(b"".join(parameter.detach().cpu().numpy().tobytes() for parameter in model.parameters())).hexdigest()
    return digest, times


def training() -> Result:
    """With the callback the weights are bit-equal; the time of a step beside that without; the journal holds figures of the card."""
    from doctor import DoctorCallback

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    train(None)  # warms up
    plain, without = train(None)
    with tempfile.TemporaryDirectory() as folder:
        watched, with_us = train(DoctorCallback(folder, warn=False))
        journal = (Path(folder) / "lfdoctor.jsonl").read_text()
    again, without_again = train(None)
    medians = {
        name: 1e6 * statistics.median(times) for name, times in (("without", without), ("with", with_us), ("without_again", without_again))
    }
    names = ("gpu.indices", "used_gib", "reserved_gib", "gpu.total_gib")
    return {
        "ok": plain == watched == again and all(f'"{name}"' in journal or f".{name}" in journal for name in names),
        "bit_equal": plain == watched,
        "repeatable": plain == again,
        "median_step_us": {name: round(value, 1) for name, value in medians.items()},
        "in_journal": {name: name in journal for name in names},
    }


def out_of_memory() -> Result:
    """A real out-of-memory error of this torch is read: its sizes, and the rule about GPU memory."""
    import torch

    from doctor import analyze

    try:
        torch.empty(2 * torch.cuda.get_device_properties(0).total_memory, dtype=torch.uint8, device="cuda:0")
        return {"ok": False, "raised": False}
    except torch.OutOfMemoryError as error:
        text = f"{type(error).__module__}.{type(error).__name__}: {error}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "console.log").write_text(f"Traceback (most recent call last):\n{text}\n")
        roots = [one for one in analyze(folder).findings if one.role == "root"]
    return {
        "ok": [one.rule.startswith("memory/gpu-") for one in roots] == [True],
        "message": text[:400],
        "told": [one.text for one in roots],
    }


CHECKS: dict[str, Callable[[], Result]] = {
    check.__name__: check
    for check in (
        figures, no_context, same_cards, visible_devices, memory_follows, cost, fork_after_reading, full_load, out_of_memory, training,
    )
}  # fmt: skip


def obstacle() -> str | None:
    """Why nothing can be checked here, or None."""
    for package, pip in (("torch", "torch"), ("pynvml", "nvidia-ml-py")):
        if importlib.util.find_spec(package) is None:
            return f"needs {package} (pip install {pip})"
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_SECONDS)
    return None if done.returncode == 0 and done.stdout.strip() not in ("", "0") else "no CUDA device here"


def in_own_process(name: str) -> Result:
    """A check's result; an error or a time-out is a failure with its text."""
    code = "import sys, json; sys.path.insert(0, {root!r}); from benchmarks.gpu_live import CHECKS; print(json.dumps(CHECKS[{name!r}]()))"
    command = [sys.executable, "-c", code.format(root=str(ROOT), name=name)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        return dict(json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else {"ok": False, "error": done.stderr[-1500:]}
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"no answer in {LIMIT_SECONDS} s"}
    except (IndexError, ValueError) as error:
        return {"ok": False, "error": f"{error}: {done.stdout[-300:]!r}"}


def main() -> int:
    """Run the checks named on the command line, else all; the number that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *CHECKS], default=[], metavar="CHECK")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    reason = obstacle()
    if reason is not None:
        print(f"gpu_live: {reason}; nothing was checked")
        return 0
    results: dict[str, Result] = {}
    for name in arguments.names or CHECKS:
        began = time.monotonic()
        results[name] = {**in_own_process(name), "seconds": round(time.monotonic() - began, 1)}
        print(json.dumps({name: results[name]}), flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps(results, indent=1))
    failed = [name for name, result in results.items() if not result["ok"]]
    print(f"{len(results) - len(failed)} of {len(results)} checks passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
