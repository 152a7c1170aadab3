"""Fingerprints: the same over what changes from machine to machine, another for another failure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.diagnosis import pipeline
from doctor.fleet.scan import fingerprint

ERRORS = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {size} GiB. GPU {rank} has a total capacity of {size} GiB.",
    "FileNotFoundError: [Errno 2] No such file or directory: '{path}/data/train.json'",
    "torch.distributed.DistStoreError: Timed out after {number} seconds waiting for clients. {digit}/8 clients joined at {host}:{number}.",
    "ValueError: Template {word} does not exist.",
    "RuntimeError: [rank{rank}]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum={number}, OpType=ALLREDUCE)",
    "OSError: {path}/models/x does not appear to have a file named config.json. Checkout 'https://{host}/{path}' for available files.",
)
filled = st.fixed_dictionaries(
    {
        "size": st.floats(0.1, 99).map("{:.2f}".format),
        "rank": st.integers(0, 511).map(str),
        "digit": st.integers(0, 9).map(str),
        "number": st.integers(1, 65000).map(str),
        "path": st.lists(st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True), min_size=2, max_size=5).map(
            lambda parts: "/" + "/".join(parts)
        ),
        "host": st.from_regex(r"(?:10\.\d{1,2}\.\d{1,2}\.\d{1,2}|node\d{1,4})", fullmatch=True),
        "word": st.just("qwen"),
    }
)


@pytest.mark.parametrize("error", ERRORS)
@settings(max_examples=30, deadline=None)
@given(a=filled, b=filled)
def test_other_paths_numbers_ranks_and_hosts_keep_it(error, a, b):
    assert fingerprint.of("x", error.format(**a)) == fingerprint.of("x", error.format(**b))


def test_other_errors_and_other_causes_have_others():
    values = {"size": "1", "rank": "0", "digit": "1", "number": "9", "path": "/a/b", "host": "node1", "word": "qwen"}
    assert len({fingerprint.of("x", error.format(**values)) for error in ERRORS}) == len(ERRORS)
    assert fingerprint.of("x", ERRORS[0]) != fingerprint.of("y", ERRORS[0])


def test_one_failure_on_two_machines_is_one(runs, tmp_path):
    """A whole run, analyzed twice: as it is, and with other folders and ports."""
    log = next(runs.glob("dataset_not*/console.log"))
    text = log.read_text(encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    changed = re.sub(r"/[\w.-]+/[\w.-]+/", "/mnt/somewhere/else/", text).replace("127.0.0.1", "10.9.8.7")
    assert changed != text
    (other / "console.log").write_text(changed, encoding="utf-8")
    names = {fingerprint.fingerprint(pipeline.run_analysis([path]).judged) for path in (log, other)}
    assert len(names) == 1
    assert None not in names


def test_a_sound_run_has_none(runs):
    assert fingerprint.fingerprint([one for one in pipeline.run_analysis([runs / "healthy-sft"]).judged if one.role == "root"]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Segfault somewhere", ["segfault", "somewhere"]),
        ("  KeyError: prompt", ["keyerror", "prompt"]),
        ("RuntimeError:\n  quota exceeded", ["runtimeerror", "quota", "exceeded"]),
    ],
)
def test_a_signature_begins_with_the_first_letter(text: str, words: list[str]) -> None:
    """A line without an exception's name is taken from its start, one with a name from behind it."""
    assert fingerprint.signature(text) == words
