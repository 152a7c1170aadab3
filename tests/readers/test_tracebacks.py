"""Tracebacks out of consoles: plain, ranked, interleaved, chained, nested, boxed, excerpted, cut; and the text around them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readers.helpers import console

PLAIN = """Traceback (most recent call last):
  File "/opt/lf/launcher.py", line 23, in <module>
    launch()
  File "/opt/lf/train/sft/workflow.py", line 96, in run_sft
    trainer.train(
    ^^^^^^^^^^^^^^
  File "/opt/tf/trainer.py", line 2122, in training_step
    loss = self.compute_loss(model, inputs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""


def test_a_plain_traceback(tmp_path: Path):
    """Name, message, frames with their source lines, the place of the exception's own line, and the phase by the innermost frame."""
    seen = console(tmp_path, "before\n" + PLAIN + "\nafter\n")
    (crash,) = seen.crashes
    assert (crash.exception, crash.message) == ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert [(frame.file, frame.line, frame.function, frame.code) for frame in crash.frames][1:] == [
        ("/opt/lf/train/sft/workflow.py", 96, "run_sft", "trainer.train("),
        ("/opt/tf/trainer.py", 2122, "training_step", "loss = self.compute_loss(model, inputs)"),
    ]
    assert (crash.where.line, crash.phase, crash.chain) == (11, "train", 0)
    assert [line.text for line in seen.lines] == ["before", "after"]


@pytest.mark.parametrize(
    ("prefix", "rank"),
    [("[rank2]: ", 2), ("[default2]:", 2), ("2: ", 2), ("stderr: ", None), ("node1: ", None), ("(Worker pid=3, ip=10.0.0.1) ", None),
     ("[1,2]<stderr>:", 2), ("trainer-0  | ", None), ("2026-03-02T10:00:00.1Z ", None),
     ("(Worker pid=3) ERROR 03-13 16:32:15 [worker_base.py:574] ", None), ("job-7-worker-0 logs: [rank2]: ", 2),
     ("2024-09-26 07:59:39.732000: [rank2]: ", 2), ("\x1b[31m", None)],
)  # fmt: skip
def test_prefixes_of_ranks_and_hosts(tmp_path: Path, prefix: str, rank: int | None):
    """Whatever a launcher puts before each line, the traceback is the same and its rank is known where the prefix tells it."""
    (crash,) = console(tmp_path, "".join(prefix + line + "\n" for line in PLAIN.splitlines())).crashes
    assert (crash.exception, len(crash.frames), crash.rank, crash.frames[0].code) == ("torch.OutOfMemoryError", 3, rank, "launch()")


@pytest.mark.parametrize("quote", ['"', "“"])
def test_a_traceback_pasted_as_one_line_is_a_line(tmp_path: Path, quote: str):
    """A form or a chat took its line breaks away: it opens no traceback that the next lines would be part of."""
    text = f"Traceback (most recent call last): File {quote}/a/b.py{quote}, line 3, in f g() ValueError: bad value\nnext\n"
    seen = console(tmp_path, text)
    assert not seen.crashes
    assert [line.text for line in seen.lines] == text.splitlines()


def test_ranks_interleaved_line_by_line(tmp_path: Path):
    """Two ranks fail at once and print at once: each line goes to its own traceback."""
    lines = PLAIN.replace("2.00 GiB", "{} GiB").splitlines()
    text = "".join(f"[rank0]: {line.format(1)}\n[rank1]: {line.format(2)}\n" for line in lines)
    crashes = console(tmp_path, text).crashes
    assert [(crash.rank, crash.message[-6:], len(crash.frames)) for crash in crashes] == [(0, "1 GiB.", 3), (1, "2 GiB.", 3)]


def test_eight_ranks_at_once_are_told_in_the_order_in_which_they_began(tmp_path: Path):
    """In every run of the program alike: strings in a set would change their order with Python's hash seed."""
    order = (5, 2, 7, 0, 3, 6, 1, 4)
    text = "".join(f"[rank{rank}]: {line}\n" for line in PLAIN.splitlines() for rank in order)
    later = "".join(f"step {number}\n" for number in range(60))
    assert [crash.rank for crash in console(tmp_path, text + later).crashes] == list(order)


@pytest.mark.parametrize(("between", "belongs"), [(3, True), (30, False)])
def test_a_message_ends_when_its_rank_is_silent_while_another_writes(tmp_path: Path, between: int, belongs: bool):
    """A rank's next line after a few lines of another rank continues its message; long after, it is a line of its own."""
    failed = "".join(f"[rank0]: {line}\n" for line in PLAIN.splitlines())
    seen = console(tmp_path, failed + "[rank1]: still alive\n" * between + "[rank0]: of which 1 GiB is free\n")
    (crash,) = seen.crashes
    assert crash.message.endswith("of which 1 GiB is free") is belongs
    assert ("of which 1 GiB is free" in [line.text for line in seen.lines]) is not belongs


def test_crashes_come_in_the_order_of_the_text(tmp_path: Path):
    """A rank's last line is complete once others go on: the launcher's later failure is told later."""
    ranked = "".join(f"[rank1]: {line}\n" for line in PLAIN.splitlines())
    other = "".join(f"  noise {number}\n" for number in range(20))
    crashes = console(tmp_path, ranked + other + PLAIN.replace("torch.OutOfMemoryError", "LaterError")).crashes
    assert [crash.exception for crash in crashes] == ["torch.OutOfMemoryError", "LaterError"]


@pytest.mark.parametrize(
    "phrase",
    [
        "During handling of the above exception, another exception occurred:",
        "The above exception was the direct cause of the following exception:",
    ],
)
def test_chained_exceptions(tmp_path: Path, phrase: str):
    """Each exception of a chain is told, the original one as 0; an unrelated later one begins anew."""
    text = f"{PLAIN}\n{phrase}\n\n{PLAIN.replace('torch.OutOfMemoryError', 'RuntimeError')}\nsome line\n\n{PLAIN}"
    assert [(crash.exception, crash.chain) for crash in console(tmp_path, text).crashes] == [
        ("torch.OutOfMemoryError", 0), ("RuntimeError", 1), ("torch.OutOfMemoryError", 0),
    ]  # fmt: skip


def test_a_worker_processs_traceback_in_quotes(tmp_path: Path):
    """multiprocess prints the worker's traceback in triple quotes before its own: the worker's is the original."""
    worker = "Traceback (most recent call last):\n  File \"/opt/pool.py\", line 125, in worker\n    result = func()\nKeyError: 'messages'\n"
    text = (
        f'multiprocess.pool.RemoteTraceback: \n"""\n{worker}"""\n\nThe above exception was the direct cause of the following exception:\n\n'
    )
    text += worker.replace("/opt/pool.py", "/opt/map.py")
    seen = console(tmp_path, text)
    assert [(crash.exception, crash.chain, crash.frames[0].file) for crash in seen.crashes] == [
        ("KeyError", 0, "/opt/pool.py"), ("KeyError", 1, "/opt/map.py"),
    ]  # fmt: skip
    assert seen.lines == []


def test_a_data_loaders_original_traceback(tmp_path: Path):
    """The exception inside a DataLoader worker (printed within the outer one's message) is the original."""
    text = """Traceback (most recent call last):
  File "/opt/train.py", line 1, in main
    run()
RuntimeError: Caught ValueError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/opt/worker.py", line 351, in _worker_loop
    data = fetcher.fetch(index)
ValueError: no image

"""
    crashes = console(tmp_path, text).crashes
    assert [(crash.exception, crash.chain) for crash in crashes] == [("ValueError", 0), ("RuntimeError", 1)]
    assert crashes[1].message.startswith("Caught ValueError")


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["CUDA error: an illegal memory access was encountered", "CUDA kernel errors might be asynchronously reported.",
          "For debugging consider passing CUDA_LAUNCH_BLOCKING=1."], 3),
        (["Error(s) in loading state_dict for Model:", "\tsize mismatch for a.weight: copying a param with shape [8, 2]."], 2),
        (["--load_best_model_at_end requires them to match, but found", "- Evaluation strategy: epoch", "- Save strategy: steps"], 3),
        (["NCCL error in: NCCLUtils.cpp:77, system error", "ncclSystemError: System call failed.", "Last error:", "No space left"], 4),
        (["short", "[INFO|2026-03-02 10:00:00] llamafactory.x:1 >> goes on"], 1),
        (["short", " 12%|█▏        | 12/100 [00:10<01:00,  1.20it/s]"], 1),
        (["short", "wandb: You can sync this run"], 1),
        (["short", "Killed"], 1),
        (["short", "***** Running training *****"], 1),
        (["short", "..."], 1),
        (["short", "OtherError: something else"], 1),
    ],
)  # fmt: skip
def test_where_a_message_ends(tmp_path: Path, lines: list[str], kept: int):
    """A message may span lines, and ends where a log line, a bar, a shell's word, an ellipsis or the next exception begins."""
    seen = console(
        tmp_path,
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nRuntimeError: ' + "\n".join(lines) + "\n\nend\n",
    )
    assert seen.crashes[0].message == "\n".join(lines[:kept])


def test_no_indentation(tmp_path: Path):
    """Pasted through something that strips blanks: frames, code and exception are still told apart."""
    (crash,) = console(tmp_path, "\n".join(line.strip() for line in PLAIN.splitlines()) + "\n").crashes
    assert (crash.exception, len(crash.frames), crash.frames[2].code) == (
        "torch.OutOfMemoryError",
        3,
        "loss = self.compute_loss(model, inputs)",
    )


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_excerpt_that_begins_in_the_middle(tmp_path: Path, cut: int):
    """The header and the first frames may be missing."""
    (crash,) = console(tmp_path, "\n".join(PLAIN.splitlines()[cut:]) + "\n").crashes
    assert crash.exception == "torch.OutOfMemoryError"
    assert crash.frames[-1].function == "training_step"


def test_an_excerpt_that_stops_in_the_middle(tmp_path: Path):
    """A traceback whose end is missing is told with its frames and without a name."""
    (crash,) = console(tmp_path, "\n".join(PLAIN.splitlines()[:8])).crashes
    assert (crash.exception, crash.message, len(crash.frames), crash.phase) == ("", "", 3, "train")


def test_a_bare_exception_line(tmp_path: Path):
    """The last line alone is an exception; a warning, a log line that quotes one, and prose are lines."""
    text = "  torch.OutOfMemoryError: CUDA out of memory.\n\nUserWarning: odd\nINFO - ValueError: caught\nthe ValueError is gone\n"
    seen = console(tmp_path, text)
    assert [crash.exception for crash in seen.crashes] == ["torch.OutOfMemoryError"]
    assert len(seen.lines) == 3


def test_a_traceback_that_starts_inside_a_bar(tmp_path: Path):
    """A bar has no newline: what failed is glued to it."""
    glued = " 19%|█▉        | 37/167 [3:34:12<38:35:22, 10.32s/it]" + PLAIN
    (crash,) = console(tmp_path, glued).crashes
    assert (crash.exception, len(crash.frames)) == ("torch.OutOfMemoryError", 3)


def test_a_box_by_rich(tmp_path: Path):
    """Typer programs draw tracebacks in boxes."""
    text = """╭───────────────────── Traceback (most recent call last) ──────────────────────╮
│ /opt/lf/cli.py:111 in main                                                   │
│                                                                              │
│   108                                                                        │
│ ❱ 111 │   run_exp()                                                          │
│                                                                              │
│ /opt/tf/trainer.py:1885 in train                                             │
│ ❱ 1885 │   return inner_training_loop(                                       │
╰──────────────────────────────────────────────────────────────────────────────╯
ValueError: Attempting to unscale FP16 gradients.
"""
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.message) == ("ValueError", "Attempting to unscale FP16 gradients.")
    assert [(frame.function, frame.line, frame.code) for frame in crash.frames] == [
        ("main", 111, "run_exp()"), ("train", 1885, "return inner_training_loop("),
    ]  # fmt: skip


def test_an_exception_group(tmp_path: Path):
    """Of a group every exception is told."""
    text = """  + Exception Group Traceback (most recent call last):
  |   File "/opt/a.py", line 3, in main
  |     raise ExceptionGroup("two", errors)
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/opt/a.py", line 9, in one
    |     raise ValueError("first")
    | ValueError: first
    +------------------------------------
"""
    assert {crash.exception for crash in console(tmp_path, text).crashes} == {"ExceptionGroup", "ValueError"}


def test_a_syntax_error(tmp_path: Path):
    """Its frame has no function and its source line is the culprit."""
    text = 'Traceback (most recent call last):\n  File "/opt/a.py", line 3\n    def f(:\n          ^\nSyntaxError: invalid syntax\n'
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.frames[0].line, crash.frames[0].code) == ("SyntaxError", 3, "def f(:")


def test_text_inside_a_traceback_is_not_lost(tmp_path: Path):
    """Lines of other streams that fall into a traceback stay lines; the traceback goes on."""
    lines = PLAIN.splitlines()
    text = "\n".join([*lines[:4], "[INFO|2026-03-02 10:00:00] llamafactory.x:1 >> other stream", *lines[4:]]) + "\n"
    seen = console(tmp_path, text)
    assert seen.crashes[0].exception == "torch.OutOfMemoryError"
    assert any("other stream" in line.text for line in seen.lines)


def test_endless_recursion_is_bounded(tmp_path: Path):
    """A traceback of thousands of frames keeps its ends."""
    frames = "".join(f'  File "a.py", line {number}, in f{number}\n    g()\n' for number in range(5000))
    (crash,) = console(tmp_path, f"Traceback (most recent call last):\n{frames}RecursionError: maximum recursion depth exceeded\n").crashes
    assert len(crash.frames) == 200
    assert (crash.frames[0].function, crash.frames[-1].function) == ("f0", "f4999")


@pytest.mark.parametrize(
    ("functions", "phase"),
    [
        (["train", "evaluate", "evaluation_loop", "prediction_step", "compute_loss", "forward"], "eval"),
        (["train", "_maybe_log_save_evaluate", "_save_checkpoint", "save"], "save"),
        (["run_sft", "load_model", "from_pretrained", "convert_and_load_state_dict_in_model", "to"], "load"),
        (["run_sft", "get_dataset", "map", "_map_single"], "tokenise"),
        (["export_model", "merge_and_unload"], "export"),
        (["run_exp", "get_train_args", "_verify_model_args"], "start"),
        (["train", "training_step", "compute_loss", "forward"], "train"),
        (["main", "helper"], "load"),
    ],
)
def test_the_phase_of_a_crash_is_its_innermost_telling_frame(tmp_path: Path, functions: list[str], phase: str):
    """Saving inside the training loop is saving, a loss in evaluation is evaluation; where no frame tells, the marker does."""
    frames = "".join(f'  File "/opt/a.py", line {line}, in {name}\n    x()\n' for line, name in enumerate(functions, 1))
    text = f"KV cache is disabled during training.\nTraceback (most recent call last):\n{frames}ValueError: bad\n"
    assert console(tmp_path, text).crashes[0].phase == phase


CELLS = """---------------------------------------------------------------------------
OutOfMemoryError                          Traceback (most recent call last)
Cell In[7], line 3
      1 trainer = build()
----> 3 metrics = trainer.evaluate()

File /opt/tf/trainer.py:4201, in Trainer.evaluate(self, eval_dataset, ignore_keys)
   4199 start_time = time.time()
-> 4201 output = eval_loop(
   4202     eval_dataloader,

File [~/env/lib/torch/_ops.py:9](https://host/x#line=8), in OpOverload.__call__(self, *args)
----> [9](https://host/x#line=8) return self._op(*args)

OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB
after
"""


def test_a_traceback_of_a_notebook_cell(tmp_path: Path):
    """IPython 8: frames without quotes, the running line behind an arrow, code of the lines around it, links that a browser pasted."""
    seen = console(tmp_path, "before\n" + CELLS)
    (crash,) = seen.crashes
    assert (crash.exception, crash.message[:45]) == ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 Gi")
    assert [(frame.file, frame.line, frame.function, frame.code) for frame in crash.frames] == [
        ("Cell In[7]", 3, "<module>", "metrics = trainer.evaluate()"),
        ("/opt/tf/trainer.py", 4201, "evaluate", "output = eval_loop("),
        ("~/env/lib/torch/_ops.py", 9, "__call__", "return self._op(*args)"),
    ]
    assert (crash.phase, seen.lines[0].text) == ("eval", "before")


def test_an_older_notebook_and_one_without_its_header(tmp_path: Path):
    """IPython 7 names the file and the function only; an excerpt that begins at an arrow is read all the same."""
    text = """/opt/tf/trainer.py in train(self, resume_from_checkpoint, **kwargs)
   1553         else:
-> 1555             return inner_training_loop(

<ipython-input-5-3f> in <module>
----> 1 trainer.train()

ValueError: no more
"""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    header = "ValueError                                Traceback (most recent call last)\n"
    (whole,) = console(tmp_path / "a", header + text).crashes
    assert [(frame.function, frame.line) for frame in whole.frames] == [("train", 1555), ("<module>", 1)]
    (cut,) = console(tmp_path / "b", text.split("<module>\n")[1]).crashes
    assert (cut.exception, cut.message, [frame.code for frame in cut.frames]) == ("ValueError", "no more", ["trainer.train()"])


def test_an_excerpt_that_begins_in_the_middle_of_its_first_frame(tmp_path: Path):
    """What is left of the frame's line still tells the place."""
    (crash,) = console(
        tmp_path, '/trl/trainer/grpo.py", line 269, in __init__\n    super().__init__(\nTypeError: no such argument\n'
    ).crashes
    assert (crash.exception, [(frame.file, frame.line, frame.function) for frame in crash.frames]) == (
        "TypeError",
        [("/trl/trainer/grpo.py", 269, "__init__")],
    )
