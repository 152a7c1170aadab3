"""DeepSpeed's own JSON configuration, as the fact deepspeed.config."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File

_SIGNS = (b'"zero_optimization"', b'"train_micro_batch_size_per_gpu"', b'"gradient_clipping"', b'"zero_allow_untested_optimizer"')


class DeepSpeed(ReaderBase):
    """Recognised by its keys, whatever the file is called."""

    kind = "deepspeed"

    def claims(self, path: Path, head: bytes) -> bool:
        named = re.match(r"ds_z\d|ds_config", path.name) is not None
        return path.suffix.lower() == ".json" and (named or any(sign in head for sign in _SIGNS))

    def configs(self, file: File) -> Iterator[Event]:
        text = file.text(1 << 20)
        if text is None:
            return
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            file.source.problem(f"not valid JSON: {error}")
            return
        if not isinstance(values, dict):
            file.source.problem("not a JSON object")
            return
        file.source.records = len(values)
        yield Fact(where=file.where(), name="deepspeed.config", value=values)
        zero = values.get("zero_optimization")
        stage = zero.get("stage") if isinstance(zero, dict) else None
        if type(stage) is int:
            yield Fact(where=file.where(), name="deepspeed.stage", value=stage)
