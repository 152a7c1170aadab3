"""A user's own training script: `torchrun --nproc_per_node 2 train.py train.yaml`, with code of their own that hangs (own_code.py)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.modules.update({"bitsandbytes": None, "deepspeed": None})  # slow to import, not used here

import own_code  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402


def main() -> None:
    """LFDOCTOR_LAB_HANG names the case."""
    torch.set_num_threads(1)
    config = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    callbacks = own_code.install(os.environ.get("LFDOCTOR_LAB_HANG", ""))
    run_exp(config, callbacks=callbacks)


if __name__ == "__main__":
    main()
