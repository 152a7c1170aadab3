"""Where an exception was raised: the package, module and function of its frames, and the frame that tells most."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from doctor.core.events import Frame

KNOWN = frozenset((
    "llamafactory", "transformers", "torch", "torchvision", "torchaudio", "peft", "trl", "accelerate", "datasets", "deepspeed",
    "bitsandbytes", "huggingface_hub", "tokenizers", "safetensors", "vllm", "sglang", "ray", "xformers", "flash_attn", "triton",
    "liger_kernel", "unsloth", "unsloth_zoo", "auto_gptq", "gptqmodel", "awq", "hqq", "aqlm", "eetq", "optimum", "modelscope",
    "torch_npu", "torchao", "galore_torch", "apollo_torch", "badam", "adam_mini", "swanlab", "wandb", "tensorboard", "gradio", "fastapi",
    "uvicorn", "pydantic", "pydantic_core", "omegaconf", "hydra", "yaml", "fire", "numpy", "pandas", "pyarrow", "fsspec", "dill",
    "multiprocess", "PIL", "av", "librosa", "soundfile", "sentencepiece", "tiktoken", "jieba", "nltk", "rouge_chinese", "scipy",
    "sklearn", "matplotlib", "requests", "httpx", "urllib3", "aiohttp", "evaluate", "lightning", "pytorch_lightning", "megatron",
    "mcore_adapter", "ktransformers", "kt_kernel", "axolotl", "swift", "verl", "openrlhf", "qwen_vl_utils", "fla", "causal_conv1d",
    "mamba_ssm", "apex", "transformer_engine", "mlflow", "oumi", "torchtune", "fairscale", "openmind_hub", "timm", "einops", "jinja2",
))  # fmt: skip
"""Packages of training stacks, by the name of their import."""
RENAMED = {"llmtuner": "llamafactory"}
"""Earlier names of packages."""
STANDARD, REMOTE_CODE, SCRIPT = "python", "remote_code", "script"
"""In the place of a package: Python's own library, model code from the hub, and the user's script."""
_INSTALLED = ("site-packages", "dist-packages")
_SCRIPTS = ("run.py", "train.py", "main.py", "finetune.py")
"""Files of the user in a folder that is called like a package."""
_STANDARD = re.compile(r"(?:^|/)(?:lib/)?python3\.\d+/|^<frozen |[/^]Lib/(?!site-packages)|^<string>$|^<attrs |^<@")
_NOTEBOOK = re.compile(r"ipykernel|ipython-input|/tmp/ipykernel|^Cell In")
_WRAPPERS = re.compile(
    r"_?_?call(?:_impl)?(?:__)?$|_wrapped_call_impl|wrap\w*$|\w*wrapper\w*|\w*_wrap$|inner\w*|decorat\w*|new_forward|_fn$|<\w+>$|main$|_?run(?:_\w+)?$|launch\w*$|apply$|backward$|"
    r"__getattr(?:ibute)?__$|__getitem__$|__init__$|__new__$|__enter__$|__exit__$|_?check_\w*generic|__iter__$|__next__$|fetch$|func(?:tion)?$|raise_\w*$|get$|reraise$|result$|"
    r"convert$|to$|cuda$|_apply$|wait$|_call_\w+|_missing_|__torch_function__|__torch_dispatch__|exec_module|_handle_fromlist|import_module"
)
"""Functions that only pass a call or an error on: they say nothing of what was being done. Matched at the beginning of the name."""
_PLUMBING = re.compile(
    r"torch/(?:nn/modules/(?:module|container|linear|normalization|sparse)|nn/functional|_ops|_tensor|utils/_contextlib|utils/checkpoint|autograd/\w+|_dynamo/.*|fx/.*)|"
    r"accelerate/(?:hooks|utils/(?:operations|memory))|transformers/utils/generic|torch/nn/parallel/\w+|deepspeed/(?:utils/nvtx|runtime/zero/parameter_offload)|"
    r"peft/tuners/lora/layer|concurrent/|multiprocess/|multiprocessing/|dill/|requests/|urllib3/|httpx/|fsspec/|yaml/|pydantic\w*/|numpy/|tqdm/|starlette/|uvicorn/|fastapi/|gradio/"
)
"""Modules through which everything goes; written `package/module`."""


class Place(msgspec.Struct, frozen=True):
    """One frame: `module` is the path inside the package without `.py` (`models/qwen2/modeling_qwen2`), empty where unknown."""

    package: str
    module: str
    function: str
    code: str = ""

    @property
    def name(self) -> str:
        """`package/module:function`, as the decision table writes it."""
        return f"{self.package}/{self.module}:{self.function}" if self.module else f"{self.package}:{self.function}"


def places(frames: Iterable[Frame]) -> list[Place]:
    """The frames as places, outermost first."""
    return [Place(*package_of(frame.file), frame.function.rpartition(".")[2], frame.code) for frame in frames]


@functools.lru_cache(maxsize=2048)
def package_of(file: str) -> tuple[str, str]:
    """(package, module) of a frame's file as Python printed it, of any system."""
    path = file.replace("\\", "/")
    if _NOTEBOOK.search(path):
        return SCRIPT, ""
    if "unsloth_compiled" in path:
        return "unsloth", path.rpartition("/")[2].removesuffix(".py")
    parts = [part for part in path.split("/") if part]
    module = path.removesuffix(".py")
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] in _INSTALLED and at + 1 < len(parts):
            return _named(parts[at + 1 :])
    if "transformers_modules" in parts:
        return REMOTE_CODE, parts[-1].removesuffix(".py")
    for at in range(len(parts) - 2, -1, -1):
        name = RENAMED.get(parts[at], parts[at])
        if name in KNOWN and parts[at - 1 : at] != ["third_party"] and not (at + 2 == len(parts) and parts[-1] in _SCRIPTS):
            return _named(parts[at:])
    if _STANDARD.search(path):
        return STANDARD, _STANDARD.split(module)[-1].strip("/>")
    if "bin" in parts[:-1] and not path.endswith(".py"):
        return STANDARD, parts[-1]  # the few lines that pip writes for a command
    return SCRIPT, parts[-1].removesuffix(".py") if parts else ""


def _named(parts: Sequence[str]) -> tuple[str, str]:
    package = parts[0].removesuffix(".py")
    return RENAMED.get(package, package), "/".join(parts[1:]).removesuffix(".py")


def telling(found: Sequence[Place]) -> Place | None:
    """The innermost frame of a known package that is no wrapper; of all known ones the innermost if each is."""
    known = [place for place in reversed(found) if place.package in KNOWN or place.package == REMOTE_CODE]
    return next((place for place in known if not is_wrapper(place)), known[0] if known else None)


def is_wrapper(place: Place) -> bool:
    """Whether the frame only passes a call on."""
    return _WRAPPERS.match(place.function) is not None or _PLUMBING.match(f"{place.package}/{place.module}") is not None


def own_frames(found: Sequence[Place]) -> Iterator[Place]:
    """The frames of the user's own scripts, innermost first."""
    return (place for place in reversed(found) if place.package == SCRIPT and place.function)
