"""The languages of the reports. Each is a name here, a field of `Text`, and an entry in every text of the rules and of doctor/words."""

from __future__ import annotations

LANGUAGES = ("en", "ko", "zh")
