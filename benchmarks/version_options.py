"""rules/options.yaml out of rules/versions.yaml: every option of `llamafactory-cli train` by name, with its lifetime and older defaults."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from version_history import UNRELEASED, Data, at, order

HIDDEN = {"compute_dtype", "device_map", "model_max_length", "block_diag_attn"}
"""Fields that LLaMA-Factory sets itself, which some releases did not mark so."""

EXTRA_CHOICES: dict[str, list[Any]] = {
    # options whose type is a plain str although only these values work (LLaMA-Factory's quantization.py, transformers' trainer.py)
    "train_sampling_strategy": ["random", "sequential", "group_by_length"],
    "fp8_backend": ["auto", "torchao", "te", "msamp"],
    "ddp_backend": ["nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"],
}

USE_INSTEAD = {
    # what became of options that are gone; checked against the versions' own release notes and code
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "include_tokens_per_second": "include_num_input_tokens_seen",
    "dpo_beta": "pref_beta",
    "orpo_beta": "pref_beta",
    "dpo_loss": "pref_loss",
    "dpo_ftx": "pref_ftx",
    "num_layer_trainable": "freeze_trainable_layers",
    "name_module_trainable": "freeze_trainable_modules",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
}

Snapshots = list[tuple[str, Mapping[str, Any]]]


def number(version: str, versions: list[str]) -> str:
    """A version as rules compare it: main is the newest release's next patch, as its own source calls it; kt comes after it."""
    if version not in UNRELEASED:
        return version
    release = order([one for one in versions if one not in UNRELEASED][-1])
    after = (*release[:-1], release[-1] + 1)
    return ".".join(map(str, after if version == "main" else (*after, 1)))


def text(data: Data) -> str:
    """The file: JSON, one option a line."""
    products = data["products"]
    options: dict[str, dict[str, Any]] = {}
    about = []
    for of, section in (("llamafactory", "v0"), ("transformers", "options")):
        if of not in products:
            continue
        snapshots = _snapshots(products[of], section, of)
        releases = [version for version, _ in snapshots]
        about.append(f"{of} {releases[0]} to {products[of]['versions'][-1]}")
        for name in sorted({name for _, names in snapshots for name in names}):
            if name in HIDDEN or name.startswith("_"):
                continue
            entry = _option(name, snapshots, of, _settled(products[of], data))
            if name in options:  # an option that both have had: the one that has it now describes it
                entry, other = (entry, options[name]) if options[name]["group"] == "gone" else (options[name], entry)
                entry |= {"also": {field: other[field] for field in ("of", "since", "until") if field in other}}
            options[name] = entry
    for name, use in USE_INSTEAD.items():
        options.setdefault(name, {"group": "gone", "type": "any", "default": None, "of": "llamafactory", "until": "0.7.0"})["use"] = use
    options["template"]["choices"] = sorted(products["llamafactory"]["sections"]["templates"])
    lines = [f"{json.dumps(name)}: {json.dumps(options[name])}" for name in sorted(options)]
    told = f"{', '.join(about)}; written by benchmarks/make_versions.py; JSON on purpose (it is YAML, and loads faster); " + (
        "since/until in versions of `of`"
    )
    return "{" + f'"_about": {json.dumps(told)},\n' + ",\n".join(lines) + "\n}\n"


def _snapshots(product: Mapping[str, Any], section: str, of: str) -> Snapshots:
    group = {} if of == "llamafactory" else {"group": "training"}
    versions = product["versions"]
    return [(number(one, versions), {name: group | entry for name, entry in at(product, one).get(section, {}).items()}) for one in versions]


def _settled(product: Mapping[str, Any], data: Data) -> str:
    """The version that the table describes: LLaMA-Factory's newest release, the newest transformers it takes."""
    releases = [one for one in product["versions"] if one not in UNRELEASED]
    if product is data["products"]["llamafactory"]:
        return str(releases[-1])
    newest = _settled(data["products"]["llamafactory"], data)
    pin = at(data["products"]["llamafactory"], newest)["pins"]["transformers"]
    bound = next(part[2:] for part in pin.split(",") if part.startswith("<="))
    return str([one for one in releases if order(one) <= order(bound)][-1])


def _option(name: str, snapshots: Snapshots, of: str, settled: str) -> dict[str, Any]:
    having = [(version, names[name]) for version, names in snapshots if name in names]
    current = dict(having_at[0]) if (having_at := [entry for version, entry in having if version == settled]) else None
    later = order(having[0][0]) > order(settled)
    source = current or having[0 if later else -1][1]
    entry = {
        "group": source["group"] if current or later else "gone",
        "type": source["type"],
        "default": source["default"],
    }
    choices = EXTRA_CHOICES.get(name) or source.get("choices")
    if choices and (current or later):
        entry["choices"] = choices
    return entry | {"of": of} | _lifetime(snapshots, having)


def _lifetime(snapshots: Snapshots, having: Snapshots) -> dict[str, Any]:
    """`since` / `until` (first and last version that has it, where not all do) and `was`: {last version: other default}."""
    out: dict[str, Any] = {}
    if having[0][0] != snapshots[0][0]:
        out["since"] = having[0][0]
    if having[-1][0] != snapshots[-1][0]:
        out["until"] = having[-1][0]
    was = {
        version: entry["default"]
        for (version, entry), (_, later) in itertools.pairwise(having)
        if "computed" not in entry and "computed" not in later
        and (entry["default"], type(entry["default"])) != (later["default"], type(later["default"]))
    }  # fmt: skip
    return out | ({"was": was} if was else {})
