"""Where the files of this package are: in a checkout or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder `doctor`."""


def is_rulebook(folder: Path) -> bool:
    """Whether a folder holds all rules (a checkout's `rules/`), not only some of somebody's own: then it has the guide's steps, too."""
    return (folder / "guide.yaml").is_file()


def rules_folder() -> Path:
    """The shipped rules: inside the wheel `doctor/rules`, in a checkout `rules/` next to the package."""
    inside = PACKAGE / "rules"
    return inside if inside.is_dir() else PACKAGE.parent / "rules"
