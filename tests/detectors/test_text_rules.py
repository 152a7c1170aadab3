"""Text rules: numbers of one line compared, tracebacks that nobody knows, and which rule speaks of a place."""

from __future__ import annotations

import pytest

from doctor.core.events import Crash, Fact, Frame, LogLine, Where
from doctor.core.run import Run
from doctor.detectors.log_pattern import LogPattern
from doctor.diagnosis.engine import Engine
from doctor.rulebook.loader import load
from doctor.rulebook.model import Rule
from doctor.support.texts import Text

FRAMES = (Frame("/opt/site-packages/torch/nn.py", 3, "forward", "return f(x)"), Frame("/home/lee/hooks.py", 8, "on_start", "check(plan)"))


def rule(name: str, when: dict[str, dict[str, object]], **more: object) -> Rule:
    text = Text(en="x", ko="x")
    return Rule(id=name, cause="c", symptom="crash", severity="error", when=when, title=text, body=[text], **more)  # type: ignore[arg-type]


def crash(exception: str, line: int = 7, message: str = "broken", chain: int = 0) -> Crash:
    return Crash(where=Where("log", line), exception=exception, message=message, frames=FRAMES, chain=chain)


def found(rules: list[Rule], *events: Crash | Fact | LogLine) -> list[str]:
    engine = Engine(rules)
    for event in events:
        engine.feed(event)
    return [finding.rule.id for finding in engine.findings()]


UNKNOWN = rule("a/unknown", {"uncaught_exception": {"ignore": "ChildFailedError"}}, fallback=True)
KNOWN = rule("a/known", {"log_pattern": {"contains": ["KeyError"], "any_of": ["KeyError"]}})


@pytest.mark.parametrize(("tokens", "features", "fires"), [(10, 20, True), (20, 10, False), (20, 20, False), (9, 10, True)])
def test_ascending_compares_numbers_not_texts(tokens: int, features: int, fires: bool) -> None:
    """`ascending` fires only where the first number is the smaller one, as a number (9 is less than 10)."""
    detector = LogPattern(any_of=[r"tokens (?P<a>\d+), features (?P<b>\d+)"], contains=["tokens"], ascending=["a", "b"])
    line = LogLine(where=Where("log", 1), text=f"tokens {tokens}, features {features}")
    assert bool(list(detector.feed(line, Run()))) is fires


def test_ascending_names_a_group() -> None:
    """A rule that compares a group which its patterns do not have is refused when it is loaded."""
    with pytest.raises(ValueError, match="ascending"):
        LogPattern(any_of=["x"], contains=["x"], ascending=["nothing"])


def test_fallback_speaks_only_where_no_other_rule_does() -> None:
    """A fallback rule is silent on a traceback that another rule knows, and speaks of the one that nobody knows."""
    assert found([UNKNOWN, KNOWN], crash("KeyError")) == ["a/known"]
    assert found([UNKNOWN, KNOWN], crash("OddError")) == ["a/unknown"]
    assert sorted(found([UNKNOWN, KNOWN], crash("KeyError"), crash("OddError", line=90))) == ["a/known", "a/unknown"]


def test_exceptions_of_a_completed_run_were_caught() -> None:
    """A traceback in the log of a run that finished is no failure."""
    done = Fact(where=Where("log"), name="run.completed", value=True)
    assert found([UNKNOWN], crash("OddError"), done) == []


def test_launcher_echoes_and_later_links_of_a_chain_are_not_unknown_failures() -> None:
    """What the rule ignores, and what was raised while handling something else, is not told as a failure of its own."""
    assert found([UNKNOWN], crash("ChildFailedError"), crash("WrapError", chain=1)) == []


def test_unknown_exception_names_the_run_s_own_code() -> None:
    """The place that is shown is the innermost frame outside the installed libraries."""
    engine = Engine([UNKNOWN])
    engine.feed(crash("OddError"))
    (finding,) = engine.findings()
    assert finding.first.facts["file"] == "/home/lee/hooks.py"
    assert finding.first.facts["message"] == "broken"


def test_a_traceback_cut_before_its_last_line_is_read_by_its_frames() -> None:
    """A download that failed is recognised from the source lines alone when the log ends inside the traceback."""
    cut = Crash(where=Where("log", 3), exception="", frames=(Frame("file_download.py", 9, "_get", "metadata = get_hf_file_metadata("),))
    assert "environment/hub-unreachable" in found(list(load().rules), cut)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("Some keys are not used by the HfArgumentParser: ['do_train', 'num_train_epochs', 'output_dir']", "config_wrong_command"),
        ("Some keys are not used by the HfArgumentParser: ['visual_inputs']", "config_obsolete_key"),
        ("Some keys are not used by the HfArgumentParser: ['use_muon', 'enable_thinking']", "llamafactory_too_old"),
        ("Template qwen3_vl does not exist.", "llamafactory_too_old"),
        ("Template qwen-chat does not exist.", "template_missing_or_unknown"),
        ("Undefined dataset alpaca_zh_demo in dataset_info.json.", "wrong_working_directory"),
        ("Undefined dataset tickets_2024 in dataset_info.json.", "dataset_not_registered"),
        (
            "A checkpoint has model type `qwen3_next` but Transformers does not recognize this",
            "package_version_conflict",
        ),
        (
            "A checkpoint has model type `llava_phi` but Transformers does not recognize this",
            "model_architecture_unsupported",
        ),
        ("Image features and image tokens do not match: tokens: 990, features 1024", "vision_token_truncation"),
        ("Image features and image tokens do not match: tokens: 0, features 1024", "vision_placeholder_mismatch"),
    ],
)
def test_one_wording_many_causes(message: str, cause: str) -> None:
    """Messages that several causes share are told apart by what stands in them, and only one cause is named."""
    engine = Engine(one for one in load().rules if one.detector == "log_pattern")
    engine.feed(crash("ValueError", message=message))
    assert [finding.rule.cause for finding in engine.findings()] == [cause]
