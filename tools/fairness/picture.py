"""Draws what the simulation found, as an SVG."""

from collections.abc import Sequence
from typing import Final

_WIDTH: Final = 860
_PANEL: Final = 130
_LEFT: Final = 64
_TOP: Final = 46
_GAP: Final = 58


def picture(panels: Sequence[tuple[str, Sequence[float], str]], *, shaded: tuple[int, int], unit: str) -> str:
    """Return an SVG with one panel for each series: its title, its values, and their unit.

    All series have one value for each step of time; `shaded` are the first and last step of the outage.
    """
    steps = len(panels[0][1])
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
            ' font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">One endpoint hangs for ten minutes; three workers, simulated</text>',
    ]
    for number, (title, values, label) in enumerate(panels):
        parts += _panel(title, values, label, top=_TOP + number * (_PANEL + _GAP), shaded=shaded)
    parts += [
        f'<text x="{_x(step, steps):.1f}" y="{height - 22}" text-anchor="middle" fill="#555555">{step}</text>'
        for step in range(0, steps + 1, 5)
    ]
    parts += [f'<text x="{_WIDTH - 12}" y="{height - 6}" text-anchor="end" fill="#555555">{unit}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _x(step: float, steps: int) -> float:
    return _LEFT + step * (_WIDTH - _LEFT - 20) / steps


def _panel(title: str, values: Sequence[float], label: str, *, top: int, shaded: tuple[int, int]) -> list[str]:
    steps, most = len(values), max(*values, 1.0)
    bottom = top + _PANEL
    begin, end = _x(shaded[0], steps), _x(shaded[1], steps)
    points = " ".join(
        f"{_x(step + half, steps):.1f},{bottom - value / most * _PANEL:.1f}"
        for step, value in enumerate(values)
        for half in (0, 1)
    )
    right = _WIDTH - 20
    return [
        f'<text x="{_LEFT}" y="{top - 8}">{title}</text>',
        f'<rect x="{begin:.1f}" y="{top}" width="{end - begin:.1f}" height="{_PANEL}" fill="#f6dcdc"/>',
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="#999999"/>',
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end" fill="#555555">{most:g}{label}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end" fill="#555555">0</text>',
        f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="1.8"/>',
    ]
