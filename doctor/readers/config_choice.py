"""Which of several training configurations and DeepSpeed files in a folder belong to this run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import ConfigSeen, Event
from doctor.readers.base import Reader, is_plausible
from doctor.readers.command import Command
from doctor.readers.config_yaml import ConfigYaml, is_board, is_yaml
from doctor.readers.file import File

MAX_CONFIG = 1 << 20
"""Bytes of a YAML file that is kept for patching."""
_CONSOLE = "console"
"""Kind of the reader of consoles, whose import costs more than the check of a configuration."""
_PATCHED = re.compile(r"-patched(-\d+)?$")
"""The end of the names that patched configs get (`planner.writing.patched_name`)."""


class Chosen(msgspec.Struct):
    """What is known before the run: `events` (ConfigSeen, Fact), and the chosen YAML as (name, text) if it can be patched."""

    events: list[Event] = []
    yaml: tuple[str, str] | None = None

    def before_run(self) -> list[Event]:
        """The plausible events, ConfigSeen first."""
        return sorted(filter(is_plausible, self.events), key=lambda event: not isinstance(event, ConfigSeen))


def choose_config(files: Sequence[tuple[Reader, File]], given: File | None = None) -> Chosen:
    """Read what every file says about the run as a whole. Of the training YAMLs, only `given` or the best match is used.

    `Chosen.events` is empty of YAML options if `given` has none; the caller reports that.
    """
    chosen = Chosen()
    if given is not None:
        _use(given, list(ConfigYaml().configs(given)), chosen)
    command = Command()
    candidates: list[tuple[File, list[Event]]] = []
    for reader, file in sorted(
        files, key=lambda found: -len(found[1].path.parts)
    ):  # checkpoints first: the run's own folder has the last word
        if reader.kind == ConfigYaml.kind:
            if given is None:
                candidates.append((file, list(reader.configs(file))))
            else:
                file.source.problem("not used: another configuration was given")
            continue
        chosen.events += reader.configs(file)
        if reader.kind == _CONSOLE:
            chosen.events += command.configs(file)
    best = max(candidates, key=lambda candidate: _score(candidate[0], candidate[1], chosen.events, files), default=None)
    for file, events in candidates:
        if best is not None and file is best[0]:
            _use(file, events, chosen)
        elif events:
            file.source.problem("not used: another training configuration fits this run better")
    chosen.events = _without_other_deepspeed(chosen.events)
    return chosen


def _use(file: File, events: list[Event], chosen: Chosen) -> None:
    chosen.events += events
    text = file.text(MAX_CONFIG)
    if text is not None and any(isinstance(event, ConfigSeen) for event in events) and is_yaml(text) and not is_board(text):
        chosen.yaml = (file.name, text)


def _score(file: File, events: list[Event], known: list[Event], files: Sequence[tuple[Reader, File]]) -> tuple[int, ...]:
    """Sort key, best last: named in the command line, not a patch of ours for a later run, its output_dir is among the paths, trains at
    all, near the root, many options."""
    values = next((event.values for event in events if isinstance(event, ConfigSeen)), None)
    if values is None:
        return (-1,)
    folder = Path(str(values.get("output_dir", ""))).name
    named = any(file.path.name in str(getattr(event, "value", "")) for event in known)
    wrote_here = any(folder and folder in other.path.parts for _, other in files)
    trains = sum(key in values for key in ("do_train", "stage", "model_name_or_path"))
    return (named, not _is_patched_copy(file, files), wrote_here, trains, -len(file.path.parts), len(values))


def _is_patched_copy(file: File, files: Sequence[tuple[Reader, File]]) -> bool:
    """Whether the file is what `lfdoctor fix` made of another one in the same folder."""
    original = _PATCHED.sub("", file.path.stem) + file.path.suffix
    return original != file.path.name and any(other.path == file.path.with_name(original) for _, other in files)


def _without_other_deepspeed(events: list[Event]) -> list[Event]:
    """Keep the facts of one DeepSpeed file: the one that the configuration names, or the only one."""
    named: Any = None
    for event in events:
        if isinstance(event, ConfigSeen):
            named = event.values.get("deepspeed", named)
    facts = [event for event in events if getattr(event, "name", "").startswith("deepspeed.")]
    files = {event.where.file for event in facts}
    matching = {file for file in files if isinstance(named, str) and Path(file).name == Path(named).name} or files
    keep = matching if len(matching) == 1 else set()
    return [event for event in events if event not in facts or event.where.file in keep]
