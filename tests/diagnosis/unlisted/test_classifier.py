"""The learned second opinion: its file, what it says of messages in the shape of real logs, and that it is unsure of what it never saw."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import msgspec
import pytest

from doctor.diagnosis.unlisted.candidates import end_of_log
from doctor.diagnosis.unlisted.classifier import LIKELY, MODEL, SHOWN, Classifier, Opinion, Stored, calibrated, opinions, shipped, weighted
from doctor.diagnosis.unlisted.features import features_of
from doctor.diagnosis.unlisted.tokens import telling_lines, tokens
from doctor.rulebook.cause_notes import cause_notes
from tests.diagnosis.unlisted.helpers import read_console

SITE = "/opt/conda/envs/lf/lib/python3.11/site-packages"

# Hand-written: (causes of which one must be among the candidates, log). None of them is a training example.
MESSAGES = [
    ("disk_full", "OSError: [Errno 28] No space left on device: '/mnt/ckpt/checkpoint-900/optimizer.pt'"),
    ("disk_full", "RuntimeError: PytorchStreamWriter failed writing file data/417: file write failed"),
    ("shm_too_small", "RuntimeError: DataLoader worker (pid 771) is killed by signal: Bus error. Raise the shared memory limit (shm)."),
    ("port_in_use", "RuntimeError: The server socket has failed to bind to 0.0.0.0:29511 (errno: 98 - Address already in use)."),
    ("world_size_exceeds_gpus", "torch.AcceleratorError: CUDA error: invalid device ordinal"),
    ("gpu_not_visible", "RuntimeError: No CUDA GPUs are available for this process"),
    ("gpu_arch_unsupported", "RuntimeError: CUDA error: no kernel image is available for execution on the device (sm_120)"),
    ("gpu_driver_too_old", "RuntimeError: The NVIDIA driver on your system is too old (found version 10020)."),
    ("gpu_hardware_fault", "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"),
    ("cuda_illegal_memory_access", "torch.AcceleratorError: CUDA error: an illegal memory access was encountered in flash_bwd"),
    ("token_id_out_of_range", "IndexError: index out of range in self, while looking up the embedding"),
    ("native_library_crash", "Fatal Python error: Segmentation fault in libarrow.so.1900"),
    ("mixed_precision_dtype_conflict", "RuntimeError: expected mat1 and mat2 to have the same dtype, but got: double != c10::Half"),
    ("mixed_precision_dtype_conflict", "ValueError: Attempting to unscale FP16 gradients of the adapter"),
    ("flash_attn_missing_or_broken", "ImportError: flash_attn_2_cuda.cpython-312.so: undefined symbol: _ZN2at4_ops5zeros4call"),
    ("no_trainable_graph", "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn (step 1)"),
    ("lora_target_mismatch", "ValueError: Target modules {'query_key_value'} not found in the base model"),
    ("quantized_model_without_adapter", "ValueError: You cannot perform fine-tuning on purely quantized models, attach adapters"),
    ("output_dir_not_empty", "ValueError: Output directory already exists and is not empty: saves/yi-6b/dpo"),
    ("dataset_not_registered", "ValueError: Undefined dataset hospital_notes in dataset_info.json."),
    ("dataset_json_malformed", "pyarrow.lib.ArrowInvalid: JSON parse error: Invalid value. in row 88"),
    ("dataset_empty_after_processing", "RuntimeError: Cannot find valid samples after tokenizing, check the data format"),
    ("vision_token_truncation", "ValueError: Image features and image tokens do not match: tokens: 777, features 2048"),
    ("vision_placeholder_mismatch", "ValueError: The number of videos does not match the number of <video> tokens in the messages"),
    ("media_file_missing", "PIL.UnidentifiedImageError: cannot identify image file 'images/00012.webp'"),
    ("package_version_conflict", "ImportError: accelerate>=1.3.0,<=1.11.0 is required, but found accelerate==0.34.2."),
    ("package_version_conflict", "ValueError: numpy.dtype size changed, may indicate binary incompatibility of pandas"),
    ("hf_stack_api_break", "TypeError: Qwen3Attention.forward() got an unexpected keyword argument 'past_key_value'"),
    ("packages_needed", "ModuleNotFoundError: No module named 'rouge_chinese'"),
    ("model_files_corrupt", "safetensors_rust.SafetensorError: Error while deserializing header: InvalidHeaderLength"),
    ("model_path_not_found", "HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/nas/zoo/yi'"),
    ("hub_gated_repo", "huggingface_hub.errors.GatedRepoError: 403 Client Error. Access to model mistral is restricted, log in"),
    ("hub_unreachable", "requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded"),
    ("bitsandbytes_cuda_setup", "RuntimeError: CUDA Setup failed: bitsandbytes found no binary libbitsandbytes_cuda130.so"),
    ("deepspeed_op_build_failed", "RuntimeError: Error building extension 'cpu_adam': ninja: build stopped"),
    ("windows_text_encoding", "UnicodeDecodeError: 'gbk' codec can't decode byte 0x93 in position 19: illegal multibyte sequence"),
    ("nccl_timeout_rank_desync", "[Rank 6] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4711) ran for 600099 ms"),
    ("fsdp_mixed_dtype", "ValueError: Must flatten tensors with uniform dtype but got torch.float16 and torch.float32"),
    ("ddp_unused_parameters", "RuntimeError: Expected to have finished reduction in the prior iteration before starting a new one."),
    ("export_merge_quantized_base", "ValueError: Cannot merge adapters to a quantized model (bits=4)"),
]  # fmt: skip

NONSENSE = [
    "qux blorf snizzle wump",
    "TeapotError: the kettle returned status 418 to module crockery",
    "pywintypes.com_error: (-2147023174, 'The spreadsheet is gone', None, None)",
    "astral.geocoder.Missing: no sunset on that day in Tromso",
    "die Katze schlief auf dem warmen Ofen bis zum Abend",
]


def asked(text: str, folder: Path) -> list[Opinion]:
    crashes, run = read_console(text, folder)
    return opinions(features_of(crashes[0], run) if crashes else None, end_of_log([str(folder / "console.log")]))


@pytest.mark.parametrize(("cause", "text"), MESSAGES, ids=[f"{number}-{cause}" for number, (cause, _) in enumerate(MESSAGES)])
def test_a_message_of_known_kind_has_its_cause_among_the_candidates(cause: str, text: str, tmp_path: Path) -> None:
    """Forty messages that are no training examples; each names its words as reasons."""
    found = asked(text, tmp_path)
    assert cause in [one.cause for one in found]
    assert 1 <= len(found) <= SHOWN
    chosen = next(one for one in found if one.cause == cause)
    assert chosen.reasons


def test_most_messages_of_known_kind_have_their_cause_first(tmp_path: Path) -> None:
    """At least nine in ten of the forty; a model that only lists possibilities would be no second opinion."""
    first = [asked(text, tmp_path)[0].cause == cause for cause, text in MESSAGES]
    assert len(first) == 40
    assert sum(first) >= 36


@pytest.mark.parametrize("text", NONSENSE)
def test_what_was_never_seen_is_not_likely(text: str, tmp_path: Path) -> None:
    """Failures of other programs and sentences without meaning get no cause, and no strong candidate."""
    found = asked(text, tmp_path)
    assert all(one.probability < 0.4 for one in found)


def test_no_text_has_no_opinion() -> None:
    """Without a log there is nothing to say."""
    assert opinions(None, []) == []


def test_probabilities_sum_to_one_and_are_ordered(tmp_path: Path) -> None:
    """Calibration makes the first probability true and leaves the rest to the others."""
    crashes, run = read_console("OSError: [Errno 28] No space left on device", tmp_path)
    chances = shipped().probabilities(tokens(features_of(crashes[0], run)))
    assert math.isclose(sum(chances), 1.0, abs_tol=1e-6)
    assert len(chances) == len(shipped().causes)
    best = max(chances)
    assert shipped().causes[chances.index(best)] == "disk_full"
    assert best >= LIKELY


def test_a_frame_tells_what_the_message_does_not(tmp_path: Path) -> None:
    """The same bare message, raised while a checkpoint is resumed and while data are converted."""
    head = "Traceback (most recent call last):\n"
    resumed = f'{head}  File "{SITE}/transformers/trainer.py", line 1, in _load_from_checkpoint\n    x\nKeyError: 3'
    converted = f'{head}  File "{SITE}/llamafactory/data/converter.py", line 1, in convert_sharegpt\n    x\nKeyError: 3'
    assert asked(resumed, tmp_path)[0].cause == "checkpoint_load_failure"
    assert asked(converted, tmp_path)[0].cause == "dataset_columns_or_tags_mismatch"


def test_the_shipped_file_is_small_and_whole() -> None:
    """At most 300 KB; a weight for each cause and token, and every cause has a title and a check in all languages."""
    data = MODEL.read_bytes()
    stored = msgspec.msgpack.decode(zlib.decompress(data), type=Stored)
    assert len(data) <= 300_000
    rows = stored.vocabulary.split("\n")
    assert rows == sorted(set(rows))
    assert len(stored.weights) == len(rows) * len(stored.causes)
    assert len(stored.rarity) == len(rows)
    assert len(stored.scales) == len(stored.biases) == len(stored.causes)
    assert set(stored.examples) == {"rules", "known issues", "decision table", "messages"}
    told = cause_notes()
    assert set(stored.causes) <= set(told)
    assert all(text for note in told.values() for text in (note.title.en, note.title.ko, note.title.zh, note.check.ko, note.check.zh))


def test_a_tiny_model_computes_what_is_on_paper() -> None:
    """Two tokens, two causes: one word of rarity 1 gives the logits 2 and 0, so shares e^2 : 1."""
    stored = Stored(
        causes=["a", "b"], vocabulary="word x\nword y", rarity=bytes([1, 1]), rarity_scale=1.0, weights=bytes([2, 0, 0, 2]),
        scales=[1.0, 1.0], biases=[0.0, 0.0], calibration=(0.0, 1.0), examples={},
    )  # fmt: skip
    first, second = Classifier(stored).scores({"word x": 1.0})
    assert math.isclose(first / second, math.exp(2), rel_tol=1e-9)
    assert Classifier(stored).opinions({"word z": 1.0}) == []


def test_unseen_words_weaken_a_vector() -> None:
    """A word never seen in training counts to the length: half of the text is strange, so the known half weighs less."""
    rows = {"word x": 0}
    assert weighted({"word x": 1.0}, rows, [1.0], 1.0) == {0: 1.0}
    assert math.isclose(weighted({"word x": 1.0, "word y": 1.0}, rows, [1.0], 1.0)[0], 1 / math.sqrt(2))


def test_calibration_is_a_logistic_function() -> None:
    """Weights (0, 1) leave a score as it is; half the slope draws it to one half."""
    assert math.isclose(calibrated(0.8, (0.0, 1.0)), 0.8)
    assert math.isclose(calibrated(0.8, (0.0, 0.5)), 2 / 3)


def test_telling_lines_leave_out_frames_and_echoes() -> None:
    """Frames are features of their own; a launcher's echo says nothing."""
    lines = ['[rank0]:   File "/a/b.py", line 3, in go', "[rank0]: Boom: the disk failed", "ChildFailedError:", "=====", "end"]
    assert telling_lines("\n".join(lines)) == ["[rank0]: Boom: the disk failed", "end"]
