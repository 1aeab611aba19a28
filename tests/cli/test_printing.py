"""Output on a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import json
import sys
from typing import Literal

import pytest
from harasocial_dispatch.cli.output import printing
from harasocial_dispatch.cli.output.printing import (
    GAP,
    Cell,
    Column,
    fitted_widths,
    json_text,
    kept_columns,
    print_table,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

HOSTILE = "\x1b[31mred\x1b[0m [bold]x[/bold]\x00\x07\x9b2J\r\n\u202eevil\ud800"


@given(st.text())
@example("\x00\x7f\x9b\u2028\ud800")
def test_json_is_printable_ascii_with_the_same_value(text: str) -> None:
    """The output has no control characters, and parsing it returns the same value."""
    written = json_text({"text": text})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {"text": text}


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_texts_are_sanitized(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    """Escape sequences and rich's markup have no effect, on a terminal or in a file."""
    monkeypatch.setattr(printing, "is_terminal", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    print_table([Column("message")], [[HOSTILE], [Cell(HOSTILE, "red")]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert all("[31mred [0m [bold]x[/bold]" in line for line in lines[1:])


def test_without_a_terminal_a_table_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are complete, for programs such as grep."""
    long = "x" * 300
    print_table([Column("id"), Column("n", right=True), Column("text", fit="cut")],
                [["1", "5", long], ["22", "10", ""]])  # fmt: skip
    assert capsys.readouterr().out.splitlines() == ["id   n  text", f"1    5  {long}", "22  10"]


@pytest.mark.parametrize("missing", ["rich.cells", "rich.console"])
def test_without_rich_a_terminal_gets_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    """The extra `cli` is optional."""
    monkeypatch.setattr(printing, "is_terminal", lambda: True)
    monkeypatch.setitem(sys.modules, missing, None)
    print_table([Column("state")], [[Cell("failed", "red")]])
    assert capsys.readouterr().out == "state\nfailed\n"


@pytest.mark.parametrize("width", ["20", "60", "200"])
def test_on_a_terminal_of_any_width_an_id_stays_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: str
) -> None:
    """Ids are never cut, so that they can be copied. Long texts are cut instead."""
    monkeypatch.setattr(printing, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", width)
    job_id = "0123456789abcdef0123456789abcdef"
    print_table([Column("job id"), Column("message", fit="cut")], [[job_id, "m" * 300]])
    out = capsys.readouterr().out
    assert job_id in out
    assert "…" in out
    assert len(out.splitlines()) == 2


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["whole", "cut", "wrap"]), st.integers(3, 300)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 400),
)
def test_column_widths_fit_the_terminal_if_possible(
    columns: list[tuple[Literal["whole", "cut", "wrap"], int]], terminal_width: int
) -> None:
    """Fixed columns keep their width. The others fill the terminal, if possible."""
    layout = [Column("abc", fit=fit) for fit, _ in columns]
    widest = [width for _, width in columns]
    widths = fitted_widths(layout, widest, terminal_width)
    for column, natural, width in zip(layout, widest, widths, strict=True):
        assert width == natural if column.fit == "whole" else 3 <= width <= natural
    narrowest = sum(
        n if c.fit == "whole" else min(n, 8) for c, n in zip(layout, widest, strict=True)
    )
    gaps = GAP * (len(widths) - 1)
    assert sum(widths) + gaps <= max(terminal_width, narrowest + gaps)
    if sum(widest) + gaps <= terminal_width:
        assert widths == widest


#: As in `results`: a time, a state, a code, a page, a payload, an id, a message.
RESULTS = (
    [
        *(Column("time"), Column("state"), Column("error_code"), Column("page", spare=2)),
        *(Column("payload", fit="cut", spare=3), Column("job id")),
        Column("message", fit="cut", spare=1),
    ],
    [19, 8, 15, 15, 68, 32, 200],
)


@pytest.mark.parametrize(
    ("terminal_width", "left_out"),
    [(200, []), (149, []), (148, ["payload"]), (122, ["page", "payload"]),
     (105, ["page", "payload", "message"]), (80, ["page", "payload", "message"]),
     (40, ["page", "payload", "message"])],
)  # fmt: skip
def test_a_narrow_terminal_omits_optional_columns(terminal_width: int, left_out: list[str]) -> None:
    """Columns are omitted before texts become too short; `show` prints everything."""
    columns, widest = RESULTS
    kept = kept_columns(columns, widest, terminal_width)
    assert [c.title for i, c in enumerate(columns) if i not in kept] == left_out


def test_on_a_dumb_terminal_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The width of a dumb terminal is unknown."""
    monkeypatch.setattr(printing, "is_terminal", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table([Column("message", fit="cut")], [["m" * 300]])
    assert capsys.readouterr().out == f"message\n{'m' * 300}\n"
