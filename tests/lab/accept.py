"""Asks the real LLaMA-Factory whether it takes a config: file names on standard input, one JSON answer a line on standard output.

Runs inside the lab's environment. Each config is parsed in a forked child (the parser keeps global state) with `use_cpu: true` on
top, because the lab has no GPU and bf16 is refused without one; for `pure_bf16`, refused even so, a GPU with bf16 seems present.
Packages that the config asks for and the lab lacks (swanlab, galore-torch) count as installed: that is pip's business, not the
config's. Nothing else is changed.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from forked import answer, free_port


def accepts(path: str) -> str | None:
    """None if get_train_args takes the YAML at `path`, else the error it raises."""
    from llamafactory.hparams import get_train_args, parser
    from omegaconf import OmegaConf

    parser.check_version = lambda requirement, mandatory=False: None
    parser.is_torch_bf16_gpu_available = lambda: True

    try:
        os.chdir(Path(path).parent)
        values = OmegaConf.to_container(OmegaConf.load(path))
        if values.get("deepspeed"):  # as one rank started by torchrun, which the patch asks for too
            os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        get_train_args({**values, "use_cpu": True})
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:400]}"
    return None


if __name__ == "__main__":
    import llamafactory.train.tuner  # noqa: F401  the slow import happens once, before the forks

    for line in sys.stdin:
        print(json.dumps({"config": line.strip(), "error": answer(partial(accepts, line.strip()))}), flush=True)
