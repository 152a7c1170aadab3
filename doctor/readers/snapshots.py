"""What PyTorch dumps on failures: CUDA memory snapshots (what holds the memory) and NCCL's flight recorder (which rank waits where).

Both are pickles of plain data, read by `doctor.readers.formats.pickles`, never unpickled. Formats: torch/cuda/memory.py (`_snapshot`) and
torch/csrc/distributed/c10d/FlightRecorder.hpp; the recorder's JSON form is read as well.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.core.events import Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File
from doctor.readers.formats import pickles
from doctor.support.lazy_regex import lazy_compile

_MAX_BYTES = 64 << 20
_MAX_OPERATIONS = 8_000_000
"""Pickle operations; a snapshot of 64 MiB has about 6 million."""
_SHOWN_HOLDERS = 5
_MAX_GROUPS = 64
"""Process groups of which the last collective is kept."""
_MAX_NAME = 100
"""Characters of a group's or operation's name."""
_KINDS = (
    ("optimizer states", lazy_compile(r"optim/|optimizer|deepspeed/ops/adam|bitsandbytes/optim")),
    ("gradients", lazy_compile(r"autograd/|backward")),
    ("weights", lazy_compile(r"from_pretrained|load_state_dict|modeling_utils\.py|core_model_loading|_apply|convert\b")),
    ("activations", lazy_compile(r"forward|training_step|compute_loss")),
)
"""Kind of memory -> pattern of its allocation stack; the first that matches, as PyTorch's memory profiler classifies."""


class MemorySnapshot(ReaderBase):
    """Live blocks at the time of the dump, summed by kind and allocating code: the fact memory.holders."""

    kind = "cuda_memory_snapshot"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.suffix in (".pickle", ".pkl") and (b"segments" in head or b"device_traces" in head)

    def configs(self, file: File) -> Iterator[Event]:
        dump = _replayed(file)
        segments = dump.get("segments") if isinstance(dump, dict) else None
        if not isinstance(segments, list):
            file.source.problem("holds no segments")
            return
        held: Counter[tuple[str, str]] = Counter()
        for segment in segments:
            for block in segment.get("blocks", ()) if isinstance(segment, dict) else ():
                if isinstance(block, dict) and str(block.get("state", "")).startswith("active") and type(block.get("size")) is int:
                    file.source.records += 1
                    held[_holder(block)] += block["size"]
        if held:
            parts = [f"{size / 2**30:.2f} GiB {kind} ({place})" for (kind, place), size in held.most_common(_SHOWN_HOLDERS)]
            yield Fact(where=file.where(), name="memory.holders", value="; ".join(parts))
            yield Fact(where=file.where(), name="memory.live_gib", value=round(held.total() / 2**30, 3))


class FlightRecorder(ReaderBase):
    """`nccl_trace_rank_N` (TORCH_FR_DUMP_TEMP_FILE): the collectives of one rank, as the fact nccl.collectives.rankN.

    `waits` is the first collective that is not completed, `last` the latest of each process group; each with `operation`,
    `number`, `state`, `group` and `place`.
    """

    kind = "nccl_flight_recorder"

    def claims(self, path: Path, head: bytes) -> bool:
        return (b"nccl_version" in head and b"entries" in head) or (b"pg_config" in head and b"comm_lib_version" in head)

    def configs(self, file: File) -> Iterator[Event]:
        dump = _json(file) if file.head(1).startswith("{") else _replayed(file)
        entries = dump.get("entries") if isinstance(dump, dict) else None
        if not isinstance(entries, list):
            file.source.problem("holds no entries")
            return
        file.source.records = len(entries)
        found = re.search(r"(\d{1,9})$", file.path.stem)
        done = [item for entry in entries if (item := _collective(entry)) is not None]
        if not found or not done:
            return
        waits = next((item for item in done if item["state"] != "completed"), None)
        last: dict[str, dict[str, Any]] = {}
        for item in done:
            if item["group"] in last or len(last) < _MAX_GROUPS:
                last[item["group"]] = max(last.get(item["group"], item), item, key=lambda each: int(each["number"]))
        yield Fact(where=file.where(), name=f"nccl.collectives.rank{int(found[1])}", value={"waits": waits, "last": last})


def _collective(entry: Any) -> dict[str, Any] | None:
    """One entry of the recorder; None for point-to-point operations and entries without number (`seq_id` in torch 2.3)."""
    if not isinstance(entry, dict) or entry.get("is_p2p") is True or not isinstance(entry.get("state"), str):
        return None
    number = entry.get("collective_seq_id", entry.get("seq_id"))
    if type(number) is not int:
        return None
    group = entry.get("process_group", entry.get("pg_id", 0))
    name = str(group[0] if isinstance(group, list | tuple) and group else group)[:_MAX_NAME]
    operation = str(entry.get("profiling_name", "a collective"))[:_MAX_NAME].removeprefix("nccl:")
    return {"operation": operation, "number": number, "state": entry["state"][:20], "group": name, "place": _place(entry.get("frames"))}


def _replayed(file: File) -> Any:
    data = file.whole(_MAX_BYTES)
    try:
        return pickles.replay(data, _MAX_OPERATIONS) if data else None
    except pickles.DAMAGE as error:
        file.source.problem(f"not a readable pickle (it is never unpickled): {error}")
        return None


def _json(file: File) -> Any:
    try:
        return json.loads(file.text(_MAX_BYTES) or "")
    except (ValueError, RecursionError) as error:
        file.source.problem(f"not valid JSON: {error}")
        return None


def _holder(block: dict[str, Any]) -> tuple[str, str]:
    frames = block.get("frames")
    frames = [frame for frame in frames if isinstance(frame, dict)] if isinstance(frames, list) else []
    text = "\n".join(f"{frame.get('filename')}:{frame.get('name')}" for frame in frames[:_MAX_NAME])
    kind = next((kind for kind, pattern in _KINDS if pattern.search(text)), "unknown")
    return kind, _place(frames) or "no stack"


def _place(frames: Any) -> str:
    """The innermost Python frame outside of PyTorch, else the innermost with a file."""
    listed = frames if isinstance(frames, list) else []
    named = [item for item in listed if isinstance(item, dict) and str(item.get("filename", "")).endswith(".py")]
    own = [item for item in named if "/torch/" not in str(item["filename"])]
    for chosen in (own or named)[:1]:
        return f"{Path(str(chosen['filename'])).name}:{chosen.get('line')} {chosen.get('name')}"
    return ""
