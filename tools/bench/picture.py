"""The picture of docs/proof/performance.md: a bar chart as a self-contained SVG. Pure."""

from dataclasses import dataclass
from html import escape
from typing import Final

from tools.bench.plan import HOOKSEAL, OURS
from tools.bench.results import POSTGRESQL, REDIS, WORKER, Row, Run
from tools.bench.tables import number

_WIDTH: Final = 900
_LEFT: Final = 170
_BAR_WIDTH: Final = 560
_BAR: Final = 18
_STEP: Final = 26
_GAP: Final = 60
_PARTS: Final = {WORKER: "#1f6feb", POSTGRESQL: "#8b949e", REDIS: "#d29922"}
_FONT: Final = 'font-family="sans-serif" font-size="13"'
_OURS: Final = "#1f6feb"
_THEIRS: Final = "#8b949e"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """A bar of one or more pieces (value, colour), and its label."""

    name: str
    pieces: tuple[tuple[float, str], ...]
    text: str

    @property
    def length(self) -> float:
        return sum(value for value, _ in self.pieces)


def picture(run: Run) -> str:
    """Return the chart of rates and of CPU a delivery, base case, for every contender."""
    rows = run.rows_of("base")
    rates = [_rate(row) for row in rows]
    costs = [_cost(row) for row in rows]
    height = 2 * (_GAP + len(rows) * _STEP) + 20
    colours = "; ".join(f"{part}: {colour}" for part, colour in _PARTS.items())
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" {_FONT}>',
            f"<title>Deliveries a second and CPU of a delivery, {escape(run.commit[:12])}, {escape(run.date)}</title>",
            f"<desc>Colours of the lower bars: {colours}</desc>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            *_chart("Deliveries a second, one worker process (more is better)", rates, top=0),
            *_chart("CPU of a delivery, us: ", costs, top=_GAP + len(rows) * _STEP),
            *_legend(_GAP + len(rows) * _STEP + 32),
            "</svg>\n",
        )
    )


def _rate(row: Row) -> _Bar:
    colour = _OURS if row.contender in OURS else _THEIRS
    return _Bar(name=row.contender, pieces=((row.per_second, colour),), text=f"{number(row.per_second)}/s")


def _cost(row: Row) -> _Bar:
    pieces = tuple((row.microseconds(part), colour) for part, colour in _PARTS.items())
    return _Bar(name=row.contender, pieces=pieces, text=f"{number(sum(value for value, _ in pieces))} us")


def _chart(title: str, bars: list[_Bar], *, top: int) -> list[str]:
    most = max((bar.length for bar in bars), default=0.0) or 1.0
    lines = [f'<text x="10" y="{top + 32}" font-weight="bold">{escape(title)}</text>']
    for place, bar in enumerate(bars):
        y, x = top + _GAP - 14 + place * _STEP, float(_LEFT)
        weight = ' font-weight="bold"' if bar.name == HOOKSEAL else ""
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end"{weight}>{escape(bar.name)}</text>')
        for value, colour in bar.pieces:
            width = value / most * _BAR_WIDTH
            lines.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
            x += width
        lines.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{escape(bar.text)}</text>')
    return lines


def _legend(y: int) -> list[str]:
    lines = []
    for place, (part, colour) in enumerate(_PARTS.items()):
        x = 250 + place * 110
        lines.append(f'<rect x="{x}" y="{y - 11}" width="12" height="12" fill="{colour}"/>')
        lines.append(f'<text x="{x + 18}" y="{y}">{part}</text>')
    return lines
