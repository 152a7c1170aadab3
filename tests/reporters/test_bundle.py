"""The preview of a bundle: what was masked, short enough to be read before it is sent."""

from __future__ import annotations

from doctor.reporters.bundle import Bundle, Masker

SECRET = "hf_" + "a1B2" * 9


def test_the_preview_shows_the_beginning_of_the_first_masked_lines_of_a_file() -> None:
    """200 characters of each, 20 lines of a file; all are counted."""
    masker = Masker()
    masker.text(
        "\n".join([f"token {SECRET} " + "x" * 300, "nothing to hide", *(f"{number}: {SECRET}" for number in range(30))]), "console.log"
    )
    assert [len(line) for line in masker.lines["console.log"]][:1] == [200]
    assert len(masker.lines["console.log"]) == 20
    preview = Bundle({"console.log": "..."}, dict(masker.masked), masker.lines).preview()
    assert "- console.log: 31 places" in preview
    assert SECRET not in preview
    assert "nothing to hide" not in preview
