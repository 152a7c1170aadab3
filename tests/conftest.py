"""What holds for every test."""

import os

import pytest
from hypothesis import settings

# a busy machine is no failure; the same examples in every run, new ones where somebody asks for many
settings.register_profile("ours", deadline=None, derandomize="LFDOCTOR_FUZZ_EXAMPLES" not in os.environ)
settings.load_profile("ours")


@pytest.fixture(scope="session", autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache of the parsed rules for all processes of the suite, also where a test moves HOME; the user's own is left alone."""
    os.environ["LFDOCTOR_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "lfdoctor-cache")
