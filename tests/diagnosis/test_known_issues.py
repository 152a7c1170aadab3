"""Known failures: what is shipped, how texts are compared, and what a report tells of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import doctor
from doctor.core.events import Where
from doctor.diagnosis import known_issues, pipeline
from doctor.diagnosis.unlisted import learned
from doctor.reporters import base
from doctor.reporters.registry import REPORTERS
from doctor.rulebook import loader
from doctor.rulebook.findings import Candidate
from doctor.support.cache import load_yaml
from doctor.support.texts import Text
from tests.reporters.samples import judged, rule

ROOT = Path(__file__).parents[2]
KNOWN = known_issues.shipped().known

UNKNOWN = """Traceback (most recent call last):
  File "/srv/jobs/train_wrapper.py", line 44, in <module>
    main()
  File "/srv/jobs/train_wrapper.py", line 12, in main
    raise LookupError({message!r})
LookupError: {message}
"""
TEMPLATE = """Traceback (most recent call last):
  File "/srv/LLaMA-Factory/src/llamafactory/data/template.py", line 601, in get_template_and_fix_tokenizer
    raise ValueError(f"Template {data_args.template} does not exist.")
ValueError: Template qwen9 does not exist.
"""


def report_of(tmp_path, console, **options):
    (tmp_path / "console.log").write_text(console, encoding="utf-8")
    return doctor.analyze(tmp_path, **options)


def told(report):
    return [one for finding in report.findings for one in finding.similar]


def index(*entries):
    """An index of (issue, cause, signature) whose fix is the issue's name."""
    return known_issues.Index([known_issues.Known(issue, cause, Text(en=issue, ko=f"ko {issue}"), text) for issue, cause, text in entries])


def test_what_is_shipped_is_large_unique_and_of_known_causes():
    """250 issues and more, each once, by owner/repo#number, of a cause that is named in rules/, with a signature that says something."""
    causes = {rule.cause for rule in loader.load().rules} | set(load_yaml(ROOT / "rules" / "causes.yaml"))
    issues = Counter(one.issue for one in KNOWN)
    assert len(KNOWN) >= 250
    assert not [issue for issue, number in issues.items() if number > 1 or not re.fullmatch(r"[\w.-]+/[\w.-]+#[1-9]\d*", issue)]
    assert {one.cause for one in KNOWN} <= causes
    assert not [one.issue for one in KNOWN if len(known_issues.normalise(one.signature)) < 3]


def test_every_fix_says_what_to_do():
    """No fix is a word or two, none has broken code (tests/test_languages.py proves the languages)."""
    assert not [one.issue for one in KNOWN if len(one.fix.en) < 40]
    assert not [one.issue for one in KNOWN for text in (one.fix.en, one.fix.ko, one.fix.zh or "") if text.count("`") % 2 or "``" in text]


def test_signatures_are_short_forms_not_logs():
    """No signature holds a path, a number, a rank or an address: nothing that comes from one machine."""
    assert not [one.issue for one in KNOWN if re.search(r"[/\\]|\b\d+\b|0x|https?:|\brank\s*\d", one.signature)]


def test_a_shipped_signature_finds_its_own_issue():
    """Asked with its own signature, an issue (or one with the very same words) comes first, with a likeness of 1."""
    for one in KNOWN:
        (score, first), *_ = known_issues.shipped().nearest(one.signature)
        assert score == pytest.approx(1.0)
        assert known_issues.ngrams(first.signature) == known_issues.ngrams(one.signature)


@given(
    st.integers(0, 10**9),
    st.integers(0, 4096),
    st.sampled_from(["/home/kim/x.py", "C:\\runs\\a\\b", "https://a.example/b", "10.1.2.3:29500"]),
)
def test_what_changes_from_run_to_run_does_not_count(number, rank, place):
    """Numbers, ranks, paths, hosts, addresses and upper case leave the normalised error as it is."""
    text = f"[rank{rank}]: RuntimeError: {place} cannot bind 0x{number:x} after {number} ms"
    assert known_issues.normalise(text) == ["runtimeerror", "cannot", "bind", "after", "ms"]


def test_an_allocators_accounts_do_not_count():
    """What every out-of-memory message says of the card's memory does not make two of them alike."""
    text = "CUDA out of memory. Tried to allocate 1.25 GiB. GPU 0 has a total capacity of 23.57 GiB of which 7.00 MiB is free. Of the ..."
    assert known_issues.normalise(text) == ["cuda", "out", "memory", "tried", "allocate"]


def test_weights_and_ranking_are_those_of_scikit_learn():
    """The plain Python vectors equal TfidfVectorizer's, and the nearest issues are NearestNeighbors' with the same distances."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    neighbors = pytest.importorskip("sklearn.neighbors")
    signatures = [one.signature for one in KNOWN]
    vectorizer = text.TfidfVectorizer(
        preprocessor=lambda raw: " ".join(known_issues.normalise(raw)), token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True
    )
    matrix = vectorizer.fit_transform(signatures)
    names = vectorizer.get_feature_names_out()
    ours = known_issues.shipped()
    for row, vector in enumerate(ours.vectors):
        theirs = {names[column]: value for column, value in zip(matrix[row].indices, matrix[row].data, strict=True)}
        assert theirs == pytest.approx(vector)
    asked = ["ValueError: Template foo does not exist.", "CUDA error: device-side assert triggered in embedding", *signatures[::25]]
    distances, _ = neighbors.NearestNeighbors(n_neighbors=10, metric="cosine").fit(matrix).kneighbors(vectorizer.transform(asked))
    for query, row in zip(asked, distances, strict=True):
        scores = [score for score, _ in ours.nearest(query)][:10]
        assert [1 - distance for distance in row if distance < 1 - 1e-9] == pytest.approx(scores, abs=1e-9)


def test_a_failure_that_no_rule_knows_is_told_its_nearest_issue(tmp_path, monkeypatch):
    """Without a cause the report still names the public issue with the same error, in the report's language."""
    monkeypatch.setattr(learned, "opinions_on", lambda *_: [])
    known = next(known for known in KNOWN if known.issue == "huggingface/transformers#21482")
    plain = report_of(tmp_path, UNKNOWN.format(message=known.signature))
    assert plain.cause is None
    assert told(plain)[0].issue == known.issue
    assert told(plain)[0].score >= known_issues.UNKNOWN_CAUSE
    assert told(plain)[0].remedy == known.fix.en
    assert told(doctor.analyze(tmp_path, lang="ko"))[0].remedy == known.fix.ko


def test_a_failure_like_nothing_known_is_told_nothing(tmp_path):
    """Below the threshold the report is silent."""
    assert told(report_of(tmp_path, UNKNOWN.format(message="stage table is empty, ask the night shift"))) == []


def test_a_found_cause_is_told_issues_of_that_cause_only(tmp_path):
    """Issues of other causes are not told, however alike they are."""
    report = report_of(tmp_path, TEMPLATE)
    causes = {one.issue: one.cause for one in KNOWN}
    assert report.cause in causes.values()
    assert told(report)
    assert {causes[one.issue] for one in told(report)} == {report.cause}


def test_the_nearest_come_first_and_not_all_with_one_fix(tmp_path):
    """At most three issues, nearest first, at most two of one fix."""
    report = report_of(tmp_path, TEMPLATE)
    scores = [one.score for one in told(report)]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) <= known_issues.SHOWN
    assert max(Counter(one.remedy for one in told(report)).values()) <= 2


def test_a_healthy_run_is_not_looked_up(monkeypatch):
    """For a run without a failure the index is not even built."""

    def never():
        raise AssertionError("looked up")

    monkeypatch.setattr(known_issues, "shipped", never)
    monkeypatch.setattr(known_issues.similar_issues, "__defaults__", (never,))
    report = pipeline.analyze(ROOT / "fixtures" / "healthy-dpo")
    assert report.healthy
    with pytest.raises(AssertionError, match="looked up"):
        pipeline.analyze(ROOT / "fixtures" / "template_missing_or_unknown-name")


def test_a_config_that_is_checked_is_not_looked_up(tmp_path):
    """check() tells of what has not happened yet: there is no failure to compare."""
    (tmp_path / "train.yaml").write_text("stage: nonsense\n", encoding="utf-8")
    report = doctor.check(tmp_path / "train.yaml")
    assert not report.healthy
    assert told(report) == []


def test_an_empty_index_and_an_empty_text_are_no_trouble():
    """Nothing known, or nothing asked, gives nothing."""
    assert index().nearest("ValueError: x") == []
    assert index(("a/b#1", "unknown", "valueerror bad value")).nearest("12 / 34") == []


@pytest.mark.parametrize("damaged", ["- cause: x\n", "- {cause: x, fix: {en: a, ko: b}, issues: [1]}\n", ": :\n  -", "\x00"])
def test_a_damaged_file_is_named(tmp_path, damaged):
    """A file that cannot be read as known failures is told by its name, never by a traceback of ours."""
    path = tmp_path / "known_issues.yaml"
    path.write_text(damaged, encoding="utf-8")
    with pytest.raises(doctor.errors.DoctorError, match="known_issues"):
        known_issues.read(path)


def test_pages_for_people_show_them(tmp_path):
    """Terminal and Markdown name the issue, its likeness and what fixed it; without any, neither has the heading."""
    report = report_of(tmp_path, TEMPLATE)
    bare = msgspec.structs.replace(report, findings=[msgspec.structs.replace(one, similar=[]) for one in report.findings])
    first = told(report)[0]
    for name in ("terminal", "markdown"):
        page = REPORTERS[name](report, base.Screen(width=400))
        assert "Similar known failures" in page
        assert first.issue.split("#")[1] in page
        assert f"{first.score:.2f}" in page
        assert "Similar known failures" not in REPORTERS[name](bare, base.Screen(width=400))
    assert f"https://github.com/{first.issue.replace('#', '/issues/')}" in REPORTERS["markdown"](report)


def test_the_command_carries_them_without_heavy_imports(tmp_path):
    """`lfdoctor analyze` of a failed run tells known failures as JSON and loads neither scikit-learn nor numpy for it."""
    (tmp_path / "console.log").write_text(TEMPLATE, encoding="utf-8")
    code = (
        "import sys; from doctor.cli.main import main\n"
        f"try: main(['analyze', {str(tmp_path)!r}, '--format', 'json'])\nexcept SystemExit: pass\n"
        "print(sorted({'sklearn', 'numpy', 'pandas', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    findings = json.loads(done.stdout)["findings"]
    assert any(one["similar"] for one in findings)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_a_launchers_echo_is_not_compared(tmp_path):
    """That torchrun says a process failed proves nothing of why, so no issue is told for it."""
    echo = "subprocess.CalledProcessError: Command '['torchrun', '--nproc_per_node', '2']' returned non-zero exit status 1."
    console = f'Traceback (most recent call last):\n  File "/srv/app/cli.py", line 8, in <module>\n    sys.exit(main())\n{echo}\n'
    assert known_issues.normalise(echo) == ["subprocess"]
    assert told(report_of(tmp_path, console)) == []


class Scores:
    """An index whose nearest issues have these cosines, each with its own fix unless one is given."""

    def __init__(self, *scores: float, fix: str = "") -> None:
        self.near = [(score, known_issues.Known(f"a/b#{n}", "x", Text(fix or f"fix {n}", "-"), "s")) for n, score in enumerate(scores)]

    def nearest(self, text, cause=None):
        return self.near


def alike(cause: str, *scores: float, fix: str = "") -> list[float]:
    """The cosines of the issues that a root finding of this cause is told."""
    found = judged(rule("data/x", "x", "x", cause=cause), "root", "ValueError: x", Where("log", 1))
    return [one.score for one in known_issues.similar_issues([found], lambda: Scores(*scores, fix=fix))[0]]  # type: ignore[arg-type,return-value]


def test_the_thresholds_are_those_that_were_measured():
    """0.3 for an issue of the cause that was found; 0.45 where no cause is known (benchmarks/known_issues.py)."""
    assert alike("template_missing", 0.31, 0.29) == [0.31]
    assert alike("unknown", 0.46, 0.44, 0.31) == [0.46]


def test_three_issues_at_most_and_two_of_one_fix():
    """More say nothing new."""
    assert alike("template_missing", 0.9, 0.8, 0.7, 0.6) == [0.9, 0.8, 0.7]
    assert alike("template_missing", 0.9, 0.8, 0.7, fix="the same") == [0.9, 0.8]


SIGNATURE = "the value head of the reward model could not be merged into the quantized base"


@pytest.mark.parametrize(("stage", "shown"), [("sft", ["a/b#2"]), ("rm", ["a/b#1", "a/b#2"]), (None, ["a/b#1", "a/b#2"])])
def test_an_issue_whose_cause_the_stage_cannot_have_is_hidden(stage, shown):
    """A reward model's trouble is none of supervised tuning; without a known stage nothing is hidden."""
    entries = index(("a/b#1", "reward_model_problem", SIGNATURE), ("a/b#2", "disk_full", f"{SIGNATURE} today"))
    found = judged(rule("environment/unknown-exception", "x", "x", cause="unknown"), "root", SIGNATURE, Where("log", 1))
    issues = known_issues.similar_issues([found], lambda: entries, stage=stage)[0]
    assert sorted(one.issue for one in issues) == shown


def test_an_issue_of_none_of_the_possible_causes_is_hidden():
    """The report names candidates: an issue of another cause beside them would contradict them."""
    entries = index(("a/b#1", "port_in_use", SIGNATURE), ("a/b#2", "disk_full", f"{SIGNATURE} today"))
    found = judged(rule("environment/unknown-exception", "x", "x", cause="unknown"), "root", SIGNATURE, Where("log", 1))
    note = Text(en="x", ko="x", zh="x")
    finding = msgspec.structs.replace(
        found.finding, candidates=(Candidate(cause="disk_full", probability=0.6, reasons=(), title=note, check=note),)
    )
    ranked = msgspec.structs.replace(found, finding=finding)
    assert [one.issue for one in known_issues.similar_issues([ranked], lambda: entries)[0]] == ["a/b#2"]


@pytest.mark.parametrize(
    ("config", "stage"), [({"stage": "dpo"}, "dpo"), ({"stage": "sft", "export_dir": "merged"}, "export"), ({"lr": 1}, None)]
)
def test_the_stage_of_a_config(config, stage):
    """An export has no stage of its own; without either it is not known."""
    assert known_issues.stage_of(config) == stage
