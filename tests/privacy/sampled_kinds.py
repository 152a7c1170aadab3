"""Kinds drawn by lot from the rules of gitleaks and trufflehog after the patterns were frozen: those that leaked (see docs/secrets.md)."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from tests.secrets import HEX, LETTERS, _of, _uuid, _with

Maker = Callable[[random.Random], str]
LOWER, UPPER = string.ascii_lowercase + string.digits, string.ascii_uppercase + string.digits


def _groups(alphabet: str, *lengths: int) -> Maker:
    """Runs of letters with hyphens between them."""
    return lambda dice: "-".join(_of(alphabet, length)(dice) for length in lengths)


def _dense(dice: random.Random) -> str:
    """32 small letters and digits, a digit in six places at least: too few would make a word."""
    letters = [dice.choice(string.ascii_lowercase) for _ in range(32)]
    for at in range(2, 32, 5):
        letters[at] = dice.choice(string.digits)
    return "".join(letters)


SAMPLED: dict[str, tuple[Maker, str]] = {
    "1password secret key": (lambda dice: "A3-79K" + _groups(UPPER, 3, 6, 5, 5, 5)(dice) + "7", "using 1password key {}"),
    "aviationstack": (_dense, "Namespace(model='qwen', aviationstack_key='{}', seed=1)"),
    "twelvedata": (_dense, "TwelvedataError: invalid key {}"),
    "flickr": (_dense, "python run.py --flickr_key={} --seed 1"),
    "onfleet": (_dense, "using onfleet key {}"),
    "holistic": (_of(HEX, 64), "using holistic key {}"),
    "zoho": (lambda dice: f"1000.{_of(HEX, 32)(dice)}.{_of(HEX, 32)(dice)}", "llamafactory-cli train a.yaml --zohocrm-key {}"),
    "logz.io": (lambda dice: "z9" + _groups(LOWER, 6, 4, 4, 4, 12)(dice), "connecting with {} ..."),
    "tokeet": (_uuid, "TokeetError: invalid key {}"),
    "robinhood crypto": (lambda dice: "rh-api-" + _uuid(dice).upper(), "RobinhoodError: refused {}"),
    "facebook app": (lambda dice: f"{dice.randrange(10**15, 10**16)}|{_of(LETTERS, 27)(dice)}", '"facebookApiToken": "{}",'),
    "lob public": (_with("test_pub_", HEX, 31), "['python', 'train.py', '{}']"),
    "lob in a list": (_with("test_pub_", HEX, 31), '"args": ["--lob-api-key", "{}"]'),
    "new relic browser": (_with("NRJS-", HEX, 19), "['python', 'train.py', '{}']"),
    "quoted for a shell": (_dense, "llamafactory-cli train 'Namespace(kucoin_token='\"'\"'{}'\"'\"', seed=1)'"),
    "password in a list": (_of(LETTERS, 14), '["--dotdigital-pass", "{}"]'),
}
"""Kind -> how one looks, and a line that holds one."""
