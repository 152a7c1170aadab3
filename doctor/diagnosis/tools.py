"""Rules, detectors and plugins of this installation, loaded in one place: for analyses of files and for live monitoring."""

from __future__ import annotations

from typing import Any

import msgspec

from doctor import plugins
from doctor.detectors.config_registry import OF_CONFIGS
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
        from doctor.detectors.registry import DETECTORS  # all detectors: not for the check of a configuration

        added = plugins.load()
        detectors = {**added.detectors, **DETECTORS}
        return cls(loader.load(added.rules, detectors=detectors if added.rules else None), added, detectors)

    @classmethod
    def for_configs(cls) -> Tools:
        """As `load`; without plugins only the detectors that look at configurations."""
        added = plugins.load()
        return cls.load() if added.rules or added.detectors else cls(loader.load(), added, dict(OF_CONFIGS))
