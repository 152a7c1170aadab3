"""What is written into a tracker: the verdict, the root cause and the report as Markdown, under names of our own."""

from __future__ import annotations

from dataclasses import dataclass

from doctor.privacy.secrets import mask
from doctor.report.model import Report
from doctor.reporters.markdown import Document
from doctor.words import catalogue

MAX_CHARS = 5000
"""Of a text: MLflow takes tags of 5,000 characters (mlflow/utils/validation.py MAX_TAG_VAL_LENGTH before 2.15, 8,000 since)."""
CUT = "\n\n[...]"


@dataclass(frozen=True)
class Note:
    """The texts; secrets in them are masked. `step` is the run's last step, 0 if unknown."""

    verdict: str
    cause: str
    text: str
    step: int

    @classmethod
    def of(cls, report: Report) -> Note:
        """The report without its folded parts: what was read and what was not checked stays where the run is."""
        blocks = Document(report, catalogue.load(report.lang)).blocks()
        text = mask("\n\n".join(block for block in blocks if block and not block.startswith("<details>")))
        short = text if len(text) <= MAX_CHARS else text[: MAX_CHARS - len(CUT)] + CUT
        return cls(report.verdict, report.cause or "none", short, report.run.steps.last or 0)

    @property
    def title(self) -> str:
        """Verdict and cause in one line."""
        return f"lfdoctor: {self.verdict}, {self.cause}" if self.cause != "none" else f"lfdoctor: {self.verdict}"

    @property
    def entries(self) -> dict[str, str]:
        """The texts by the names under which trackers with tags or a summary keep them."""
        return {"lfdoctor.verdict": self.verdict, "lfdoctor.cause": self.cause, "lfdoctor.report": self.text}
