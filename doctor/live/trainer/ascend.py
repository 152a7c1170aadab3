"""Readings of Ascend NPUs from the table of `npu-smi info`, the documented tool of the driver.

Its columns: https://support.huawei.com/enterprise/en/doc/EDOC1100079287 (npu-smi command reference, "info"). Two lines a chip: NPU, name,
health, power, temperature; then chip, (physical id,) bus id, AI core load, memory, HBM. Which chips a run sees: ASCEND_RT_VISIBLE_DEVICES,
logical ids in the table's order (https://www.hiascend.com/document/detail/en/canncommercial/850/maintenref/envvar/envref_07_0028.html).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

PERIOD_SECONDS = 30.0
"""Between two calls: one takes about a second of a core."""
LIMIT_SECONDS = 60.0
"""A call that has not ended by then is ended: the driver hangs."""
MIB_PER_GIB = 1024
_PAIR = re.compile(r"(\d+)\s*/\s*(\d+)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Ascend:
    """`read()` gives `gpu.<logical id>.<figure>`; the table is asked for in the background, and a reading is given once.

    The recorder's thread never waits for the tool: a call that is started now is read by a later `read()`.
    """

    def __init__(self) -> None:
        self._tool = shutil.which("npu-smi")
        self._child: subprocess.Popen[str] | None = None
        self._begun = float("-inf")
        self.indices: list[int] = []

    def read(self) -> dict[str, float]:
        """What the last call said, if it is new; never raises."""
        out: dict[str, float] = {}
        with contextlib.suppress(Exception):
            out = self._collect()
            self._start()
        return out

    def _start(self) -> None:
        if self._tool is None or self._child is not None or time.monotonic() < self._begun + PERIOD_SECONDS:
            return
        self._begun = time.monotonic()
        quiet = subprocess.DEVNULL
        self._child = subprocess.Popen(  # noqa: S603  the driver's own tool
            [self._tool, "info"], stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True, errors="replace"
        )

    def _collect(self) -> dict[str, float]:
        child = self._child
        if child is None:
            return {}
        if child.poll() is None:
            if time.monotonic() > self._begun + LIMIT_SECONDS:
                child.kill()
                self._tool = None  # it would hang again
            return {}
        self._child = None
        text = child.communicate()[0]
        chips = list(chips_of(text))
        self.indices = list(visible(os.environ.get("ASCEND_RT_VISIBLE_DEVICES"), len(chips)))
        return {f"gpu.{index}.{name}": value for index in self.indices for name, value in chips[index].items()}


def chips_of(text: str) -> Iterator[dict[str, float]]:
    """The figures of each chip in the table's order; what a cell does not tell ("-", "NA") is left out."""
    upper: list[str] = []
    for line in text.splitlines():
        if "Process id" in line:  # the second table
            return
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3 or not cells[0][:1].isdigit():
            continue
        words = cells[2].split()
        if ":" in cells[1] or cells[1] == "NA":  # a bus id: the chip's own line
            yield _figures(upper, words[:1], cells[2])
        else:
            upper = words


def _figures(upper: list[str], load: list[str], memory: str) -> dict[str, float]:
    """Of one chip: power and temperature stand in the line above. HBM is the last pair; NPUs without it have memory only."""
    given = zip(("power_watts", "temperature_c", "util_percent"), [*(*upper, "", "")[:2], *load], strict=False)
    out = {name: float(value) for name, value in given if _NUMBER.fullmatch(value)}
    used, total = next((pair for pair in reversed(_PAIR.findall(memory)) if int(pair[1])), (0, 0))
    if total:
        out |= {"used_gib": round(int(used) / MIB_PER_GIB, 3), "total_gib": round(int(total) / MIB_PER_GIB, 3)}
    return out


def visible(named: str | None, count: int) -> Iterator[int]:
    """The logical ids in ASCEND_RT_VISIBLE_DEVICES (None: all of `count`); what stands behind another character is not read."""
    if named is None:
        yield from range(count)
        return
    for entry in named.split(","):
        if not entry.isdigit() or int(entry) >= count:
            return
        yield int(entry)
