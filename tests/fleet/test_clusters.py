"""Unknown failures: alike ones are one cluster, and a cluster becomes a rule that keeps its own examples."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.cli.main import main
from doctor.diagnosis.pipeline import run_analysis
from doctor.errors import DoctorError
from doctor.fleet.output import draft
from doctor.fleet.output.clusters import Cluster, Failure, cluster, find
from doctor.fleet.scan import fingerprint

LOST = "LookupError: the teapot service at {host}:{port} refused shard {shard} of corpus tea/{name}"
FROZEN = "RuntimeError: frobnicator {number} is frozen solid, thaw it with --defrost before training"


def failures():
    lines = [LOST.format(host=f"node{i}", port=9000 + i, shard=i, name=f"{i}.bin") for i in range(4)]
    lines += [f"LookupError: the teapot service at node{i} refused shard {i} of corpus tea, twice" for i in range(2)]
    lines += [FROZEN.format(number=i) for i in range(3)]
    return [Failure(f"{place:012x}", line, 2 if place else 5, [f"run{place}"]) for place, line in enumerate(lines)]


def test_alike_failures_are_one_cluster():
    """Two kinds of failures, in several wordings, are two clusters; the typical line is one of its own; all runs are counted."""
    made = cluster(failures())
    assert [one.count for one in made] == [15, 6]
    assert {line.split()[0] for line in made[0].lines} == {"LookupError:"}
    assert {line.split()[0] for line in made[1].lines} == {"RuntimeError:"}
    assert made[0].line in made[0].lines
    assert find(made, made[1].fingerprints[-1]) is made[1]
    assert cluster([]) == []


def test_clusters_do_not_depend_on_the_order():
    assert cluster(failures()) == cluster(failures()[::-1])


def test_a_draft_matches_its_cluster_and_no_other():
    """The draft parses as a rule, keeps its examples, and its pattern holds no value of one run."""
    made = cluster(failures())
    for one in made:
        rule = draft.draft(one, made)
        assert draft.problems(rule) == []
        when = yaml.safe_load(rule.text)["when"]["log_pattern"]
        assert not any(character.isdigit() for character in when["any_of"][0].replace("{0,200}", ""))


def test_lines_without_anything_in_common_make_no_rule():
    with pytest.raises(DoctorError, match="too little in common"):
        draft.draft(Cluster("c1", "aa bb", 2, ["aa bb", "xx yy"], ["f"], ["r"]), [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60), min_size=1, max_size=4))
def test_whatever_the_lines_the_draft_is_a_rule_or_an_error(lines):
    """Quotes, backslashes, braces and every script survive the way through YAML and regular expression."""
    lines = [f"SomeError: common beginning {line}" for line in lines]
    made = draft.draft(Cluster("c1", lines[0], len(lines), lines, ["f"], ["r"]), [])
    assert [one for one in draft.problems(made) if "match[0]" in one] == []


def test_from_a_scan_to_a_rule_that_knows_the_failure(tmp_path, capsys):
    """Runs fail of something new; the scan clusters it, `rules draft` writes the rule, `rules test` accepts it."""
    for i in range(3):
        folder = tmp_path / "runs" / f"job{i}"
        folder.mkdir(parents=True)
        (folder / "console.log").write_text(
            f'***** Running training *****\nTraceback (most recent call last):\n  File "/a/b{i}.py", line {i}, in f\n    g()\n'
            + LOST.format(host=f"node{i}", port=9000 + i, shard=i, name=f"{i}.bin")
            + "\n",
            encoding="utf-8",
        )
    table = str(tmp_path / "runs.parquet")
    assert main(["scan", str(tmp_path / "runs"), "-o", table]) == 1
    assert "teapot" in capsys.readouterr().out
    names = {fingerprint.fingerprint(run_analysis(tmp_path / "runs" / f"job{i}").judged) for i in range(3)}
    assert len(names) == 1
    rules = tmp_path / "rules"
    assert main(["rules", "draft", names.pop(), "--scan", table, "-o", str(rules)]) == 0
    assert main(["rules", "test", str(rules)]) == 0
    assert "0 failed" in capsys.readouterr().out
    assert main(["rules", "draft", "nosuch", "--scan", table]) == 2
