"""Charts as inline SVG, drawn in the page's own colours, so that they follow light, dark and print.

Each has a title and a description for screen readers; the page shows the numbers as a table as well.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 420, 256, 44, 34, 28

Points = Sequence[tuple[float, float]]


def draw_lines(
    title: str, series: Mapping[str, Points], x_title: str, y_title: str, *, x_range: tuple[float, float] = (0, 1)
) -> Markup:
    """Draws lines with a mark at each point.

    Args:
      title: what the chart shows, in words.
      series: points (x, y) by the name of the line; y is 0-1.
      x_title: name of the horizontal axis.
      y_title: name of the vertical axis.
      x_range: the horizontal axis's ends.
    """
    low, high = x_range
    span = (high - low) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - low) / span * (_WIDTH - _LEFT - 12)
        return round(across, 1), round(_HEIGHT - _BOTTOM - y * (_HEIGHT - _BOTTOM - _TOP), 1)

    parts = [
        f'<svg class="chart" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-label="{escape(title)}">'
        f'<title>{escape(title)}</title>'
    ]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        left, y = place(low, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - 12}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{tick:.2f}</text>')
    for tick in (low, (low + high) / 2, high) if high > low else (low,):
        x, y = place(tick, 0)
        parts.append(f'<text x="{x}" y="{y + 15}" text-anchor="middle">{tick:g}</text>')
    for index, (name, points) in enumerate(series.items()):
        placed = [place(*point) for point in points]
        path = ' '.join(f'{x},{y}' for x, y in placed)
        parts.append(f'<polyline class="line line{index}" points="{path}"/>')
        marks = (f'<circle class="mark mark{index}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in placed)
        parts.extend(marks if len(placed) < 40 else ())
        parts.append(
            f'<text class="key{index}" x="{_WIDTH - 16}" y="{_HEIGHT - _BOTTOM - 8 - 15 * (len(series) - 1 - index)}" '
            f'text-anchor="end">{escape(name)}</text>'
        )
    parts.append(f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(f'<text x="2" y="{_TOP - 14}">{escape(y_title)}</text></svg>')
    return Markup(''.join(parts))
