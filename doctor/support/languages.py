"""The languages of the reports: one more is a name here, its `words/<name>.yaml`, and a field of that name in every text of the rules."""

from __future__ import annotations

LANGUAGES = ("en", "ko", "zh")
