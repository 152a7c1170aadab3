"""Writes doctor/diagnosis/unlisted/api_index.msgpack: which releases of a training stack have which public names (docs/origins.md).

    make_api_index.py [--cache FOLDER] [--out FILE] [--only PACKAGE ...]

Releases that the cache folder lacks are downloaded with pip, as by make_origins.py; nothing of them is installed or run, but for the sdist
of DeepSpeed. `--only` reads these packages alone and writes no others.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from api_packages import PACKAGES
from api_store import Joined, Parsed, numpy_names, write
from origin_packages import downloaded, release_sources, releases

from doctor.diagnosis.unlisted.api_index import FILE


def main() -> None:
    """Download, read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "lfdoctor-origins")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--only", action="append", default=[], metavar="PACKAGE")
    given = parser.parse_args()
    parsed = Parsed(given.cache, frozenset(package.module for package in PACKAGES))
    joined: dict[str, Joined] = {}
    for package in PACKAGES:
        if given.only and package.name not in given.only:
            continue
        begin = time.perf_counter()
        one = joined[package.module] = Joined(package.module)
        for version in releases(package, given.cache, None):
            if (archive := downloaded(package, version, given.cache)) is not None:
                one.add(version, parsed.release(release_sources(package, archive)))
        parsed.save()
        print(f"{package.name}: {len(one.versions)} releases, {time.perf_counter() - begin:.0f} s", flush=True)
    if not given.only or "numpy" in given.only:
        joined["numpy"] = numpy_names()
    sizes = write(joined, given.out)
    print(f"{sum(sizes.values()) / 1e6:.2f} MB: {sizes}", file=sys.stderr)


if __name__ == "__main__":
    main()
