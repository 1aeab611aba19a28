"""The chart: bars cover the period, heights match the counts, and texts are escaped."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from harasocial_dispatch.flower.chart import Series, bars_of, draw, edges_ms
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"
HOUR = 3_600_000
START = 1_769_850_000_000 // HOUR * HOUR


@given(earliest=st.integers(0, 2 * 10**12), length=st.integers(0, 10 * 366 * 86_400_000))
def test_a_few_bars_cover_any_period(earliest: int, length: int) -> None:
    """Bars have equal durations, no gaps, and a limited number."""
    edges = edges_ms(earliest, earliest + length)
    assert edges[0] <= earliest
    assert earliest + length < edges[-1]
    assert len({b - a for a, b in pairwise(edges)}) == 1
    if length < 366 * 86_400_000:
        assert len(edges) <= 62


def drawn(*series: Series) -> ET.Element:
    buckets = len(series[0].counts)
    edges = [START + i * HOUR for i in range(buckets + 1)]
    totals = [sum(each.counts[i] for each in series) for i in range(buckets)]
    bars = bars_of(edges, totals, [f"/failures?n={i}&x=1" for i in range(buckets)])
    return ET.fromstring(draw(series, bars))


def heights(svg: ET.Element, rank: str) -> list[float]:
    return [float(r.attrib["height"]) for r in svg.iter(f"{SVG}rect") if r.get("class") == rank]


def test_heights_are_proportional_to_the_counts() -> None:
    """The parts of a bar are stacked within the chart."""
    svg = drawn(Series(name="551", counts=[10, 20, 0]), Series(name="190", counts=[5, 0, 0]))
    ten, twenty = heights(svg, "series-0")
    (five,) = heights(svg, "series-1")
    assert twenty == pytest.approx(2 * ten, abs=0.02)
    assert five == pytest.approx(ten / 2, abs=0.02)
    tops = [float(r.attrib["y"]) for r in svg.iter(f"{SVG}rect") if "series" in r.attrib["class"]]
    assert min(tops) >= 0


def test_each_bar_links_to_its_period_and_has_its_count() -> None:
    """Both are available to a pointer. Keyboard users have the table below."""
    svg = drawn(Series(name="551", counts=[10, 0]))
    links = list(svg.iter(f"{SVG}a"))
    assert [link.attrib["href"] for link in links] == ["/failures?n=0&x=1", "/failures?n=1&x=1"]
    assert "10 failures" in (links[0].findtext(f"{SVG}title") or "")
    assert all(link.attrib["tabindex"] == "-1" for link in links)


def test_a_name_cannot_inject_markup() -> None:
    """All texts are escaped, because the page includes the result of `draw` unescaped."""
    hostile = '"><script>alert(1)</script>'
    bars = bars_of([START, START + HOUR], [1], [f"/failures?error_code={hostile}"])
    text = draw([Series(name=hostile, counts=[1])], bars)
    assert "<script" not in text
    ET.fromstring(text)


def test_without_failures_there_are_no_bars() -> None:
    """An empty chart is valid SVG."""
    assert ET.fromstring(draw([], [])).findtext(f"{SVG}desc") == "No failures."
