"""The structure of an exception that no rule knows: class, error number, place, phase, launcher, what its message names, the config."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from doctor.config import deepspeed
from doctor.config.options import options_from_facts
from doctor.core.events import Crash, Frame
from doctor.core.phases import Phase
from doctor.core.run import Run
from doctor.diagnosis.unlisted import messages
from doctor.diagnosis.unlisted.places import KNOWN, Place, own_frames, places, telling
from doctor.support.pasted_text import restored

MAX_MESSAGE = 4_000
"""Characters of a message that are read."""

_BASES = {
    "OutOfMemoryError": ("RuntimeError",), "AcceleratorError": ("RuntimeError",), "DistBackendError": ("RuntimeError",),
    "DistStoreError": ("RuntimeError",), "DistNetworkError": ("RuntimeError",), "UnpicklingError": ("PickleError",),
    "PicklingError": ("PickleError",), "JSONDecodeError": ("ValueError",), "ArrowInvalid": ("ValueError",),
    "ArrowTypeError": ("TypeError",), "ArrowNotImplementedError": ("NotImplementedError",), "DatasetGenerationError": ("DatasetsError",),
    "DataFilesNotFoundError": ("FileNotFoundError", "DatasetsError"), "DatasetNotFoundError": ("FileNotFoundError", "DatasetsError"),
    "SchemaInferenceError": ("ValueError",), "CastError": ("ValueError",), "HfHubHTTPError": ("HTTPError", "OSError"),
    "RepositoryNotFoundError": ("HfHubHTTPError",), "GatedRepoError": ("RepositoryNotFoundError", "HfHubHTTPError"),
    "RevisionNotFoundError": ("HfHubHTTPError",), "EntryNotFoundError": ("HfHubHTTPError",),
    "LocalEntryNotFoundError": ("EntryNotFoundError", "FileNotFoundError", "HfHubHTTPError"),
    "OfflineModeIsEnabled": ("ConnectionError",), "HFValidationError": ("ValueError",), "ValidationError": ("ValueError",),
    "SafetensorError": ("Exception",), "ConfigAttributeError": ("OmegaConfBaseException", "AttributeError"),
    "ConfigKeyError": ("OmegaConfBaseException", "KeyError"), "BackendCompilerFailed": ("TorchDynamoException",),
    "InductorError": ("TorchDynamoException",), "CompilationError": ("TritonError",), "OutOfResources": ("TritonError",),
    "RayTaskError": ("RayError",), "RayActorError": ("RayError",), "ActorDiedError": ("RayActorError", "RayError"),
    "WorkerCrashedError": ("RayError",), "EngineDeadError": ("Exception",), "ProxyError": ("ConnectionError", "OSError"),
    "SSLError": ("ConnectionError", "OSError"), "ConnectTimeout": ("ConnectionError", "Timeout"), "ReadTimeout": ("Timeout",),
    "MaxRetryError": ("HTTPError",), "ConnectError": ("ConnectionError",), "UnidentifiedImageError": ("OSError",),
    "TemplateError": ("Exception",), "UndefinedError": ("TemplateError",), "TemplateSyntaxError": ("TemplateError",),
    "InvalidHeaderDeserialization": ("SafetensorError",),
}  # fmt: skip
"""Bases of classes outside Python's builtins, by the last part of the name."""
_ABNORMAL = {"IOError": "OSError", "EnvironmentError": "OSError", "WindowsError": "OSError"}
_RUNTIMES: tuple[tuple[str, str], ...] = (
    ("ray", r"(?:^|/)ray/(?:_private|_raylet|train|util|worker|serve)|\(\w+ pid=\d+"),
    ("vllm", r"(?:^|/)vllm/|VllmWorker|EngineCore"),
    ("notebook", r"ipykernel|ipython-input|IPython/|^Cell In"),
    ("llamaboard", r"llamafactory/webui|llmtuner/webui|gradio/"),
    ("deepspeed", r"deepspeed/launcher"),
    ("accelerate", r"accelerate/commands"),
    ("torchrun", r"torch/distributed/(?:run|launcher|elastic)"),
)
"""What a process runs under, by the files of its frames."""
_CONFIG = (
    "stage", "finetuning_type", "quantization_bit", "quantization_method", "flash_attn", "bf16", "fp16", "pure_bf16",
    "enable_liger_kernel", "use_unsloth", "use_galore", "streaming", "packing", "neat_packing", "template", "infer_backend",
    "infer_engine", "use_kt", "use_mca", "resume_from_checkpoint", "ray_num_workers",
)  # fmt: skip
"""Options of a config that change what an exception means; only given ones are taken."""
_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")


class ExceptionFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """One exception. `exception` is the class without its module, empty where the traceback was cut off; `bases` are its known bases.

    `place` is the telling frame, `raised` the innermost, `path` all places outermost first, `scripts` the user's own, innermost first.
    `errno` is a Linux name; `signal` the number of a process's death. `runtimes` are those that frames or facts prove. `config` holds
    only what the run was given. `said` is the
    whole line of one that was pasted alone. `later` are the classes of the exceptions that followed in the chain. `native`: a C++
    exception.
    """

    exception: str = ""
    full_name: str = ""
    bases: tuple[str, ...] = ()
    message: str = ""
    errno: str | None = None
    signal: int | None = None
    place: Place | None = None
    raised: Place | None = None
    path: tuple[Place, ...] = ()
    scripts: tuple[Place, ...] = ()
    phase: Phase | None = None
    launcher: str | None = None
    runtimes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    config: dict[str, str] = {}
    later: tuple[str, ...] = ()
    native: bool = False
    said: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class and its bases."""
        return (self.exception, *self.bases) if self.exception else ()

    @property
    def text(self) -> str:
        """`Class: message`; the message alone of a line that is no exception."""
        return f"{self.exception}: {self.message}" if self.exception and self.message else self.exception or self.message

    @property
    def cut_off(self) -> bool:
        """Whether the traceback ended before its exception."""
        return not self.exception and bool(self.path) and not self.message

    @property
    def package(self) -> str | None:
        """The package of the telling frame; without one that of the class's module, as Python prints it."""
        named = self.full_name.partition(".")[0]
        return self.place.package if self.place else named if named in KNOWN else None

    def words(self) -> Iterator[str]:
        """The features as words `kind=value`, for a linear model; those of the message are plain and lower case."""
        yield from (f"class={name}" for name in self.classes)
        for kind, value in (("errno", self.errno), ("signal", self.signal), ("phase", self.phase), ("launcher", self.launcher)):
            if value is not None:
                yield f"{kind}={value}"
        for kind, place in (("at", self.place), ("raised", self.raised)):
            if place is not None:
                yield from (
                    f"{kind}.package={place.package}",
                    f"{kind}.module={place.package}/{place.module}",
                    f"{kind}.function={place.function}",
                )
        yield from (f"in.package={name}" for name in dict.fromkeys(place.package for place in self.path))
        yield from (f"in.function={name}" for name in dict.fromkeys(place.function for place in self.path[-12:]))
        for kind in ("runtimes", "options", "variables", "packages"):
            yield from (f"{kind.removesuffix('s')}={name}" for name in getattr(self, kind))
        yield from (f"config.{name}={value}" for name, value in self.config.items())
        yield from (f"later={name}" for name in self.later)
        yield from (word.lower() for word in _TOKEN.findall(self.message))


def features_of(crash: Crash, run: Run | None = None, later: Sequence[Crash] = ()) -> ExceptionFeatures:
    """The features of one exception; `later` are those that followed it in its chain. Without a run only the traceback is read."""
    message = "\n".join(map(restored, crash.message[:MAX_MESSAGE].splitlines()))
    name = _ABNORMAL.get(crash.exception.rpartition(".")[2], crash.exception.rpartition(".")[2])
    found = places(crash.frames)
    if name == "AssertionError" and not message.strip() and found and found[-1].code.startswith("assert "):
        message = found[-1].code  # an assertion without a message says what it asked for by its source line
    facts: Mapping[str, Any] = run.facts if run is not None else {}
    return ExceptionFeatures(
        exception=name,
        full_name=crash.exception,
        bases=bases_of(name),
        message=message,
        errno=messages.error_number(name, message),
        place=telling(found),
        raised=found[-1] if found else None,
        path=tuple(found),
        scripts=tuple(own_frames(found))[:5],
        phase=crash.phase,
        launcher=facts.get("launcher"),
        runtimes=tuple(_runtimes(crash.frames, facts)),
        options=messages.options(message),
        variables=messages.variables(message),
        packages=messages.packages(message),
        files=messages.files(message),
        quoted=messages.quoted(message),
        config=config_features(run) if run is not None else {},
        later=tuple(dict.fromkeys(crash.exception.rpartition(".")[2] for crash in later)),
    )


def bases_of(name: str) -> tuple[str, ...]:
    """Known bases of an exception class, nearest first, without Exception; empty for an unknown class."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return tuple(base.__name__ for base in kind.__mro__[1:] if base not in (Exception, BaseException, object))
    out = [base for base in _BASES.get(name, ()) if base != "Exception"]
    return tuple(dict.fromkeys([*out, *(further for base in out for further in bases_of(base))]))


def config_features(run: Run) -> dict[str, str]:
    """What the run's config says about an exception: method, stage, quantisation, ZeRO stage, attention. Defaults are left out."""
    given = {**options_from_facts(run.facts), **run.config}
    out = {name: str(given[name]) for name in _CONFIG if given.get(name) not in (None, False, "")}
    zero = deepspeed.read(given.get("deepspeed"), run.facts)
    if zero.stage != 0:
        out["zero_stage"] = "?" if zero.stage is None else str(zero.stage)
    if any(
        str(run.facts.get("model.type", "")).endswith(mark) or mark in str(given.get("template", ""))
        for mark in ("_vl", "_omni", "llava", "vlm")
    ):
        out["vision"] = "true"
    return out


def _runtimes(frames: Sequence[Frame], facts: Mapping[str, Any]) -> Iterator[str]:
    text = "\n".join(frame.file.replace("\\", "/") for frame in frames)
    launcher = str(facts.get("launcher", ""))
    for name, pattern in _RUNTIMES:
        if name == launcher or re.search(pattern, text, re.M):
            yield name
