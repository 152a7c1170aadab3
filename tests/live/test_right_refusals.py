"""What nothing in the configuration can cure is refused for the right reason: what the report says, and what healing would do.

The real trainings that end so: `python -m tests.lab.refusals`. Here their consoles, in the shape that those runs left.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor import analyze
from doctor.config.preflight import model_folder
from doctor.live.supervisor.attempts import HealAttempt
from doctor.live.supervisor.ledger import Ledger
from doctor.live.supervisor.watched_run import run
from doctor.support.texts import Text

OFFLINE = """\
Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/huggingface_hub/file_download.py", line 1700, in _raise_on_head_call_error
    raise LocalEntryNotFoundError(
huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache and outgoing traffic has been disabled. \
To enable hf.co look-ups and downloads online, set 'local_files_only' to False.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/transformers/utils/hub.py", line 553, in cached_files
    raise OSError(
OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.
"""
OWN = """\
  File "/usr/lib/python3.11/site-packages/transformers/trainer_callback.py", line 545, in call_event
    result = getattr(callback, event)(
  File "/home/kim/project/train.py", line 11, in on_step_end
    raise ValueError("reward table has no row for prompt 17")
ValueError: reward table has no row for prompt 17
"""
CONFIG = (
    "model_name_or_path: {model}\nstage: sft\ndo_train: true\ndataset: a\ntemplate: llama3\nfinetuning_type: lora\noutput_dir: saves/run\n"
)


def next_of(
    folder: Path, console: str, facts: dict[str, str] | None = None, config: str = CONFIG.format(model="models/x")
) -> tuple[HealAttempt, HealAttempt | Text]:
    """A failed attempt with this console, and what healing does next."""
    (folder / "console.log").write_text(console)
    events = [*({"type": "Fact", "name": name, "value": value} for name, value in (facts or {}).items()), {"type": "ProcessEnd", "code": 1}]
    (folder / "lfdoctor-run.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    attempt = HealAttempt(number=1, text=config, code=1)
    attempt.report = analyze(folder)
    return attempt, Ledger(attempt, folder, 3).next_attempt(attempt)


def test_offline_mode_is_no_passing_trouble(tmp_path):
    """Nothing comes by waiting where nothing may be asked: refused at once."""
    attempt, then = next_of(tmp_path, OFFLINE)
    assert attempt.root.rule == "environment/hub-offline-mode"
    assert "HF_HUB_OFFLINE" in attempt.root.text
    assert isinstance(then, Text)


def test_a_hub_that_does_not_answer_is_asked_again(tmp_path):
    """Without the offline mode the network may come back."""
    line = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded with url: /a\n"
    attempt, then = next_of(tmp_path, line)
    assert attempt.root.rule == "environment/hub-unreachable"
    assert isinstance(then, HealAttempt)


def test_a_mistyped_folder_is_no_network_failure(tmp_path):
    """What was seen before the start decides: the folder around it exists; its neighbour of a similar name is named."""
    attempt, then = next_of(tmp_path, OFFLINE, {"model_folder_missing": "models/tiny-lama", "model_folders_known": "tiny-llama"})
    assert (attempt.root.rule, attempt.root.cause) == ("environment/model-folder-missing", "model_path_not_found")
    assert "models/tiny-lama" in attempt.root.text
    assert "tiny-llama" in attempt.root.text
    assert isinstance(then, Text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("models/tiny-lama", {"model_folder_missing": "models/tiny-lama", "model_folders_known": "tiny-llama"}),
        ("models/tiny-llama", {}),
        ("./models/none", {"model_folder_missing": "./models/none", "model_folders_known": "tiny-llama"}),
        ("Qwen/Qwen2.5-7B", {}),
        ("gpt2", {}),
        ("empty/model", {"model_folder_missing": "empty/model"}),
        (None, {}),
        (7, {}),
    ],
)
def test_a_folder_counts_as_mistyped_where_its_parent_exists(tmp_path, given, expected):
    """A name of the hub has no folder around it; a path that exists is none."""
    (tmp_path / "models" / "tiny-llama").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    assert model_folder({"model_name_or_path": given}, tmp_path) == expected


def test_the_watched_run_looks_before_it_starts(tmp_path, monkeypatch, capsys):
    """End to end: the fact stands in the journal of `lfdoctor run`, and its report speaks of the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny-llama").mkdir(parents=True)
    (tmp_path / "train.yaml").write_text(CONFIG.format(model="models/tiny-lama"))
    (tmp_path / "fail.py").write_text(f"import sys; sys.stderr.write({OFFLINE!r}); sys.exit(1)")
    outcome = run(["python3", "fail.py", "train.yaml"], tmp_path / "doctor")
    assert outcome.report.cause == "model_path_not_found"
    assert b'"model_folder_missing"' in (tmp_path / "doctor" / "lfdoctor-run.jsonl").read_bytes()


def test_the_users_own_exception_comes_first(tmp_path):
    """Its text is the headline, its place the advice; no package is blamed, no option is changed."""
    attempt, then = next_of(tmp_path, "Traceback (most recent call last):\n" + OWN)
    root = attempt.root
    assert (root.title, root.cause) == ("ValueError: reward table has no row for prompt 17", None)
    assert "`on_step_end` of train.py" in root.text
    assert root.remedies[0].text == "Read `on_step_end` in train.py: no option of the configuration changes what it does."
    assert [remedy.id for remedy in root.remedies] == ["own-code"]
    assert not isinstance(then, HealAttempt) or then.changes == ()


def samples(labels: str, losses: str) -> str:
    return f"""\
[INFO|2026-03-01 10:00:00] llamafactory.hparams.parser:468 >> Process rank: 0, world size: 1, device: cpu, distributed training: False, \
compute dtype: torch.float32
training example:
input_ids:
[0, 2, 91, 89]
label_ids:
{labels}
[INFO|trainer.py:2519] 2026-03-01 10:00:53,101 >> ***** Running training *****
{losses}"""


ZEROS = "".join(f"{{'loss': '0', 'grad_norm': '0', 'learning_rate': '{step}e-05', 'epoch': '0.{step}'}}\n" for step in range(1, 9))


@pytest.mark.parametrize(
    ("labels", "cutoff", "packing", "first"),
    [
        ("[-100, -100, -100, -100]", 4, False, ("cutoff_len", 1024)),
        ("[-100, -100, -100, -100]", 512, False, None),
        ("[-100, -100, -100, -100]", 4, True, None),
        ("[-100, -100, 17, 21]", 4, False, None),
    ],
)
def test_the_cutoff_comes_first_where_it_left_no_label(tmp_path, labels, cutoff, packing, first):
    """The first sample is as long as cutoff_len and none of it is trained on: no optimizer setting is tried before it is longer."""
    config = f"{CONFIG.format(model='m')}cutoff_len: {cutoff}\n" + ("packing: true\n" if packing else "")
    (tmp_path / "train.yaml").write_text(config)
    attempt, then = next_of(tmp_path, samples(labels, ZEROS), config=config)
    assert attempt.root.cause == "all_labels_masked"
    changes = {change.key: change.new for change in then.changes} if isinstance(then, HealAttempt) else {}
    assert changes.get("cutoff_len") == (first[1] if first else None)
    assert "weight_decay" not in changes
