"""Readings of AMD GPUs and Ascend NPUs: the interfaces are fakes with the documented names, the tables have the shape of real ones."""

from __future__ import annotations

import os
import stat
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from doctor.live.trainer import ascend, rocm
from doctor.live.trainer.accelerators import Accelerators
from doctor.live.trainer.ascend import Ascend, chips_of
from doctor.live.trainer.rocm import Rocm

VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")


class FakeAmdSmi(types.ModuleType):
    """Four MI300X; handles are their places. `broken` names functions that fail, `power` is what amdsmi_get_power_info answers."""

    AmdSmiTemperatureType = types.SimpleNamespace(EDGE=0, HOTSPOT=1)
    AmdSmiTemperatureMetric = types.SimpleNamespace(CURRENT=0)

    def __init__(self) -> None:
        super().__init__("amdsmi")
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.power: dict[str, Any] = {"current_socket_power": 612, "average_socket_power": "N/A", "power_limit": 750_000_000}
        self.hotspot = 71

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("amdsmi_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.broken:
                raise RuntimeError("AMDSMI_STATUS_NOT_SUPPORTED")
            return {
                "amdsmi_get_processor_handles": ["h0", "h1", "h2", "h3"],
                "amdsmi_get_gpu_asic_info": {"asic_serial": f"0x0C0FFEE00000000{arguments[0][1:]}" if arguments else ""},
                "amdsmi_get_gpu_vram_usage": {"vram_total": 196_608, "vram_used": 98_304},
                "amdsmi_get_gpu_activity": {"gfx_activity": 94, "umc_activity": 40, "mm_activity": "N/A"},
                "amdsmi_get_power_info": self.power,
                "amdsmi_get_temp_metric": self.hotspot if arguments[1:] == (1, 0) else -1,
            }.get(name)

        return call


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeAmdSmi:
    module = FakeAmdSmi()
    monkeypatch.setitem(sys.modules, "amdsmi", module)
    monkeypatch.setattr(rocm, "DRIVER", tmp_path)
    for name in VISIBLE:
        monkeypatch.delenv(name, raising=False)
    return module


def test_the_figures_of_an_amd_gpu(amd):
    """Half of 192 GiB, percent, watts of the socket now, degrees of the hottest point; nothing is said of throttling."""
    readings = Rocm().read()
    assert {name: value for name, value in readings.items() if name.startswith("gpu.3.")} == {
        "gpu.3.used_gib": 96.0, "gpu.3.total_gib": 192.0, "gpu.3.util_percent": 94.0, "gpu.3.power_watts": 612.0,
        "gpu.3.temperature_c": 71.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("power", "watts"),
    [
        ({"current_socket_power": 0, "average_socket_power": 43}, 43.0),
        ({"current_socket_power": "N/A", "average_socket_power": "N/A", "socket_power": 210}, 210.0),
        ({"current_socket_power": "N/A", "average_socket_power": "N/A"}, None),
    ],
)
def test_the_power_that_the_generation_knows(amd, power, watts):
    """MI200 knows the average, MI300 the current power; a card that knows none costs that figure."""
    amd.power = power
    assert Rocm().read().get("gpu.0.power_watts") == watts


def test_degrees_and_millidegrees(amd):
    """The documentation and the releases disagree about the unit."""
    amd.hotspot = 71_500
    assert Rocm().read()["gpu.0.temperature_c"] == 71.5


@pytest.mark.parametrize(
    ("function", "lost"),
    [
        ("amdsmi_get_gpu_vram_usage", {"used_gib", "total_gib"}),
        ("amdsmi_get_gpu_activity", {"util_percent"}),
        ("amdsmi_get_power_info", {"power_watts"}),
        ("amdsmi_get_temp_metric", {"temperature_c"}),
    ],
)
def test_a_failing_call_costs_its_figure(amd, function, lost):
    """A virtual machine's guest may not ask for most of them."""
    amd.broken.add(function)
    figures = {"used_gib", "total_gib", "util_percent", "power_watts", "temperature_c"}
    assert set(Rocm().read()) == {f"gpu.{index}.{name}" for index in range(4) for name in figures - lost}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, [2, 0]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, [3]),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "3"}, [1]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, [3]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-0c0ffee000000001,0"}, [1, 0]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-0000000000000000"}, []),
        ({"HIP_VISIBLE_DEVICES": "1,-1,2"}, [1]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_the_visible_amd_gpus(amd, monkeypatch, variables, expected):
    """HIP counts what ROCr left over, by index or unique id; HIP's variable goes before CUDA's."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    gpus = Rocm()
    assert {int(name.split(".")[1]) for name in gpus.read()} == set(expected)
    assert gpus.indices == expected


@pytest.mark.parametrize("broken", [set(), {"amdsmi_init"}, {"amdsmi_get_processor_handles"}])
def test_amdsmi_is_initialized_once(amd, broken):
    """Whatever fails when the GPUs are looked up is not tried again every second."""
    amd.broken |= broken
    gpus = Rocm()
    for _ in range(3):
        gpus.read()
    assert amd.calls.count("amdsmi_init") == 1


def test_without_the_driver_nothing_is_imported(amd, monkeypatch):
    """amdsmi's import prints to the training's standard output where its library is missing."""
    monkeypatch.setattr(rocm, "DRIVER", Path("/dev/no-such-driver"))
    assert Rocm().read() == {}
    assert amd.calls == []


TWO_CARDS = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.0                   Version: 24.1.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 2     910B3               | OK            | 101.8       43                0    / 0             |
| 0                         | 0000:C1:00.0  | 87          0    / 0          32768/ 65536         |
+===========================+===============+====================================================+
| 5     910B3               | Alarm         | 92.0        39                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          3328 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 2       0                 | 99910         | python                   | 27977                   |
"""
TWO_DIES = """\
| NPU   Name                | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip  Phy-ID              | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)           |
+===========================+===============+======================================================================+
| 0     Ascend910           | OK            | 204.0                43                      0    / 0                |
| 0     0                   | 0000:9D:00.0  | 100                  0    / 0                57344/ 65536            |
+------------------------------------------------------------------------------------------------------------------+
| 0     Ascend910           | OK            | -                    40                      0    / 0                |
| 1     1                   | 0000:9F:00.0  | 60                   0    / 0                8192 / 65536            |
"""
OLD_310 = """\
| NPU     Name      | Health          | Power(W)          Temp(C)              |
| Chip    Device    | Bus-Id          | AICore(%)         Memory-Usage(MB)     |
+===================+=================+========================================+
| 1       310       | OK              | 12.8              49                   |
| 0       0         | 0000:01:00.0    | 0                 2560 / 8192          |
"""


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            TWO_CARDS,
            [
                {"used_gib": 32.0, "total_gib": 64.0, "util_percent": 87, "power_watts": 101.8, "temperature_c": 43},
                {"used_gib": 3.25, "total_gib": 64.0, "util_percent": 0, "power_watts": 92, "temperature_c": 39},
            ],
        ),
        (
            TWO_DIES,
            [
                {"used_gib": 56.0, "total_gib": 64.0, "util_percent": 100, "power_watts": 204, "temperature_c": 43},
                {"used_gib": 8.0, "total_gib": 64.0, "util_percent": 60, "temperature_c": 40},
            ],
        ),
        (OLD_310, [{"used_gib": 2.5, "total_gib": 8.0, "util_percent": 0, "power_watts": 12.8, "temperature_c": 49}]),
        ("DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\ndcmi model initialized failed, because the device is used. ret is -8020", []),
        ("", []),
    ],
)
def test_npu_smis_table(table, expected):
    """One card a row pair, two dies a card, the older tool without HBM; processes and error messages are no chips."""
    assert list(chips_of(table)) == expected


def read_until(npus: Ascend, seconds: float = 10.0) -> dict[str, float]:
    """The first reading that says something."""
    until = time.monotonic() + seconds
    while not (readings := npus.read()) and time.monotonic() < until:
        time.sleep(0.02)
    return readings


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Puts an npu-smi with the given script on PATH; it counts its calls in `calls`."""

    def put(script: str) -> Path:
        path = tmp_path / "npu-smi"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "calls"

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in VISIBLE:
        monkeypatch.delenv(name, raising=False)
    return put


@pytest.mark.parametrize(
    ("named", "expected"), [(None, [0, 1]), ("1", [1]), ("0,1", [0, 1]), ("0, 1", [0]), ("1,7", [1]), ("", []), ("x", [])]
)
def test_the_visible_npus(tool, monkeypatch, named, expected):
    """Logical ids in the table's order, whatever the NPU's own number; what stands behind a space is not read."""
    calls = tool(f"cat <<'END'\n{TWO_CARDS}END")
    if named is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", named)
    npus = Ascend()
    readings = read_until(npus, 10.0 if expected else 0.5)
    assert {int(name.split(".")[1]) for name in readings} == set(expected)
    assert calls.read_text().splitlines() == ["info"]


def test_npu_smi_is_asked_twice_a_minute(tool, monkeypatch):
    """A reading is given once; nobody waits for the next, which begins when its time has come."""
    calls = tool(f"cat <<'END'\n{TWO_CARDS}END")
    npus = Ascend()
    assert read_until(npus)["gpu.0.used_gib"] == 32.0
    assert [npus.read() for _ in range(3)] == [{}, {}, {}]
    assert len(calls.read_text().splitlines()) == 1
    npus._begun -= ascend.PERIOD_SECONDS
    assert read_until(npus)["gpu.1.temperature_c"] == 39
    assert len(calls.read_text().splitlines()) == 2


def test_a_tool_that_hangs_is_ended_and_not_asked_again(tool, monkeypatch):
    """A driver that does not answer costs one process, and no reading waits for it."""
    calls = tool("exec sleep 60")
    monkeypatch.setattr(ascend, "LIMIT_SECONDS", 0.3)
    monkeypatch.setattr(ascend, "PERIOD_SECONDS", 0.0)
    npus = Ascend()
    began = time.monotonic()
    npus.read()
    child = npus._child
    while time.monotonic() < began + 1.0:
        assert npus.read() == {}
        time.sleep(0.02)
    assert child.poll() is not None
    assert len(calls.read_text().splitlines()) == 1


def test_the_first_vendor_with_figures_is_kept(amd, monkeypatch):
    """No NVIDIA GPU, four AMD ones: the sampler's figures are theirs, with their tool's indices."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "3,1")
    cards = Accelerators()
    assert cards.indices == []
    assert cards.read()["gpu.1.used_gib"] == 96.0
    assert cards.indices == [3, 1]
