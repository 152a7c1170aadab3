"""benchmarks/gpu_live.py without a card: it says so; with a made-up card its checks run, each in its process, and failures are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVML = """
class Memory: used, total = 20 << 30, 80 << 30
class Rates: gpu = 97
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return "NVIDIA H100"
def nvmlDeviceGetUUID(handle): return "GPU-1234"
def nvmlDeviceGetMemoryInfo(handle): return Memory
def nvmlDeviceGetUtilizationRates(handle): return Rates
def nvmlDeviceGetPowerUsage(handle): return 400_000
def nvmlDeviceGetTemperature(handle, sensor): return 60
def nvmlDeviceGetCurrentClocksEventReasons(handle): return 0
def nvmlDeviceGetComputeRunningProcesses(handle): return []
"""
TORCH = """
class cuda:
    device_count = staticmethod(lambda: {cards})
    get_device_properties = staticmethod(lambda at: type("Card", (), {{"uuid": "1234"}}))
"""


def script(folder: Path, *names: str, **modules: str) -> subprocess.CompletedProcess[str]:
    """The script with made-up modules in front of all others."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    env = {**os.environ, "PYTHONPATH": str(folder)}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "gpu_live.py"), *names],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_card_it_says_so(tmp_path):
    """No CUDA device: nothing is checked, and that is no failure."""
    done = script(tmp_path, torch=TORCH.format(cards=0), pynvml=NVML)
    assert (done.returncode, done.stdout) == (0, "gpu_live: no CUDA device here; nothing was checked\n")


@pytest.mark.skipif("torch" in sys.modules, reason="torch is installed here")
def test_without_torch_it_says_what_is_missing(tmp_path):
    """The package is named."""
    done = script(tmp_path, pynvml=NVML)
    assert done.returncode == 0
    assert done.stdout.startswith("gpu_live: needs torch (pip install torch)") or "no CUDA device here" in done.stdout


def test_checks_run_and_failures_are_counted(tmp_path):
    """Three checks that need only NVML pass on the made-up card; the one that needs torch's memory fails with its error."""
    done = script(tmp_path, "figures", "no_context", "same_cards", "cost", "memory_follows", torch=TORCH.format(cards=1), pynvml=NVML)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    results = {name: result for line in lines for name, result in line.items()}
    assert {name: result["ok"] for name, result in results.items()} == {
        "figures": True, "no_context": True, "same_cards": True, "cost": True, "memory_follows": False,
    }  # fmt: skip
    assert results["figures"]["readings"]["gpu.0.used_gib"] == 20.0
    assert "AttributeError" in results["memory_follows"]["error"]
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "4 of 5 checks passed; failed: memory_follows")
