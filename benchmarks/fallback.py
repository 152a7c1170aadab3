"""How well a failure is told that no rule lists: decision table and classifier alone, with every rule off.

    python benchmarks/fallback.py [CASES] [--by table|classifier|both] [--without SOURCE|KIND] [--add-cases] [--calibrate] [--show]

CASES is a folder of JSON files {issue, cause, also_accepted, family, log, config, decidable}: public failures labelled by a person. Without
it only the threads of benchmarks/data/failure_threads.yaml are asked. Printed for each set:
  near1     the first cause is the label or one that is accepted too      top1    ... is the label
  first3    ... is among the first three                                  family  the first is of the family of an accepted cause
  likely    answers called "likely", and how many per cent of them are wrong
  ece       expected calibration error, in points: the distance of the stated probability from the share of right answers, in ten bins
`--without` trains anew without a source of examples or a kind of token (ablation); `--add-cases` trains anew with the cases of all other
repositories; both leave the shipped model as it is. `--calibrate` fits the calibration on the cases, prints the figures of fits that each
left a fold of repositories out, and writes benchmarks/data/classifier_calibration.yaml.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classifier_examples import DATA, ROOT, Example, counts_of, examples, seen_in, with_frames, write_run
from train_classifier import CALIBRATION, train, with_calibration

from doctor.diagnosis.unlisted import classifier
from doctor.diagnosis.unlisted.answer import concluded
from doctor.diagnosis.unlisted.classifier import FAMILIAR, LIKELY, Classifier, calibrated, shipped
from doctor.diagnosis.unlisted.tokens import tokens

FOLDS = 4
"""Groups of repositories; the largest repository is one by itself."""
TABLE_SURE = {"likely": 0.9, "possible": 0.6}
"""What a row's word is taken for where probabilities are asked."""


class Case(NamedTuple):
    """A labelled failure: its tokens, what the decision table concludes, and its repository."""

    name: str
    repository: str
    cause: str
    accepted: frozenset[str]
    family: str
    counts: dict[str, float]
    concluded: tuple[str, float] | None


class Answer(NamedTuple):
    """Causes, most probable first, and the probability of the first."""

    causes: list[str]
    probability: float


def families() -> dict[str, str]:
    """Cause -> the folder of its rules, which is its family."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.glob("rules/*/*.yaml")):
        found.setdefault(str(yaml.safe_load(path.read_text(encoding="utf-8"))["cause"]), path.parent.name)
    for row in yaml.safe_load((ROOT / "rules/exceptions.yaml").read_text(encoding="utf-8")):
        found.setdefault(row["cause"], row["family"])
    return found


def cases_in(folder: Path) -> list[Case]:
    """The decidable failures of a folder. A label `other:NAME` is the cause NAME, which the labels' own list lacks."""
    out = []
    for path in sorted(folder.glob("*.json")):
        case = json.loads(path.read_text(encoding="utf-8"))
        if not case["decidable"] or case["cause"] == "healthy":
            continue
        config = case.get("config")
        if isinstance(config, dict):
            config = "\n".join(f"{key}: {json.dumps(value)}" for key, value in config.items())
        label = case["cause"].removeprefix("other:")
        accepted = frozenset((label, *case.get("also_accepted", ())))
        repository = case["issue"].partition("#")[0].lower()
        out.append(_case(case["id"], repository, label, accepted, case["family"], case["log"], config))
    return out


def threads() -> list[Case]:
    """The threads whose errors this repository holds in short form."""
    known = families()
    return [
        _case(
            item["thread"],
            item["thread"].partition("#")[0].lower(),
            item["cause"],
            frozenset((item["cause"], *item.get("also", ()))),
            known.get(item["cause"], ""),
            with_frames(item["text"]),
            None,
        )
        for item in yaml.safe_load((DATA / "failure_threads.yaml").read_text(encoding="utf-8"))
    ]


def _case(name: str, repository: str, cause: str, accepted: frozenset[str], family: str, text: str, config: str | None) -> Case:
    with tempfile.TemporaryDirectory() as folder:
        run, seen, console = write_run(Path(folder), text, config)
        found = concluded(run, seen, [console])
    row = (found.rule.cause, found.confidence) if found is not None and found.rule.cause != "unknown" else None
    return Case(name, repository, cause, accepted, family, tokens(*seen_in(text, config)), row)


def by_classifier(model: Classifier) -> Callable[[Case], Answer]:
    """Answers of the classifier alone."""

    def answer(case: Case) -> Answer:
        if model.familiarity(case.counts) < FAMILIAR:
            return Answer([], 0.0)
        chances = model.probabilities(case.counts)
        best = sorted(range(len(chances)), key=lambda cause: -chances[cause])
        return Answer([model.causes[cause] for cause in best[:3]], chances[best[0]])

    return answer


def by_table(case: Case) -> Answer:
    """Answers of the decision table alone; no cause where no row holds."""
    return Answer([case.concluded[0]], case.concluded[1]) if case.concluded else Answer([], 0.0)


def by_both(model: Classifier) -> Callable[[Case], Answer]:
    """The table's cause first, unless it is but possible and the classifier is sure of another; then the classifier's."""
    learned = by_classifier(model)

    def answer(case: Case) -> Answer:
        second = learned(case)
        if case.concluded is None:
            return second
        cause, sure = case.concluded
        if second.causes and cause != second.causes[0] and sure < LIKELY and second.probability >= LIKELY:
            return second
        return Answer(
            [cause, *(other for other in second.causes if other != cause)][:3],
            max(sure, second.probability if [cause] == second.causes[:1] else 0),
        )

    return answer


def calibration_error(pairs: Sequence[tuple[float, bool]], bins: int = 10) -> float:
    """Expected calibration error of (probability, right) in points."""
    grouped: dict[int, list[tuple[float, bool]]] = {}
    for probability, right in pairs:
        grouped.setdefault(min(bins - 1, int(probability * bins)), []).append((probability, right))
    gaps = (abs(sum(probability for probability, _ in group) - sum(right for _, right in group)) for group in grouped.values())
    return 100 * sum(gaps) / len(pairs)


def report(name: str, cases: Sequence[Case], answers: Sequence[Answer], show: bool = False) -> None:
    """One line of figures for a set of cases, and the wrong answers where asked."""
    known = families()
    near = [bool(answer.causes) and answer.causes[0] in case.accepted for case, answer in zip(cases, answers, strict=True)]
    top = sum(answer.causes[:1] == [case.cause] for case, answer in zip(cases, answers, strict=True))
    first = sum(not case.accepted.isdisjoint(answer.causes) for case, answer in zip(cases, answers, strict=True))
    family = sum(
        bool(answer.causes) and known.get(answer.causes[0]) in {case.family, *map(known.get, case.accepted)}
        for case, answer in zip(cases, answers, strict=True)
    )
    likely = [right for right, answer in zip(near, answers, strict=True) if answer.probability >= LIKELY]
    pairs = [(answer.probability, right) for right, answer in zip(near, answers, strict=True) if answer.causes]
    wrong = 100 * likely.count(False) / len(likely) if likely else 0.0
    figures = {"near1": sum(near), "top1": top, "first3": first, "family": family}
    shown = "  ".join(f"{key} {100 * value / len(cases):.1f}" for key, value in figures.items())
    silent = sum(not answer.causes for answer in answers)
    print(
        f"{name}: n {len(cases)}  {shown}  silent {silent}  likely {len(likely)}, wrong {wrong:.1f} %  ece {calibration_error(pairs):.1f}"
    )
    for case, answer, right in sorted(zip(cases, answers, near, strict=True), key=lambda item: -item[1].probability) if show else ():
        if not right:
            print(f"  {answer.probability:.2f} {case.name}: {case.cause}, not {answer.causes}")


def folds(cases: Sequence[Case]) -> dict[str, int]:
    """Repository -> fold."""
    number = Counter(case.repository for case in cases)
    names = sorted(number, key=lambda name: (-number[name], name))
    return {name: 0 if place == 0 else 1 + place % (FOLDS - 1) for place, name in enumerate(names)}


def held_out(cases: Sequence[Case], found: Sequence[Example]) -> list[Answer]:
    """Answers of models that were trained with the cases of all other folds' repositories."""
    fold, answers = folds(cases), [Answer([], 0.0)] * len(cases)
    texts = [counts_of(example.text) for example in found]
    for left in range(FOLDS):
        others = [case for case in cases if fold[case.repository] != left]
        added = [*found, *(Example("cases", case.cause, "") for case in others)]
        model = Classifier(with_calibration(train(added, [*texts, *(case.counts for case in others)])))
        for place, case in enumerate(cases):
            if fold[case.repository] == left:
                answers[place] = by_classifier(model)(case)
    return answers


def foreign() -> list[Case]:
    """Failures of other programs: no cause is right."""
    lines = yaml.safe_load((DATA / "foreign_messages.yaml").read_text(encoding="utf-8"))
    return [Case(f"foreign {number}", "", "", frozenset(), "", counts_of(with_frames(line)), None) for number, line in enumerate(lines)]


def calibrate(cases: Sequence[Case], model: Classifier) -> list[Answer]:
    """Answers whose probabilities were fitted without their fold; writes the fit over all cases."""
    logits = [_logit(max(model.scores(case.counts))) for case in cases]
    answers = [by_classifier(model)(case) for case in cases]
    right = [not case.accepted.isdisjoint(answer.causes[:1]) for case, answer in zip(cases, answers, strict=True)]
    fold = folds(cases)
    for left in range(FOLDS):
        kept = [place for place, case in enumerate(cases) if fold[case.repository] != left and answers[place].causes]
        weights = _fitted([logits[place] for place in kept], [right[place] for place in kept])
        for place, case in enumerate(cases):
            if fold[case.repository] == left and answers[place].causes:
                answers[place] = answers[place]._replace(probability=calibrated(_share(logits[place]), weights))
    judged = [place for place, answer in enumerate(answers) if answer.causes]
    constant, by_score = _fitted([logits[place] for place in judged], [right[place] for place in judged])
    CALIBRATION.write_text(
        "# Written by benchmarks/fallback.py --calibrate; see classifier.calibrated.\n"
        f"constant: {constant:.4f}\nby_score: {by_score:.4f}\ncases: {len(cases)}\nrepositories: {len(fold)}\n",
        encoding="utf-8",
    )
    return answers


def _fitted(logits: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=10.0).fit([[logit] for logit in logits], right)
    return float(fit.intercept_[0]), float(fit.coef_[0][0])


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _logit(score: float) -> float:
    inside = min(max(score, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))


def model_without(left_out: str) -> Classifier:
    """A model trained without a source of examples, or without a kind of token."""
    found = [example for example in examples() if example.source != left_out]
    weights = dict(classifier.KIND_WEIGHTS)
    texts = [
        {token: count for token, count in counts_of(example.text).items() if not token.startswith(f"{left_out} ")} for example in found
    ]
    if len(found) == len(examples()) and left_out not in weights:
        raise SystemExit(f"{left_out} is no source and no kind of token")
    return Classifier(with_calibration(train(found, texts)))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="?")
    parser.add_argument("--by", choices=("table", "classifier", "both"), default="classifier")
    parser.add_argument("--without")
    parser.add_argument("--add-cases", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    sets = {"threads": threads()} | ({"cases": cases_in(options.cases)} if options.cases else {})
    if options.calibrate:
        report("cases, each fold calibrated on the others", sets["cases"], calibrate(sets["cases"], shipped()), options.show)
        return
    if options.add_cases:
        report("cases, trained with other repositories'", sets["cases"], held_out(sets["cases"], examples()), options.show)
        return
    model = model_without(options.without) if options.without else shipped()
    answer = {"table": by_table, "classifier": by_classifier(model), "both": by_both(model)}[options.by]
    sure = sorted((by_classifier(model)(case).probability for case in foreign()), reverse=True)
    print(f"foreign failures: n {len(sure)}  highest probabilities {[round(one, 2) for one in sure[:5]]}")
    for name, cases in sets.items():
        report(name, cases, [answer(case) for case in cases], options.show)


if __name__ == "__main__":
    main()
