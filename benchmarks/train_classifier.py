"""Train the classifier of doctor/diagnosis/unlisted: `python benchmarks/train_classifier.py [--output FILE]` (scikit-learn, numpy).

Multinomial logistic regression over the tokens of benchmarks/classifier_examples.py; causes are weighted by the root of their rarity. The
weights are pruned and written as int8. Deterministic: the same sources give the same file. The calibration is not fitted here but read
from benchmarks/data/classifier_calibration.yaml, which `benchmarks/fallback.py --calibrate` writes from cases that were held out.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classifier_examples import DATA, Example, counts_of, examples

from doctor.diagnosis.unlisted.classifier import MODEL, Classifier, Stored, weighted

CALIBRATION = DATA / "classifier_calibration.yaml"
LEAST_TEXTS = {"pair": 2, "part": 2}
"""Texts in which a token of a kind must stand to be kept."""
STRENGTH = 15.0
"""Inverse of the regularisation (scikit-learn's C)."""
BALANCE = 0.5
"""A cause's examples are weighted by (average count / own count) to this power: 0 as they are, 1 all causes alike."""
LEAST_WEIGHT = 1.5
"""Weights below this, of 127, are left out."""


def vocabulary_of(texts: Sequence[Mapping[str, float]]) -> tuple[dict[str, int], list[float]]:
    """Token -> row, and the rarity of each row."""
    seen = Counter(token for text in texts for token in text)
    kept = sorted(token for token, count in seen.items() if count >= LEAST_TEXTS.get(token.partition(" ")[0], 1))
    rarity = [math.log((1 + len(texts)) / (1 + seen[token])) + 1 for token in kept]
    return {token: row for row, token in enumerate(kept)}, rarity


def matrix(texts: Sequence[Mapping[str, float]], rows: Mapping[str, int], rarity: Sequence[float]) -> Any:
    """The texts as rows of a sparse matrix."""
    from scipy.sparse import csr_matrix

    unseen = max(rarity)
    entries = [
        (text, row, value) for text, counts in enumerate(texts) for row, value in sorted(weighted(counts, rows, rarity, unseen).items())
    ]
    places, columns, values = zip(*entries, strict=True)
    return csr_matrix((values, (places, columns)), (len(texts), len(rows)), dtype="float32")


def train(found: Sequence[Example], texts: Sequence[Mapping[str, float]]) -> Stored:
    """The model of these examples, uncalibrated (its scores as they are)."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    rows, rarity = vocabulary_of(texts)
    causes = [example.cause for example in found]
    number = Counter(causes)
    weights = [(len(causes) / len(number) / number[cause]) ** BALANCE for cause in causes]
    model = LogisticRegression(C=STRENGTH, max_iter=60, tol=1e-3).fit(matrix(texts, rows, rarity), causes, weights)
    scales = np.abs(model.coef_).max(axis=1) / 127
    scaled = model.coef_ / scales[:, None]
    levels = np.where(np.abs(scaled) < LEAST_WEIGHT, 0, np.rint(scaled)).astype("int8")
    rarity_scale = max(rarity) / 127
    return Stored(
        causes=[str(cause) for cause in model.classes_],
        vocabulary="\n".join(rows),
        rarity=bytes(round(value / rarity_scale) for value in rarity),
        rarity_scale=rarity_scale,
        weights=levels.T.tobytes(),
        scales=[float(scale) for scale in scales],
        biases=[float(bias) for bias in model.intercept_],
        calibration=(0.0, 1.0),
        examples=dict(Counter(example.source for example in found)),
    )


def with_calibration(stored: Stored) -> Stored:
    """The model with the calibration of `CALIBRATION`."""
    fitted = yaml.safe_load(CALIBRATION.read_text(encoding="utf-8"))
    return msgspec.structs.replace(stored, calibration=(fitted["constant"], fitted["by_score"]))


def main() -> None:
    """Train, write, and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=MODEL)
    options = parser.parse_args()
    found = examples()
    stored = train(found, [counts_of(example.text) for example in found])
    stored = with_calibration(stored)
    data = zlib.compress(msgspec.msgpack.encode(stored), 9)
    options.output.write_bytes(data)
    rows = len(Classifier(stored).rows)
    print(f"{options.output}: {len(data) / 1024:.0f} KiB, {len(stored.causes)} causes, {rows} tokens, examples {stored.examples}")


if __name__ == "__main__":
    main()
