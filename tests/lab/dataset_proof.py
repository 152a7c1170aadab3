"""Our token ids and labels against LLaMA-Factory's own, sample by sample and token by token.

    python tests/lab/dataset_proof.py                   all generated sets x 10 templates, every option in turn
    python tests/lab/dataset_proof.py --demo DATA       also LLaMA-Factory's demo sets (DATA: the folder `data` of its repository)
    python tests/lab/dataset_proof.py --every-template  one set with every template of LLaMA-Factory
    python tests/lab/dataset_proof.py --packing         rows after packing, and tokens that are trained in them
    python tests/lab/dataset_proof.py --fates           what LLaMA-Factory does with each kind of fault

Runs in an environment with `tokenizers` (the extra `data`); the lab's environment answers for LLaMA-Factory. Exit code 1 for
any difference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from doctor.dataset.attributes import needed_columns
from doctor.dataset.column_types import kind_of
from doctor.dataset.convert import convert
from doctor.dataset.images import images_of
from doctor.dataset.numbers import packed_rows
from doctor.dataset.rows import read_rows
from doctor.dataset.sequences import IGNORE, build, options_of, plan
from doctor.dataset.sources import find_sources
from doctor.dataset.templates import known_templates, template_of
from doctor.dataset.tokenizer import local_tokenizer, tokenizer_folder
from doctor.dataset.tools import LengthUnknown, NotEncodable
from tests.lab import dataset_kit
from tests.lab.install import lab_bin

TEMPLATES = ("default", "alpaca", "llama2", "llama3", "qwen", "qwen3", "glm4", "gemma", "mistral", "deepseekr1")
VARIANTS: tuple[dict[str, Any], ...] = (
    {"cutoff_len": 2048},
    {"cutoff_len": 64},
    {"cutoff_len": 37, "mask_history": True},
    {"cutoff_len": 150, "train_on_prompt": True},
    {"cutoff_len": 301, "enable_thinking": False},
    {"cutoff_len": 90, "mask_history": True, "preserve_thinking": True},
    {"cutoff_len": 200, "default_system": "Answer shortly."},
)
DEMO = {
    "alpaca_en_demo": "sft", "alpaca_zh_demo": "sft", "identity": "sft", "glaive_toolcall_en_demo": "sft", "glaive_toolcall_zh_demo": "sft",
    "dpo_en_demo": "dpo", "dpo_zh_demo": "dpo", "kto_en_demo": "kto", "c4_demo": "pt", "wiki_demo": "pt",
}  # fmt: skip


def job(number: int, data: Path, name: str, stage: str, template: str, tokenizer: Path, work: Path) -> dict[str, Any]:
    """One training configuration; the options take turns."""
    options = dict(VARIANTS[number % len(VARIANTS)])
    if stage == "pt":
        options = {"cutoff_len": options["cutoff_len"], "packing": False}
    if stage != "sft":
        options = {key: value for key, value in options.items() if key not in ("train_on_prompt", "mask_history")}
    if options.get("train_on_prompt") and known_templates()[template].efficient_eos:
        del options["train_on_prompt"]
    if not known_templates()[template].reasoning:
        options = {key: value for key, value in options.items() if key not in ("enable_thinking", "preserve_thinking")}
    if name in DEMO:
        options["max_samples"] = 100
    if number % 6 == 5 and stage in ("dpo", "kto"):
        options["packing"] = True  # only takes one token from cutoff_len there
    return {
        "stage": stage, "do_train": True, "finetuning_type": "lora", "model_name_or_path": str(tokenizer), "dataset": name,
        "template": template,
        "dataset_dir": str(data), "output_dir": str(work / "out"), "overwrite_cache": True, "report_to": "none", **options,
    }  # fmt: skip


def oracle(jobs: list[dict[str, Any]], work: Path, more: str = "") -> list[dict[str, Any]]:
    """LLaMA-Factory's answers. `more`: a folder with packages that the lab lacks."""
    (work / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    script = Path(__file__).with_name("dataset_oracle.py")
    env = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "cache"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_CACHING": "1", "TOKENIZERS_PARALLELISM": "false", "LLAMAFACTORY_VERBOSITY": "ERROR", "PYTHONPATH": more,
    }  # fmt: skip
    with (work / "oracle.log").open("wb") as log:
        command = [str(lab_bin() / "python"), str(script), str(work / "jobs.json"), str(work / "answers.jsonl")]
        subprocess.run(command, check=False, env=env, stdout=log, stderr=log)
    answers = [json.loads(line) for line in (work / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return answers + [{"error": "no answer"}] * (len(jobs) - len(answers))


def ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same from doctor/dataset: the samples (None where the length is not known), or the first reason to stop."""
    template = template_of(config)
    tokenizer, reason = local_tokenizer(config, Path())
    if template is None or tokenizer is None:
        return {"error": reason or "template"}
    tokenizer.prepare(template, config)
    options = options_of(config)
    place = tokenizer_folder(config, Path())
    images = images_of(config, Path(), template, place) if place else None
    samples: list[list[list[int]] | None] = []
    crashes: list[str] = []
    types: set[tuple[str, str]] = set()
    for source in find_sources(config, Path()):
        if source.fatal:
            return {"error": source.problem}
        for row in islice(read_rows(source.files, source.kind), config.get("max_samples")):
            if row.value is not None:
                types |= {(column, kind_of(type(part)) or "null") for column, part in row.value.items()}
            if row.value is None:
                crashes.append(row.problem)
                continue
            sample = convert(row.value, source.attributes, str(config["stage"]))
            if sample.fate == "crash":
                crashes.append(sample.reason)
            if sample.fate:
                continue
            try:
                sample = images.expanded(sample) if images and sample.images else sample
                turns = plan(sample, template, options, tokenizer.end_of_text(str(config["template"])))
            except NotEncodable as kind:
                crashes.append(str(kind))
                continue
            except LengthUnknown:
                samples.append(None)
                continue
            samples += [[sequence.ids, sequence.labels] for sequence in build(turns, tokenizer, template, options)]
        columns = Counter({column: 0 for column, _ in types})
        columns.update(column for column, kind in types if kind != "null")
        crashes += [f"mixed_types {column}" for column, kinds in columns.items() if kinds > 1]
        crashes += [f"column_missing {column}" for column in needed_columns(source.attributes) if column not in columns] if samples else []
    crashes += sorted(tokenizer.missing)
    if not samples and not crashes:
        crashes.append("all_dropped")
    return {"error": crashes[0]} if crashes else {"samples": samples}


def compare(config: Mapping[str, Any], theirs: dict[str, Any], mine: dict[str, Any]) -> tuple[str, int, int]:
    """("" or the difference, samples compared, samples of unknown length)."""
    if any(None in ids for ids, _ in theirs.get("samples", ())):  # a token that the tokenizer lacks: the collator fails on it
        theirs = {"error": "None among the token ids"}
    if "error" in theirs or "error" in mine:
        return ("" if ("error" in theirs) == ("error" in mine) else f"{theirs.get('error')} / {mine.get('error')}"), 0, 0
    if len(theirs["samples"]) != len(mine["samples"]):
        return f"{len(theirs['samples'])} samples, ours {len(mine['samples'])}", 0, 0
    unknown = sum(sample is None for sample in mine["samples"])
    for number, (one, other) in enumerate(zip(theirs["samples"], mine["samples"], strict=True)):
        if other is not None and (one[0] != other[0] or (config["stage"] != "pt" and one[1] != other[1])):
            return f"sample {number}: {len(one[0])} and {len(other[0])} tokens\n    {one}\n    {other}"[:1500], number, unknown
    return "", len(mine["samples"]) - unknown, unknown


def grid(work: Path, demo: Path | None) -> list[dict[str, Any]]:
    """All sets with all templates."""
    tokenizers = list(dataset_kit.tokenizers(work).values())
    data = work / "data"
    sets = [(data, name, dataset_kit.STAGES.get(name, "sft")) for name in dataset_kit.datasets(data)]
    sets += [(demo, name, stage) for name, stage in DEMO.items()] if demo else []
    return [
        job(number, place, name, stage, template, tokenizers[(number + number // 7) % 3], work)
        for number, (place, name, stage, template) in enumerate((*one, template) for one in sets for template in TEMPLATES)
    ]


def every_template(work: Path) -> list[dict[str, Any]]:
    """One set of conversations, one of tools and one of pairs with every template that takes text alone."""
    tokenizers = list(dataset_kit.tokenizers(work).values())
    data = work / "data"
    dataset_kit.datasets(data)
    names = [name for name, template in known_templates().items() if not template.plugin]
    sets = (("chat", "sft"), ("chat_pairs", "dpo"))
    return [
        job(number, data, name, stage, template, tokenizers[number % 3], work)
        for number, (name, stage, template) in enumerate((*one, template) for template in names for one in sets)
    ]


def fates(work: Path) -> list[dict[str, Any]]:
    """One configuration for each kind of fault: stops LLaMA-Factory where we say so, and does it keep as many samples?"""
    tokenizer = dataset_kit.tokenizers(work)["chat"]
    data = work / "data"
    return [job(0, data, name, stage, "qwen", tokenizer, work) for name, stage in dataset_kit.faults(data)]


def packed(work: Path) -> list[dict[str, Any]]:
    """Sets of conversations packed, plainly and neatly, in groups of 1000 and of 16 samples."""
    tokenizer = dataset_kit.tokenizers(work)["chat"]
    data = work / "data"
    dataset_kit.datasets(data)
    options = ({"packing": True}, {"neat_packing": True}, {"packing": True, "preprocessing_batch_size": 16, "mask_history": True})
    return [
        {**job(0, data, name, "sft", template, tokenizer, work), "cutoff_len": cutoff, **more}
        for name in ("alpaca", "chat", "faulty_chat")
        for template in ("qwen", "glm4", "llama2")
        for cutoff, more in zip((128, 300, 64), options, strict=True)
    ]


def unpacked(config: Mapping[str, Any], theirs: dict[str, Any], mine: dict[str, Any]) -> tuple[str, int, int]:
    """Compare packed rows: their number, and the trained tokens in all of them."""
    if "error" in theirs:
        return theirs["error"], 0, 0
    kept = [sample for sample in mine["samples"] if sample]
    lengths = array("Q", [len(ids) for ids, _ in kept])
    ours_ = (packed_rows(lengths, options_of(config).cutoff_len, config.get("preprocessing_batch_size", 1000)), sum(map(trained, kept)))
    found = (len(theirs["samples"]), sum(map(trained, theirs["samples"])))
    return "" if ours_ == found else f"rows and trained tokens {found}, ours {ours_}", len(kept), 0


def trained(sample: list[list[int]]) -> int:
    """Tokens that the loss is computed on."""
    return sum(label != IGNORE for label in sample[1])


def main() -> int:
    """Print every difference and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--every-template", action="store_true")
    parser.add_argument("--fates", action="store_true")
    parser.add_argument("--packing", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        makers = ((given.fates, fates), (given.every_template, every_template), (given.packing, packed))
        jobs = next((make(work) for asked, make in makers if asked), None) or grid(work, given.demo)
        answers = oracle(jobs, work)
        wrong = compared = unknown = 0
        refused: Counter[str] = Counter()
        for config, theirs in zip(jobs, answers, strict=True):
            difference, samples, hidden = (unpacked if given.packing else compare)(config, theirs, ours(config))
            compared, unknown = compared + samples, unknown + hidden
            if "error" in theirs:
                refused[theirs["error"][:120]] += 1
            if given.fates:
                print(f"{config['dataset']:16} {theirs.get('error', len(theirs.get('samples', [])))}"[:140])
            if difference:
                wrong += 1
                print(f"{config['dataset']} {config['template']} {Path(config['model_name_or_path']).name}: {difference}")
        for error, count in refused.most_common():
            print(f"refused by LLaMA-Factory in {count}: {error}")
        print(f"{len(jobs)} configurations, {wrong} differ; {compared} sequences equal token by token, {unknown} of unknown length")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
