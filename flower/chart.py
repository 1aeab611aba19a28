"""Draw a chart of counts over time as SVG, without scripts or external files. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise

from ..schemas import from_ms, iso_utc
from .presentation import number

#: Maximum number of series with their own color; all others are combined into one series.
MAX_SERIES = 6

_WIDTH, _HEIGHT = 960, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 8, 12, 26
_LABEL_WIDTH = 100
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

#: Durations of a bar in seconds that start and end at round times.
_STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
    86_400, 2 * 86_400, 7 * 86_400, 14 * 86_400, 28 * 86_400,
)  # fmt: skip
_MAX_BARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The counts of one name in each bar. `is_rest`: the counts of all other names together."""

    name: str
    counts: Sequence[int]
    is_rest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its times, its counts, and the URL of the page filtered by its times."""

    since: datetime
    until: datetime
    total: int
    address: str


def edges_ms(earliest_ms: int, latest_ms: int) -> list[int]:
    """Return the edges of at most 60 bars that cover the period, at round times in UTC."""
    span_seconds = max(1.0, (latest_ms - earliest_ms) / 1000)
    step_ms = 1000 * next((s for s in _STEPS if span_seconds / s <= _MAX_BARS - 1), _STEPS[-1])
    first = earliest_ms // step_ms
    count = min(latest_ms // step_ms - first + 1, 10 * _MAX_BARS)
    return [(first + i) * step_ms for i in range(count + 1)]


def draw(
    series: Sequence[Series],
    bars: Sequence[Bar],
    *,
    title: str = "Failures over time",
    noun: str = "failures",
) -> str:
    """Return the chart as an SVG element. Each bar links to the failures in its period.

    Args:
        noun: the counted things, in the plural.
    """
    top = _round_up(max((bar.total for bar in bars), default=0))
    parts = [
        f'<svg class="failures-chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="group" '
        'aria-labelledby="chart-title chart-summary" xmlns="http://www.w3.org/2000/svg">',
        f'<title id="chart-title">{escape(title)}</title>',
        f'<desc id="chart-summary">{escape(_summary(bars, noun))}</desc>',
        *_grid(top),
        *_labels(bars),
    ]
    width = _PLOT_WIDTH / max(1, len(bars))
    for i, bar in enumerate(bars):
        parts += _bar(
            i, bar, [(rank, each.counts[i]) for rank, each in _ranked(series)], top, width, noun
        )
    return "".join([*parts, "</svg>"])


def _ranked(series: Sequence[Series]) -> list[tuple[str, Series]]:
    return [("rest" if each.is_rest else str(i), each) for i, each in enumerate(series)]


def _bar(
    i: int, bar: Bar, counts: Sequence[tuple[str, int]], top: int, width: float, noun: str
) -> list[str]:
    x = _LEFT + i * width
    gap = min(2.0, width * 0.2)
    label = f"{_interval(bar)}: {number(bar.total)} {noun}"
    # Not in the tab order: the table below the chart has the same links.
    parts = [
        f'<a href="{escape(bar.address)}" tabindex="-1" aria-hidden="true">'
        f"<title>{escape(label)}</title>",
        f'<rect class="chart-slot" x="{x:.2f}" y="{_TOP}" width="{width:.2f}" '
        f'height="{_PLOT_HEIGHT}"/>',
    ]
    y = float(_TOP + _PLOT_HEIGHT)
    for rank, count in counts:
        if count:
            height = count / top * _PLOT_HEIGHT
            y -= height
            parts.append(
                f'<rect class="series-{rank}" x="{x + gap / 2:.2f}" y="{y:.2f}" '
                f'width="{width - gap:.2f}" height="{height:.2f}"/>'
            )
    return [*parts, "</a>"]


def _grid(top: int) -> list[str]:
    parts = []
    for fraction in (0.0, 0.5, 1.0):
        value = top * fraction
        if value != int(value):
            continue
        y = _TOP + _PLOT_HEIGHT * (1 - fraction)
        parts.append(
            f'<line class="chart-grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="chart-label" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">'
            f"{number(int(value))}</text>"
        )
    return parts


def _labels(bars: Sequence[Bar]) -> list[str]:
    if not bars:
        return []
    step = bars[0].until - bars[0].since
    whole = bars[-1].until - bars[0].since
    if step < timedelta(minutes=1):
        pattern, kind = "%H:%M:%S", "second"
    elif step >= timedelta(days=1):
        pattern, kind = "%d %b", "day"
    else:
        pattern = "%d %b %H:%M" if whole > timedelta(hours=20) else "%H:%M"
        kind = "minute"
    wanted = 6 if whole > timedelta(hours=20) else 8
    every = max(1, -(-len(bars) // wanted))
    width = _PLOT_WIDTH / len(bars)
    return [
        f'<text class="chart-label" x="{_LEFT + i * width:.2f}" y="{_HEIGHT - 8}" '
        f'data-time="{iso_utc(bars[i].since)}" data-kind="{kind}" data-day="{int(" " in pattern)}">'
        f"{bars[i].since.strftime(pattern)}</text>"
        for i in range(0, len(bars), every)
        if _LEFT + i * width < _WIDTH - _LABEL_WIDTH
    ]


def _summary(bars: Sequence[Bar], noun: str) -> str:
    if not bars:
        return f"No {noun}."
    total = sum(bar.total for bar in bars)
    most = max(bars, key=lambda bar: bar.total)
    return (
        f"{number(total)} {noun} from {_utc(bars[0].since)} to {_utc(bars[-1].until)}; "
        f"most, {number(most.total)}, {_interval(most)}."
    )


def _interval(bar: Bar) -> str:
    return f"{_utc(bar.since)} to {_utc(bar.until)}"


def _utc(time: datetime) -> str:
    return time.strftime("%d %b %H:%M:%S UTC").replace(":00 UTC", " UTC")


def _round_up(value: int) -> int:
    """Return the next of 2, 4, 6, 8, 10, 20, 40, …, so that half of it is an integer."""
    scale = 1
    while True:
        for factor in (2, 4, 6, 8, 10):
            if factor * scale >= value:
                return factor * scale
        scale *= 10


def bars_of(edges: Sequence[int], totals: Sequence[int], addresses: Sequence[str]) -> list[Bar]:
    """Return the bars between edges."""
    return [
        Bar(since=from_ms(start), until=from_ms(end), total=total, address=address)
        for (start, end), total, address in zip(pairwise(edges), totals, addresses, strict=True)
    ]
