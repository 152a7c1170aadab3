"""What holds for every test."""

import os

from hypothesis import settings

# a busy machine is no failure; the same examples in every run, new ones where somebody asks for many
settings.register_profile("ours", deadline=None, derandomize="LFDOCTOR_FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("ours")
