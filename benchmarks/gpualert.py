"""How lfdoctor does on the public corpus of gpualert (short logs of faults that were forced on a GPU, labelled by their kind).

    git clone https://github.com/Parv-01/gpualert-eval && python benchmarks/gpualert.py gpualert-eval [--show]

The corpus stays outside this repository. Its labels are kinds of exceptions, not causes: a report is counted for the kind that its first
finding tells, by its cause or, where that says nothing of the kind, by the exception it names (`kind_of`). Printed: reports that call a
failed run healthy (there must be none), precision, recall and F1 of each kind, and macro-F1 over the kinds that were captured on hardware
and over all.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.diagnosis.pipeline import analyze
from doctor.report.model import Report

SYNTHETIC = ("cuda_oom", "nccl", "oom_killer")
"""Kinds whose logs were written, not captured."""
OF_CAUSE = (
    (r"gpu_oom_|device_held_by_other_process", "cuda_oom"),
    (r"nccl_|rendezvous_failed|port_in_use|distributed_init_hang", "nccl"),
    (r"cuda_illegal_memory_access|token_id_out_of_range|gpu_hardware_fault", "cuda_runtime"),
    (r"host_ram_oom_|preprocessing_worker_crash", "ram_oom"),
    (r"native_library_crash", "segfault"),
    (r"permission_denied|windows_file_in_use", "permission"),
    (r"packages_needed", "missing_module"),
    (r"tensors_on_different_devices|multi_gpu_without_launcher", "device_mismatch"),
    (r"nonfinite|fp16_overflow|deepspeed_overlap_comm_nan|all_labels_masked|lr_too_high", "nan_loss"),
    (r"process_killed_unconfirmed", "oom_killer"),
)
"""Causes -> kind."""
OF_EXCEPTION = (
    (r"CUDA error", "cuda_runtime"),
    (r"FileNotFoundError", "file_not_found"),
    (r"PermissionError", "permission"),
    (r"ModuleNotFoundError|No module named", "missing_module"),
    (r"MemoryError", "ram_oom"),
    (r"ZeroDivisionError", "div_zero"),
    (r"AssertionError", "assertion"),
    (r"RuntimeError", "runtime_error"),
    (r"\w+(?:Error|Exception)\b", "traceback"),
)
"""Exceptions that a finding names -> kind."""


def kind_of(report: Report) -> str:
    """The corpus's kind for what the report says first; `generic` where it names neither a cause nor an exception."""
    first = next((finding for finding in report.findings if finding.severity != "note"), None)
    if first is None:
        return "generic"
    quoted = " ".join([first.title, *(piece.text for piece in first.evidence[:1])])
    if re.search(r"Out of memory: Killed process|oom-kill", quoted):
        return "oom_killer"
    by_cause = next((kind for pattern, kind in OF_CAUSE if re.match(pattern, first.cause or "")), None)
    return by_cause or next((kind for pattern, kind in OF_EXCEPTION if re.search(pattern, quoted)), "generic")


def f1_of(pairs: list[tuple[str, str]], kind: str) -> tuple[float, float, float]:
    """Precision, recall and F1 (0..1) of one kind over (label, answer)."""
    right = sum(label == answer == kind for label, answer in pairs)
    told, given = sum(answer == kind for _, answer in pairs), sum(label == kind for label, _ in pairs)
    precision, recall = right / told if told else 0.0, right / given if given else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0


def main() -> int:
    """Print the figures; exit code 1 if a failed run was called healthy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    pairs, healthy, verdicts = [], 0, Counter[str]()
    for line in (options.checkout / "corpus/labels.jsonl").read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "console.log").write_bytes((options.checkout / sample["log_path"]).read_bytes())
            report = analyze(folder)
        answer = kind_of(report)
        verdicts[report.verdict] += 1
        healthy += report.verdict == "healthy"
        pairs.append((sample["mode"], answer))
        if options.show and answer != sample["mode"]:
            first = report.findings[0].title if report.findings else "-"
            print(f"  {sample['id']}: {answer}, not {sample['mode']}; {report.verdict}; {first[:90]}")
    kinds = sorted({label for label, _ in pairs})
    figures = {kind: f1_of(pairs, kind) for kind in kinds}
    for kind, (precision, recall, f1) in figures.items():
        print(f"{kind:16} precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}")
    captured = [f1 for kind, (_, _, f1) in figures.items() if kind not in SYNTHETIC]
    everything = [f1 for _, _, f1 in figures.values()]
    print(f"{len(pairs)} logs, verdicts {dict(verdicts)}, called healthy: {healthy}")
    print(
        f"macro-F1: {sum(captured) / len(captured):.3f} on {len(captured)} captured kinds, {sum(everything) / len(everything):.3f} on all"
    )
    return int(healthy > 0)


if __name__ == "__main__":
    sys.exit(main())
