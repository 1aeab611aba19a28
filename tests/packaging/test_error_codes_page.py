"""docs/error-codes.md is up to date with the table of error codes."""

from __future__ import annotations

import runpy

from support.parts import ROOT


def test_the_page_of_error_codes_is_up_to_date() -> None:
    """A code's row and its documentation cannot differ."""
    script = runpy.run_path(str(ROOT / "docs" / "error_codes.py"))
    page = (ROOT / "docs" / "error-codes.md").read_text(encoding="utf-8")
    assert page == script["page"](), "run: make docs"
