"""A failure that no rule lists is told with the place its message comes from, and with the cause that this place stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.diagnosis.unlisted import learned
from doctor.diagnosis.unlisted.classifier import Opinion
from doctor.report.model import FindingView

FRAMES = """\
Traceback (most recent call last):
  File "/home/me/start.py", line 12, in <module>
    main()
  File "/opt/env/lib/python3.11/site-packages/{file}", line 88, in {function}
    check()
ValueError: {message}
"""


def told(folder: Path, file: str, function: str, message: str) -> FindingView:
    (folder / "console.log").write_text(FRAMES.format(file=file, function=function, message=message))
    return analyze(folder).findings[0]


def test_a_message_of_one_place_is_told_with_package_and_function(tmp_path: Path) -> None:
    """transformers raises it when an adapter is added twice; nobody gave it a cause."""
    message = "Adapter with name first already exists. Please use a different name."
    found = told(tmp_path, "transformers/integrations/peft.py", "add_adapter", message)
    assert (found.rule, found.cause) == ("environment/unknown-exception", None)
    assert "This message comes from transformers" in found.text
    assert "`add_adapter` in transformers/integrations/peft.py" in found.text


def test_a_message_that_a_person_gave_a_cause_is_told_as_likely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sentence names the place; what would confirm the cause stands behind what cures."""
    monkeypatch.setattr(learned, "opinions_on", lambda *_: [Opinion("streaming_needs", 0.6)])
    message = "All datasets must be streaming or non-streaming."
    found = told(tmp_path, "llamafactory/v1/core/data_engine.py", "_load_dataset", message)
    assert (found.rule, found.cause) == ("config/origin", "streaming_needs")
    assert 0.7 <= found.confidence < 0.9
    assert "In the source it stands for this cause." in found.text
    assert [one.id for one in found.remedies][:2] == ["data-format", "confirm"]


def test_an_unknown_message_has_no_origin(tmp_path: Path) -> None:
    """Words that no indexed source holds."""
    found = told(tmp_path, "transformers/trainer.py", "odd", "Seven green planets cannot be folded into a teapot.")
    assert "This message comes from" not in found.text
