"""Rules, detectors and plugins of this installation, loaded in one place: for analyses of files and for live monitoring."""

from __future__ import annotations

from typing import Any

import msgspec

from doctor import plugins
from doctor.detectors.registry import DETECTORS
from doctor.plugins import Plugins
from doctor.rulebook import loader
from doctor.rulebook.model import Rulebook


class Tools(msgspec.Struct, frozen=True):
    """Rules and plugins, loaded once for many analyses."""

    book: Rulebook
    added: Plugins
    detectors: dict[str, Any]

    @classmethod
    def load(cls) -> Tools:
        """Shipped and installed ones. Raises DoctorError for an unreadable rule."""
        added = plugins.load()
        detectors = {**added.detectors, **DETECTORS}
        return cls(loader.load(added.rules, detectors=detectors if added.rules else None), added, detectors)
