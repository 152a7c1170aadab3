"""What other programs leave beside a run: files of W&B and SwanLab, torchrun's error files, accelerate's config, PyTorch's dumps."""

from __future__ import annotations

import json
import math
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

import doctor
from tests.readers.helpers import Seen, field
from tests.readers.test_tracebacks import PLAIN


def wandb_file(*messages: bytes, header: bytes = b":W&B" + struct.pack("<HB", 0xBEE1, 0)) -> bytes:
    """As wandb writes it: its header, then LevelDB records split where a block of 32 KiB ends (the header counts)."""
    out = bytearray(header)
    for message in messages:
        rest, first = message, True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if not rest else 2) if first else (4 if not rest else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
            if not rest:
                break
    return bytes(out)


def wandb_items(values: dict[str, Any]) -> bytes:
    return b"".join(field(1, field(2, key.encode()) + field(16, json.dumps(value).encode())) for key, value in values.items())


def wandb_run(folder: Path, records: int) -> Path:
    config = field(17, field(1, b"id") + field(4, wandb_items({"learning_rate": 1e-4, "per_device_train_batch_size": 2})))
    rows = (
        {"train/loss": 3 - step / 10, "train/grad_norm": "NaN", "eval/loss": 1.5, "train/global_step": 10 * step, "_step": step}
        for step in range(records)
    )
    path = folder / "run-abc.wandb"
    path.write_bytes(wandb_file(field(1, 1), config, *(field(2, wandb_items(row)) for row in rows)))
    return path


def test_a_wandb_file_gives_its_rows_and_the_configuration(tmp_path: Path):
    """Over a block's end, with the Trainer's own steps and names; W&B's NaN is a number."""
    seen = Seen(wandb_run(tmp_path, 400))
    assert seen.series("loss") == [(10 * step, 3 - step / 10) for step in range(400)]
    assert seen.series("eval_loss")[0] == (0, 1.5)
    assert all(value != value for _, value in seen.series("grad_norm"))
    assert seen.config == {"learning_rate": 1e-4, "per_device_train_batch_size": 2}
    assert seen.problems == []


def test_a_wandb_row_without_a_step_of_its_own_has_that_of_its_message(tmp_path: Path):
    """HistoryRecord.step.num of wandb_internal.proto; another field of that message is no step."""
    rows = (field(2, wandb_items({"train/loss": 3.0 - step}) + field(2, field(3, 99) + field(1, step))) for step in (5, 7))
    path = tmp_path / "run-abc.wandb"
    path.write_bytes(wandb_file(field(1, 1), *rows))
    assert Seen(path).series("loss") == [(5, -2.0), (7, -4.0)]


@pytest.mark.parametrize("place", [0.5, 0.99])
def test_a_damaged_wandb_file_costs_the_damaged_rows(tmp_path: Path, place: float):
    """A flipped byte costs one row; a torn end costs what is torn."""
    path = wandb_run(tmp_path, 50)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 255
    path.write_bytes(data)
    assert len(Seen(path).series("loss")) >= (20 if place < 0.9 else 49)
    path.write_bytes(data[: len(data) // 2])
    assert 15 <= len(Seen(path).series("loss")) < 30


def test_wandb_config_and_metadata(tmp_path: Path):
    """config.yaml wraps every value; the metadata tells the card and its memory."""
    text = "wandb_version: 1\n_wandb: {value: {x: 1}}\nlearning_rate: {value: 0.001}\nbf16: {value: true}\n"
    (tmp_path / "config.yaml").write_text(text)
    meta = {
        "gpu": "NVIDIA H100",
        "gpu_count": 2,
        "gpu_nvidia": [{"name": "NVIDIA H100", "memoryTotal": str(80 * 2**30)}],
        "python": "CPython 3.11.7",
    }
    (tmp_path / "wandb-metadata.json").write_text(json.dumps(meta))
    seen = Seen(tmp_path)
    assert seen.config == {"learning_rate": 0.001, "bf16": True}
    assert {name: seen.facts[name] for name in ("gpu.name", "gpu.count", "gpu.total_gib", "versions.python")} == {
        "gpu.name": "NVIDIA H100", "gpu.count": 2, "gpu.total_gib": 80.0, "versions.python": "3.11.7",
    }  # fmt: skip


def test_the_console_in_a_wandb_file_is_read_where_there_is_no_other(tmp_path: Path):
    """OutputRecord and OutputRawRecord; a file output.log beside it tells the same and is taken instead."""
    crash = "".join(f"{line}\n" for line in PLAIN.splitlines()).encode()
    raw = [field(13, field(1, 1) + field(3, part)) for part in (crash[:40], crash[40:])]
    path = tmp_path / "run-abc.wandb"
    path.write_bytes(wandb_file(*raw, field(4, field(3, b"[INFO|x.py:1] the end\n"))))
    seen = Seen(path)
    assert [(crash.exception, crash.where.file) for crash in seen.crashes] == [("torch.OutOfMemoryError", f"{path} (console)")]
    assert seen.lines[-1].text == "[INFO|x.py:1] the end"
    (tmp_path / "output.log").write_bytes(crash)
    assert [crash.where.file for crash in Seen(tmp_path).crashes] == [str(tmp_path / "output.log")]


SWANLAB = b":SWL" + struct.pack("<HB", 0xE1D6, 2)


def swanlab_messages() -> bytes:
    """As SwanLab 0.8 and later writes it (swanlab/record/v1/record.proto)."""
    stamp = field(1, 1_700_000_000) + field(2, 500_000_000)
    keys = {"train/loss": 2.0, "train/grad_norm": math.nan, "train/global_step": 1.0, "__swanlab__.gpu.0.ptc": 50.0}
    scalars = [
        field(13, field(1, key.encode()) + field(2, step) + field(4, stamp) + field(5, field(1, value)))
        for step in range(1, 400)
        for key, value in keys.items()
    ]
    return wandb_file(field(10, field(1, b"toy")), *scalars, field(16, field(1, b"Killed")), header=SWANLAB)


def swanlab_json() -> bytes:
    """As SwanLab 0.5 to 0.7 writes it."""
    models: list[dict[str, Any]] = [{"model_type": "Header", "data": {}}]
    for step in range(1, 400):
        for key, value in (("train/loss", 2.0), ("train/grad_norm", "NaN"), ("train/global_step", 1.0)):
            metric = {"index": step, "data": value, "create_time": "2023-11-14T22:13:20.500000+00:00"}
            models.append({"model_type": "Scalar", "data": {"metric": metric, "key": key, "step": step, "epoch": step}})
    models.append({"model_type": "Log", "data": {"message": "Killed", "level": "INFO"}})
    return wandb_file(*((json.dumps(model) + "\n").encode() for model in models), header=SWANLAB)


@pytest.mark.parametrize("data", [swanlab_messages(), swanlab_json()], ids=["messages", "json"])
def test_a_swanlab_file_gives_its_scalars_and_its_console(tmp_path: Path, data: bytes):
    """One step for the scalars of one step, with its time; what SwanLab measures of the machine is no metric of the run."""
    path = tmp_path / "run-abc.swanlab"
    path.write_bytes(data)
    seen = Seen(path)
    assert seen.series("loss") == [(step, 2.0) for step in range(1, 400)]
    assert {*seen.steps[0].metrics} == {"loss", "grad_norm"}
    assert math.isnan(seen.steps[0].metrics["grad_norm"])
    assert seen.steps[0].time == 1_700_000_000.5
    assert [end.signal for end in seen.ends] == [9]
    path.write_bytes(data[: len(data) // 2])
    assert len(Seen(path).series("loss")) > 150


def test_a_real_swanlab_run_tells_what_its_trainer_log_tells():
    """The recorded run: the same losses, the configuration, and nothing taken from what SwanLab says about itself."""
    folder = Path(__file__).parents[2] / "fixtures" / "healthy-swanlab"
    seen = Seen(folder / "swanlog")
    log = Seen(folder / "run" / "trainer_log.jsonl")
    assert [step for step, _ in seen.series("loss")] == [step for step, _ in log.series("loss")]
    assert [loss for _, loss in seen.series("loss")] == pytest.approx([loss for _, loss in log.series("loss")], abs=1e-4)
    assert seen.config["learning_rate"] == 5e-4
    assert seen.facts["versions.swanlab"] == "0.10.3"


@pytest.mark.parametrize(
    ("told", "cards", "swanlab"),
    [
        ({"python": "3.11.7", "gpu": {"nvidia": {"type": ["NVIDIA H100", "NVIDIA H100"]}}, "swanlab": {"version": "0.6.8"}}, 2, "0.6.8"),
        ({"runtime": {"python_version": "3.11.7"}, "hardware": {"accelerators": [{"devices": [{"name": "NVIDIA H100"}]}]}}, 1, None),
        ({"python": "3.11.7", "gpu": [], "hardware": {"accelerators": [None, {"devices": 3}]}}, None, None),
    ],
)
def test_swanlab_metadata(tmp_path: Path, told: dict[str, Any], cards: int | None, swanlab: str | None):
    """Cards and Python in both of its shapes, and in none."""
    (tmp_path / "swanlab-metadata.json").write_text(json.dumps(told))
    facts = Seen(tmp_path).facts
    assert (facts["versions.python"], facts.get("versions.swanlab")) == ("3.11.7", swanlab)
    assert (facts.get("gpu.name"), facts.get("gpu.count")) == (("NVIDIA H100", cards) if cards else (None, None))


def test_the_count_of_wandb_is_no_training_step(tmp_path: Path):
    """Rows without train/global_step, in a run that logs it, belong to the training step before them; earlier ones are left out."""
    rows = (
        {"_step": 0, "gpu": 1.0},
        {"_step": 400, "train/global_step": 10, "train/loss": 2.0},
        {"_step": 419, "eval/loss": 1.5},
        {"_step": 420, "train/global_step": 20, "train/loss": 1.0},
    )
    path = tmp_path / "run-abc.wandb"
    path.write_bytes(wandb_file(field(1, 1), *(field(2, wandb_items(row)) for row in rows)))
    seen = Seen(path)
    assert (seen.series("loss"), seen.series("eval_loss")) == ([(10, 2.0), (20, 1.0)], [(10, 1.5)])
    assert seen.series("gpu") == []


@pytest.mark.parametrize("place", ["wandb/debug-internal.log", "wandb/run-1/logs/debug.log", "swanlog/run-1/debug/debug.log"])
def test_what_trackers_log_about_themselves_is_no_console_of_the_run(tmp_path: Path, place: str):
    """Their own failures are not the run's; a debug.log of the user's own is."""
    own, theirs = tmp_path / "logs" / "debug.log", tmp_path / place
    for path in (own, theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLAIN)
    assert [crash.where.file for crash in Seen(tmp_path).crashes] == [str(own)]


def test_a_torchrun_error_file_is_the_traceback_of_its_rank(tmp_path: Path):
    """attempt_0/3/error.json: exception, frames and rank; a bare message is an exception too."""
    folder = tmp_path / "attempt_0" / "3"
    folder.mkdir(parents=True)
    error = {"message": {"message": "x", "extraInfo": {"py_callstack": PLAIN, "timestamp": "1795000000"}}}
    (folder / "error.json").write_text(json.dumps(error))
    (crash,) = Seen(tmp_path).crashes
    whole = Seen(write(tmp_path / "one.log", PLAIN)).crashes[0]
    assert (crash.rank, crash.exception, crash.message, crash.frames) == (3, whole.exception, whole.message, whole.frames)
    assert crash.time == 1795000000.0


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_accelerate_config_tells_how_the_run_is_spread(tmp_path: Path):
    """Processes and ZeRO stage; it is no training configuration."""
    text = "compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 3\nnum_processes: 4\n"
    seen = Seen(write(tmp_path / "default_config.yaml", text))
    assert seen.config == {}
    assert (seen.facts["world_size"], seen.facts["deepspeed.stage"], seen.facts["accelerate.distributed_type"]) == (4, 3, "DEEPSPEED")


def frame(file: str, line: int, name: str) -> dict[str, Any]:
    return {"filename": file, "line": line, "name": name}


def test_a_memory_snapshot_tells_who_held_the_memory(tmp_path: Path):
    """Live blocks by kind and place, largest first; freed ones do not count; the report says it, and the text is no root cause."""
    forward = [
        frame("??", 0, "malloc"),
        frame("/x/torch/nn/modules/linear.py", 134, "forward"),
        frame("/x/modeling_llama.py", 240, "forward"),
    ]
    weights = [frame("/x/transformers/modeling_utils.py", 99, "from_pretrained")]
    blocks = [
        {"size": 3 << 30, "state": "active_allocated", "frames": forward},
        {"size": 1 << 30, "state": "active_allocated", "frames": weights},
        {"size": 9 << 30, "state": "inactive", "frames": weights},
        {"size": 1 << 30, "state": "active_pending_free", "frames": forward},
    ]
    path = tmp_path / "oom.pickle"
    path.write_bytes(pickle.dumps({"segments": [{"device": 0, "blocks": blocks}], "device_traces": [[]]}))
    write(tmp_path / "train.yaml", "stage: sft\nmodel_name_or_path: m\nper_device_train_batch_size: 8\n")
    held = "4.00 GiB activations (modeling_llama.py:240 forward); 1.00 GiB weights (modeling_utils.py:99 from_pretrained)"
    assert Seen(path).facts["memory.holders"] == held
    report = doctor.analyze(tmp_path)
    assert [(one.rule, one.severity) for one in report.findings if "snapshot" in one.rule] == [("memory/snapshot-holders", "note")]
    assert (report.verdict, report.cause) == ("undecided", None)  # a snapshot alone says nothing of the run's end


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "owned")


def test_a_hostile_snapshot_does_nothing(tmp_path: Path):
    """Its calls are written down, not made."""
    target = tmp_path / "owned.txt"
    path = tmp_path / "evil.pickle"
    path.write_bytes(pickle.dumps({"segments": [{"blocks": [{"size": 1, "state": "active_allocated", "frames": Evil(target)}]}]}))
    Seen(path)
    assert not target.exists()


@pytest.mark.parametrize("dump", [pickle.dumps, lambda told: json.dumps(told).encode()])
def test_a_flight_recorder_dump_tells_what_its_rank_waits_for(tmp_path: Path, dump: Any):
    """The first collective that is not completed, as pickle or JSON; the rank stands in the file's name."""
    entries = [
        {"profiling_name": "nccl:all_reduce", "collective_seq_id": 7, "state": "completed", "frames": []},
        {"profiling_name": "nccl:all_gather", "collective_seq_id": 8, "state": "scheduled", "frames": [frame("/x/train.py", 5, "step")]},
    ]
    path = tmp_path / "nccl_trace_rank_2"
    path.write_bytes(dump({"version": "2.3", "nccl_version": "2.21.5", "entries": entries}))
    waits = {"operation": "all_gather", "number": 8, "state": "scheduled", "group": "0", "place": "train.py:5 step"}
    assert Seen(path).facts["nccl.collectives.rank2"] == {"waits": waits, "last": {"0": waits}}


def test_the_dumps_of_several_ranks_name_the_missing_one(tmp_path: Path):
    """Beside the watchdog's lines, which tell only who waited: the rank that had not come, and what it did last."""
    done = {"profiling_name": "nccl:all_reduce", "collective_seq_id": 7, "state": "completed", "frames": [frame("/x/hook.py", 9, "save")]}
    waits = {"profiling_name": "nccl:all_gather", "collective_seq_id": 8, "state": "started", "frames": [frame("/x/train.py", 5, "step")]}
    for rank, entries in enumerate(([done, waits], [done], [done, waits])):
        dump = {"version": "2.4", "nccl_version": "2.21.5", "entries": [{**one, "process_group": ["0", "default_pg"]} for one in entries]}
        (tmp_path / f"nccl_trace_rank_{rank}").write_bytes(pickle.dumps(dump))
    watchdog = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8, OpType=ALLGATHER, Timeout(ms)=600000) ran for 600061 ms"
    (tmp_path / "train.log").write_text(
        "".join(f"[rank{rank}]:[E1206 ProcessGroupNCCL.cpp:607] [Rank {rank}] {watchdog}\n" for rank in (0, 2))
    )
    report = doctor.analyze(tmp_path)
    root = next(one for one in report.findings if one.role == "root")
    assert (root.rule, root.ranks, report.cause) == ("distributed/rank-missing", [1], "nccl_timeout_rank_desync")
    assert "hook.py:9 save" in root.text
    assert "rank 1: all_reduce, number 7: completed" in root.evidence[0].text


def test_what_the_web_ui_and_the_v1_trainer_leave(tmp_path: Path):
    """running_log.txt, webui_subprocess.log, training_args.yaml and llamaboard_config.yaml are read; a v1 config is told, not judged."""
    webui = tmp_path / "webui"
    webui.mkdir()
    write(webui / "training_args.yaml", "stage: sft\nmodel_name_or_path: m\ncutoff_len: 512\n")
    write(webui / "llamaboard_config.yaml", "top.finetuning_type: lora\ntrain.learning_rate: 5e-5\ntrain.batch_size: 2\n")
    write(webui / "running_log.txt", "[INFO|2026-03-02 10:00:00] parser.py:144 >> Process rank: 0, world size: 2, device: cuda:0\n")
    write(webui / "webui_subprocess.log", PLAIN)
    seen = Seen(webui)
    assert {source.kind for source in seen.reading.sources} == {"config", "console"}
    assert seen.config["cutoff_len"] == 512
    assert seen.facts["world_size"] == 2
    assert len(seen.crashes) == 1
    v1 = write(tmp_path / "v1.yaml", "model: m\ntrain_dataset: data/v1.yaml\nmicro_batch_size: 1\nquant_config: {name: bnb}\n")
    report = doctor.analyze(v1)
    assert report.findings == []
    assert Seen(v1).facts["llamafactory.trainer"] == "v1"


def test_system_logs_are_consoles(tmp_path: Path):
    """dmesg, syslog and nvidia-smi's text under any plain name."""
    write(tmp_path / "dmesg.txt", "[1.0] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.\n")
    write(tmp_path / "syslog", "Mar  2 10:00:00 node kernel: oom-kill:constraint=CONSTRAINT_NONE\n")
    assert {source.kind for source in Seen(tmp_path).reading.sources} == {"console"}
