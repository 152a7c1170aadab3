"""MultiSearch finds exactly the literals that occur, in time linear in the text."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from doctor.support.literal_search import MultiSearch

WORDS = st.sampled_from(["loss", "CUDA out of memory", "memory", "mem", "nan", "NaN", ": ", "é", "out of", "x", "_memory_", "rank0"])
TEXTS = st.lists(WORDS | st.text("aemory nx:é\n", max_size=9), max_size=30).map("".join)


@given(st.lists(WORDS | st.text("aemory nx:", min_size=1, max_size=9), max_size=20), st.lists(TEXTS, max_size=5))
def test_it_finds_what_in_finds(literals, texts):
    """The same set as one `in` a literal, each once, for text and for bytes."""
    search, in_bytes = MultiSearch(literals), MultiSearch([literal.encode() for literal in literals])
    for text in texts:
        found = search.find(text)
        assert set(found) == {literal for literal in literals if literal in text}
        assert len(found) == len(set(found))
        assert set(in_bytes.find(text.encode())) == {literal.encode() for literal in literals if literal in text}


def test_a_line_of_500_kilobytes_takes_a_moment():
    """1,000 literals that all share words with a line of 500 kB take seconds; searching again for every word took minutes."""
    literals = [f"word{number} of the {number}" for number in range(500)] + [f"token {number}: the" for number in range(500)]
    line = " ".join(f"word{number % 500} token of the" for number in range(25_000))
    search = MultiSearch(literals)
    start = time.process_time()
    search.find(line)
    assert time.process_time() - start < 8.0
