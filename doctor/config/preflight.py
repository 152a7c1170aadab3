"""Files that a configuration needs or collides with: datasets, model, DeepSpeed file, output folder. For `lfdoctor check` and `run`.

Paths are taken as LLaMA-Factory takes them: relative to the folder that the training is started in. The rules it follows are those
of LLaMA-Factory 0.9.5: data/parser.py get_dataset_list, data/loader.py _load_single_dataset, hparams/parser.py 484-500.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from doctor.core.events import Fact, Where

FILE_TYPES = {"arrow": "arrow", "csv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet", "txt": "text"}
"""extras/constants.py FILEEXT2TYPE."""

_HUBS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_COLUMNS = {"alpaca": {"prompt": "instruction", "query": "input", "response": "output"}, "sharegpt": {"messages": "conversations"}}
_SINGLE = ("adapter_model.bin", "adapter_model.safetensors", "pytorch_model.bin", "model.safetensors")
_WEIGHTS = (*_SINGLE, "pytorch_model.bin.index.json", "model.safetensors.index.json")
"""extras/constants.py CHECKPOINT_NAMES."""

_HEAD = 1 << 20
"""Bytes read of a dataset file: its first record shows the columns."""


def facts_about(config: Mapping[str, Any], folder: Path, where: Where) -> Iterator[Fact]:
    """Facts about what is missing or in the way, such as dataset_undefined = "a, b". What cannot be checked on disk gives none.

    `folder` is the working directory of the training; `where` is the config file, the source of the facts.
    """
    found: dict[str, Any] = {}
    for look in (_datasets, _deepspeed, _output, model_folder):
        with suppress(OSError):  # a folder that may not be entered, a name that no file system takes
            found |= look(config, folder)
    if str(where.file).lower().endswith(".json"):
        found["config_is_json"] = PurePath(str(where.file)).name
    for name, value in found.items():
        yield Fact(where=where, name=name, value=value)


def _datasets(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    names = [*_names(config.get("dataset")), *_names(config.get("eval_dataset"))]
    place = str(config.get("dataset_dir") or "data")
    if not names or place == "ONLINE" or place.startswith("REMOTE:") or config.get("tokenized_path"):
        return {}
    info_path = folder / place / "dataset_info.json"
    try:
        info = json.loads(info_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"dataset_info_unreadable": f"{place}/dataset_info.json ({_short(error)})"}
    if not isinstance(info, dict):
        return {"dataset_info_unreadable": f"{place}/dataset_info.json (not a mapping)"}
    problems: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        for fact, text in _one_dataset(name, info, folder / place, str(config.get("stage") or "sft")):
            problems.setdefault(fact, []).append(text)
    known = {"datasets_known": ", ".join(sorted(map(str, info))[:20])} if "dataset_undefined" in problems else {}
    return {**{fact: ", ".join(texts) for fact, texts in problems.items()}, **known}


def _one_dataset(name: str, info: Mapping[str, Any], folder: Path, stage: str) -> Iterator[tuple[str, str]]:
    entry = info.get(name)
    if not isinstance(entry, dict):
        yield "dataset_undefined", name
        return
    ranking = bool(entry.get("ranking", False))
    if ranking is not (stage in ("rm", "dpo")):
        yield ("dataset_has_ranking" if ranking else "dataset_lacks_ranking"), name
    if any(key in entry for key in _HUBS) or "file_name" not in entry:
        return
    file = _first_file(folder / str(entry["file_name"]))
    if file is None:
        yield "dataset_file_missing", f"{name} ({entry['file_name']})"
    elif file.suffix[1:] not in FILE_TYPES:
        yield "dataset_file_type", f"{name} ({file.name})"
    else:
        missing = _missing_columns(entry, _first_record(file))
        if missing:
            yield "dataset_columns_missing", f"{name} ({', '.join(missing)})"


def _first_file(path: Path) -> Path | None:
    if path.is_dir():
        return next((file for file in islice(path.iterdir(), 1000) if file.is_file()), None)
    return path if path.is_file() else None


def _first_record(file: Path) -> Mapping[str, Any] | None:
    """The first example of a JSON or JSON-lines file; None if it is not within the first _HEAD bytes."""
    if FILE_TYPES.get(file.suffix[1:]) != "json":
        return None
    try:
        with file.open(encoding="utf-8") as stream:
            head = stream.read(_HEAD).lstrip("\ufeff \t\r\n")
        start = head.find("{")
        if start < 0 or head[:start].strip("[ \t\r\n"):
            return None
        record, _ = json.JSONDecoder().raw_decode(head, start)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _missing_columns(entry: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[str]:
    """Columns that the entry names (or that its format takes by default) and that the first example lacks.

    Only a column whose absence stops the run counts: prompts or messages, and every column that the entry names itself.
    """
    if record is None:
        return []
    columns = entry.get("columns")
    if isinstance(columns, dict):
        return [str(column) for column in columns.values() if column and column not in record]
    formatting = str(entry.get("formatting") or "alpaca")
    first = next(iter(_COLUMNS.get(formatting, {}).values()), None)
    return [first] if first is not None and first not in record else []


def model_folder(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A model folder that does not exist beside others that do: a mistyped path rather than a model of the hub."""
    given = config.get("model_name_or_path")
    if not isinstance(given, str) or len(PurePath(given).parts) < 2:
        return {}
    path = folder / given
    try:
        known = None if path.exists() or not path.parent.is_dir() else sorted(one.name for one in islice(path.parent.iterdir(), 1000))
    except OSError:  # no permission
        return {}
    if known is None:
        return {}
    close = get_close_matches(path.name, known, n=3, cutoff=0.5) or known[:5]
    return {"model_folder_missing": given, **({"model_folders_known": ", ".join(close)} if close else {})}


def _deepspeed(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    given = config.get("deepspeed")
    if not isinstance(given, str) or not given.strip() or (folder / given).is_file():
        return {}
    return {"deepspeed_file_missing": given}


def _output(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The auto-resume trap: a checkpoint (or weights) in the output folder of a config that says nothing of resuming."""
    given = config.get("output_dir")
    if (
        not given
        or config.get("resume_from_checkpoint")
        or config.get("overwrite_output_dir") is True
        or config.get("do_train") is not True
    ):
        return {}
    output = folder / str(given)
    if not output.is_dir():
        return {}
    numbers = [int(path.name[11:]) for path in output.glob("checkpoint-*") if path.name[11:].isdigit() and path.is_dir()]
    if numbers:
        return {"output_dir_checkpoint": f"{given}/checkpoint-{max(numbers)}"}
    # extras/constants.py CHECKPOINT_NAMES
    return {"output_dir_weights": str(given)} if any((output / name).is_file() for name in _WEIGHTS) else {}


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [str(name) for name in value] if isinstance(value, list) else []


def _short(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
