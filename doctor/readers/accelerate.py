"""accelerate's own configuration (default_config.yaml, fsdp.yaml): how many processes, and what spreads the model over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.documents import yaml_mapping
from doctor.readers.file import File


class Accelerate(ReaderBase):
    """Recognised by `compute_environment` or `distributed_type`, which no training configuration has."""

    kind = "accelerate"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.suffix.lower() in (".yaml", ".yml", ".json") and b"distributed_type" in head and b"num_processes" in head

    def configs(self, file: File) -> Iterator[Event]:
        values = yaml_mapping(file, 1 << 20)
        if values is None:
            return
        yield Fact(where=file.where(), name="accelerate.config", value=values)
        count, kind = values.get("num_processes"), values.get("distributed_type")
        if type(count) is int and count > 0:
            yield Fact(where=file.where(), name="world_size", value=count)
        if isinstance(kind, str):
            yield Fact(where=file.where(), name="accelerate.distributed_type", value=kind)
        zero = values.get("deepspeed_config")
        stage = zero.get("zero_stage") if isinstance(zero, dict) else None
        if kind == "DEEPSPEED" and type(stage) is int:
            yield Fact(where=file.where(), name="deepspeed.stage", value=stage)
