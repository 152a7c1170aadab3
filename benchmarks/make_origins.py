"""Writes doctor/diagnosis/unlisted/origins.msgpack: where LLaMA-Factory's stack raises which messages (docs/origins.md).

    make_origins.py [--cache FOLDER] [--checkout llamafactory@main=FOLDER] [--newest PACKAGE=VERSION ...] [--out FILE]

Releases that the cache folder lacks are downloaded with pip; nothing of them is installed or run, but for the sdist of DeepSpeed, which
exists in no other form. `--newest` leaves out later releases.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from origin_packages import STACK, checkout_sources, downloaded, release_sources, releases
from origin_store import Collected, write

from doctor.diagnosis.unlisted.origin_index import FILE


def main() -> None:
    """Download, read, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "lfdoctor-origins")
    parser.add_argument("--checkout", action="append", default=[], metavar="PACKAGE@NAME=FOLDER")
    parser.add_argument("--newest", action="append", default=[], metavar="PACKAGE=VERSION")
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args()
    caps = dict(text.split("=") for text in given.newest)
    collected = Collected()
    collected.load_parsed(given.cache)
    checkouts = [place.partition("=") for place in given.checkout]
    spent = 0.0
    for package in STACK:
        wanted = releases(package, given.cache, caps.get(package.name))
        archives = [(version, file) for version in wanted if (file := downloaded(package, version, given.cache)) is not None]
        begin = time.perf_counter()
        sources = [(version, release_sources(package, file)) for version, file in archives]
        named = [(place.partition("@"), Path(folder)) for place, _, folder in checkouts]
        sources += [(version, checkout_sources(package, folder)) for (name, _, version), folder in named if name == package.name]
        collected.add(package.module, sources)
        collected.save_parsed(given.cache)
        spent += time.perf_counter() - begin
        print(f"{package.name}: {len(sources)} releases, {len(collected.templates)} templates so far, {spent:.0f} s", flush=True)
    begin = time.perf_counter()
    count = write(collected, given.out)
    spent += time.perf_counter() - begin
    print(f"{count} templates, {given.out.stat().st_size / 1e6:.2f} MB, {spent:.0f} s without downloads", file=sys.stderr)


if __name__ == "__main__":
    main()
