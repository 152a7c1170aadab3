"""Readings of GPUs through NVML: which GPUs, and what a call that fails costs. The bindings are a fake with nvidia-ml-py's names."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from doctor import DoctorCallback, analyze
from doctor.live.trainer import nvml
from doctor.live.trainer.nvml import Gpus
from doctor.live.trainer.recorder import sample_interval
from doctor.live.trainer.sampler import Sampler

UUIDS = ["GPU-8a1b2c3d-0000", "GPU-8a1bffff-1111", "GPU-5e5e5e5e-2222"]
MIG = "MIG-c6d4-77"
FIGURES = {"used_gib", "total_gib", "util_percent", "power_watts", "temperature_c", "throttled"}


class NVMLError(Exception):
    """pynvml's."""


class FakeNvml(types.ModuleType):
    """Three GPUs; handles are indices, the MIG instance of GPU 2 is "mig". `broken` names functions that fail."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.forbidden: set[int] = set()
        self.reasons = 0
        self.names = ["NVIDIA H100 80GB HBM3"] * 3

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.broken or (name == "nvmlDeviceGetHandleByIndex" and arguments[0] in self.forbidden):
                raise NVMLError(name)
            return self.answer(name, *arguments)

        return call

    def answer(self, name: str, *arguments: Any) -> Any:
        memory = types.SimpleNamespace(used=20 << 30, total=80 << 30)
        return {
            "nvmlDeviceGetCount": 3,
            "nvmlDeviceGetHandleByIndex": arguments[0] if arguments else None,
            "nvmlDeviceGetUUID": UUIDS[arguments[0]].encode() if name == "nvmlDeviceGetUUID" else None,
            "nvmlDeviceGetName": self.names[arguments[0]] if name == "nvmlDeviceGetName" else None,
            "nvmlDeviceGetHandleByUUID": "mig",
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": 2,
            "nvmlDeviceGetIndex": arguments[0] if arguments else None,
            "nvmlDeviceGetMemoryInfo": memory,
            "nvmlDeviceGetUtilizationRates": types.SimpleNamespace(gpu=97),
            "nvmlDeviceGetPowerUsage": 412_300,
            "nvmlDeviceGetTemperature": 61,
            "nvmlDeviceGetCurrentClocksEventReasons": self.reasons,
        }.get(name)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    module = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    return module


def indices(readings: dict[str, float]) -> set[int]:
    return {int(name.split(".")[1]) for name in readings}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, {0, 1, 2}),
        ("", set()),
        ("1", {1}),
        ("2, 0", {0, 2}),
        ("-1", set()),
        ("0,-1,2", {0}),
        ("0,7,1", {0}),
        ("0,3,1", {0}),
        ("NoDevFiles", set()),
        (UUIDS[1], {1}),
        ("GPU-5e5e", {2}),
        ("GPU-8a1b", set()),  # two begin with it
        (f"GPU-5e5e,{UUIDS[0]}", {0, 2}),
        ("GPU-none,1", set()),
        (MIG, {2}),
        ("MIG-GPU-5e5e5e5e-2222/1/0", {2}),
    ],
)
def test_the_visible_gpus_are_read(fake, monkeypatch, visible, expected):
    """Indices, full and shortened UUIDs and MIG names mean what they mean to CUDA; an entry that names no GPU hides the rest."""
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert indices(Gpus().read()) == expected


@pytest.mark.parametrize(
    ("function", "lost"),
    [
        ("nvmlDeviceGetMemoryInfo", {"used_gib", "total_gib"}),
        ("nvmlDeviceGetUtilizationRates", {"util_percent"}),
        ("nvmlDeviceGetPowerUsage", {"power_watts"}),
        ("nvmlDeviceGetTemperature", {"temperature_c"}),
        ("nvmlDeviceGetCurrentClocksEventReasons", {"throttled"}),
    ],
)
def test_a_failing_call_costs_its_figure(fake, function, lost):
    """Utilisation under MIG, memory of a unified-memory GPU: all other figures of all GPUs are still there."""
    fake.broken.add(function)
    readings = Gpus().read()
    assert set(readings) == {f"gpu.{index}.{name}" for index in range(3) for name in FIGURES - lost}


def test_the_figures_have_their_units(fake):
    """GiB, percent, watts, degrees."""
    readings = Gpus().read()
    assert [readings[f"gpu.1.{name}"] for name in ("used_gib", "total_gib", "util_percent", "power_watts", "temperature_c")] == [
        20.0, 80.0, 97.0, 412.3, 61.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("visible", "order", "read", "mapping"),
    [
        (None, None, {0, 1, 2}, []),
        ("1", None, set(), []),
        ("2,1,0", None, {0, 1, 2}, []),
        ("2,1", "PCI_BUS_ID", {1, 2}, [2, 1]),
        (f"{UUIDS[2]},{UUIDS[0]}", None, {0, 2}, [2, 0]),
    ],
)
def test_of_different_gpus_an_index_names_none(fake, monkeypatch, visible, order, read, mapping):
    """CUDA counts the fastest first unless told otherwise: only UUIDs, or the PCI order, say which card is which."""
    fake.names[1] = "NVIDIA GeForce RTX 4090"
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(name, value)
    gpus = Gpus()
    assert (indices(gpus.read()), gpus.indices) == (read, mapping)


def test_torchs_order_of_equal_gpus_is_that_of_the_variable(fake, monkeypatch):
    """torch's GPU 0 is nvidia-smi's GPU 2 here."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    gpus = Gpus()
    assert gpus.indices == []
    gpus.read()
    assert gpus.indices == [2, 0]


def test_a_gpu_without_permission_costs_that_gpu(fake, monkeypatch):
    """The others are read, with and without CUDA_VISIBLE_DEVICES."""
    fake.forbidden.add(1)
    assert indices(Gpus().read()) == {0, 2}
    for visible, expected in (("1,2", {2}), ("GPU-5e5e", {2})):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert indices(Gpus().read()) == expected


@pytest.mark.parametrize("broken", [set(), {"nvmlInit"}, {"nvmlDeviceGetCount"}, {"nvmlDeviceGetHandleByIndex"}])
def test_nvml_is_initialized_once(fake, broken):
    """Whatever fails when the GPUs are looked up is not tried again every second."""
    fake.broken |= broken
    gpus = Gpus()
    for _ in range(3):
        gpus.read()
    assert fake.calls.count("nvmlInit") == 1


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [(0x0, 0.0), (0x1, 0.0), (0x2, 0.0), (0x4, 0.0), (0x4 | 0x1, 0.0), (0x8, 1.0), (0x20, 1.0), (0x40, 1.0), (0x80, 1.0), (0x44, 1.0)],
)
def test_the_power_cap_is_no_throttling(fake, reasons, throttled):
    """nvml.h: hardware slowdown 0x8, thermal 0x20 and 0x40, power brake 0x80; 0x4 is the power cap of a GPU at full load."""
    fake.reasons = reasons
    assert Gpus().read()["gpu.0.throttled"] == throttled


def test_older_bindings_have_another_name(fake, monkeypatch):
    """Before nvidia-ml-py 12.535 the event reasons were called throttle reasons."""
    monkeypatch.setattr(fake, "nvmlDeviceGetCurrentClocksEventReasons", None, raising=False)
    monkeypatch.setattr(fake, "nvmlDeviceGetCurrentClocksThrottleReasons", lambda _: 0x40, raising=False)
    assert Gpus().read()["gpu.0.throttled"] == 1.0


def test_without_the_bindings_the_rest_is_read(monkeypatch, tmp_path):
    """No pynvml: host, process and disk are sampled all the same, and only the first rank of a node samples them."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    whole, other = Sampler(tmp_path, whole=True).read(), Sampler(tmp_path, whole=False).read()
    assert "disk.free_gib" in whole
    assert set(other) <= {"process.rss_gib"}


def test_a_gib_is_two_to_the_thirty(fake, monkeypatch):
    """The figures of the sampler and of the GPUs count in the same unit."""
    monkeypatch.setattr(
        fake, "nvmlDeviceGetMemoryInfo", lambda _: types.SimpleNamespace(used=1_073_741_824, total=2_147_483_648), raising=False
    )
    readings = Gpus().read()
    assert (readings["gpu.0.used_gib"], readings["gpu.0.total_gib"], nvml.GIB) == (1.0, 2.0, 1_073_741_824)


@pytest.mark.parametrize(
    ("elapsed", "expected"), [(0, 1.0), (599, 1.0), (600, 1.0), (1200, 2.0), (6000, 10.0), (18_000, 30.0), (90_000, 30.0)]
)
def test_samples_become_rarer(elapsed, expected):
    """One a second for ten minutes, then every 600th of the time so far, never more than 30 s apart."""
    assert sample_interval(elapsed) == pytest.approx(expected)


def test_the_full_gpu_is_named_as_nvidia_smi_names_it(tmp_path):
    """torch's GPU 1 is the card that nvidia-smi calls 2; where both count alike, one number is enough."""
    message = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. "
        "GPU {} has a total capacity of 23.64 GiB of which 1.02 GiB is free."
    )
    for gpu, shown in ((0, "GPU 0 "), (1, "GPU 1 (smi: 2) ")):
        folder = tmp_path / str(gpu)
        folder.mkdir()
        (folder / "lfdoctor.jsonl").write_text(
            '{"type":"Session","version":1,"rank":0}\n{"type":"Fact","name":"gpu.indices","value":[0,2]}\n'
        )
        (folder / "console.log").write_text(message.format(gpu) + "\n")
        (root,) = [one for one in analyze(folder).findings if one.role == "root"]
        assert shown in root.text


def test_the_journal_tells_the_indices_once(fake, monkeypatch, tmp_path):
    """The first reading knows them; later readings repeat nothing."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    callback = DoctorCallback(tmp_path, warn=False)
    for _ in range(3):
        callback._sample()
    facts = [event for event in callback.recorder._waiting if event.get("name") == "gpu.indices"]
    assert [fact["value"] for fact in facts] == [[2, 0]]
