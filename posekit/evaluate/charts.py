"""Small SVG charts for the page of `posekit eval`: lines and bars, no script, no fonts."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

COLORS = ("#1f6feb", "#d9730d", "#2da44e", "#8250df")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 460, 280, 44, 34


def lines(
    title: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float | None]],
    *,
    label: str,
    diagonal: bool = False,
) -> str:
    """Curves over [0, max(x)] with y in [0, 1]; `label` names the x axis, None is a gap."""
    top = max(x)
    body = [_grid(top), f'<text x="8" y="16" class="t">{html.escape(title)}</text>']
    if diagonal:
        body.append(f'<path d="{_path(((0.0, 0.0), (top, 1.0)), top)}" class="d"/>')
    for number, (name, values) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        known = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        body.append(f'<path d="{_path(known, top)}" stroke="{color}" class="c"/>')
        body += [_key(number, name, color)]
    body.append(f'<text x="{_WIDTH - 6}" y="{_HEIGHT - 4}" class="e">{html.escape(label)}</text>')
    return _svg(body, _HEIGHT)


def bars(title: str, groups: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> str:
    """A row of horizontal bars in [0, 1] for each group, one bar for each of `names`."""
    body = [f'<text x="8" y="16" class="t">{html.escape(title)}</text>']
    step = 10 * len(names) + 8
    for row, (group, values) in enumerate(groups.items()):
        y = 28 + row * step
        body.append(
            f'<text x="126" y="{y + 5 * len(names) + 3}" class="e">{html.escape(group)}</text>'
        )
        for number, value in enumerate(values):
            if value is None:
                continue
            width, top = 250 * min(max(value, 0), 1), y + 10 * number
            color = COLORS[number % len(COLORS)]
            body.append(f'<rect x="132" y="{top}" width="{width:.1f}" height="9" fill="{color}"/>')
            body.append(f'<text x="{136 + width:.1f}" y="{top + 8}">{value:.3f}</text>')
    height = 28 + len(groups) * step
    keys = [
        f'<text x="{132 + 110 * n}" y="{height + 12}" fill="{COLORS[n % len(COLORS)]}">'
        f"{html.escape(name)}</text>"
        for n, name in enumerate(names)
    ]
    return _svg([*body, *keys], height + 18)


def _svg(body: Sequence[str], height: int) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
        + "".join(body)
        + "</svg>"
    )


def _place(x: float, y: float, top: float) -> tuple[float, float]:
    wide, high = _WIDTH - _LEFT - 12, _HEIGHT - _BOTTOM - 28
    return _LEFT + wide * x / top, 28 + high * (1 - min(max(y, 0.0), 1.0))


def _path(points: Sequence[tuple[float, float]], top: float) -> str:
    places = [_place(x, y, top) for x, y in points]
    return " ".join(f"{'L' if n else 'M'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(places))


def _grid(top: float) -> str:
    parts = []
    for n in range(6):
        across = _path(((0.0, n / 5), (top, n / 5)), top)
        x, y = _place(0, n / 5, top)
        parts.append(f'<path d="{across}" class="g"/>')
        parts.append(f'<text x="{x - 4:.0f}" y="{y + 3:.0f}" class="e">{n / 5:.1f}</text>')
        x, y = _place(top * n / 5, 0, top)
        parts.append(f'<text x="{x:.0f}" y="{y + 13:.0f}" class="m">{top * n / 5:.2g}</text>')
    return "".join(parts)


def _key(number: int, name: str, color: str) -> str:
    x, y = _WIDTH - 16, _HEIGHT - _BOTTOM - 10 - 14 * number
    return f'<text x="{x}" y="{y}" fill="{color}" class="e">{html.escape(name)}</text>'
