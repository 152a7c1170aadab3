"""Feed healthy but nasty training curves to everything that may stop or restart a run; prints what was harmed.

python -m tests.live.healthy [--set second]
"""

from __future__ import annotations

import argparse
import random

from tests.live.healthy.first import FIRST
from tests.live.healthy.harm import harm
from tests.live.healthy.second import SECOND

SETS = {"first": FIRST, "second": SECOND}


def main() -> None:
    """Print one line for each curve that is not left alone, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=sorted(SETS), default="first")
    given = parser.parse_args()
    results = {name: harm(shape(random.Random(name))) for name, shape in SETS[given.set].items()}
    for name, result in results.items():
        if result.told or result.stopped or result.restarted:
            print(f"{name}: stopped {result.stopped}, restarted {result.restarted}, {', '.join(result.told)}")
    stopped, restarted = sum(r.stopped is not None for r in results.values()), sum(r.restarted for r in results.values())
    errors = sum(result.error for result in results.values())
    print(f"{len(results)} healthy curves: {stopped} stopped, {restarted} restarted, {errors} with an error")


if __name__ == "__main__":
    main()
