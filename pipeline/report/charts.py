"""Charts by Matplotlib as inline SVG, in the page's own colours, so that they follow light, dark and print.

Each has a title for screen readers; the page shows the numbers as a table as well.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that Matplotlib draws in, and the variables of the page that take their place.
_TEXT, _LINE, _FIRST, _SECOND = '#010101', '#020202', '#030303', '#040404'
_VARIABLES = {_TEXT: 'var(--text)', _LINE: 'var(--line)', _FIRST: 'var(--first)', _SECOND: 'var(--second)'}
_SETTINGS: Any = {
    'svg.fonttype': 'none',  # text as text
    'svg.hashsalt': 'report',  # the same ids every time
    'font.size': 9,
    'font.family': 'sans-serif',
    'text.color': _TEXT,
    'axes.edgecolor': _LINE,
    'axes.labelcolor': _TEXT,
    'xtick.color': _TEXT,
    'ytick.color': _TEXT,
    'grid.color': _LINE,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.linewidth': 0.5,
    'legend.frameon': False,
}
_NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))

Points = Sequence[tuple[float, float]]


def _open_axes(height: float) -> 'tuple[Figure, Axes]':
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, height), layout='constrained')
    return figure, figure.add_subplot()


def _make_svg(figure: 'Figure', name: str, title: str) -> Markup:
    """Makes an inline SVG element whose ids begin with a name that no other chart of the page has."""
    out = io.StringIO()
    figure.savefig(out, format='svg', transparent=True, metadata=_NO_METADATA)
    text = out.getvalue()
    text = text[text.index('<svg') :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{name}-', text)
    text = re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    label = escape(title)
    text = re.sub(
        r'<svg[^>]*?(viewBox="[^"]*")[^>]*>',
        rf'<svg class="chart" role="img" \1 aria-label="{label}"><title>{label}</title>',
        text,
        count=1,
    )
    return Markup(text)


def _draw(name: str, title: str, height: float, draw: Any) -> Markup:
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        figure, axes = _open_axes(height)
        draw(axes)
        return _make_svg(figure, name, title)


def draw_lines(
    name: str,
    title: str,
    series: Mapping[str, Points],
    x_title: str,
    y_title: str,
    *,
    x_range: tuple[float, float] = (0, 1),
) -> Markup:
    """Draws lines with a mark at each point.

    Args:
      name: of the chart in the page.
      title: what the chart shows, in words.
      series: points (x, y) by the name of the line; y is 0-1. The first of several is dashed.
      x_title: name of the horizontal axis.
      y_title: name of the vertical axis.
      x_range: the horizontal axis's ends.
    """

    from matplotlib.ticker import MaxNLocator

    def draw(axes: 'Axes') -> None:
        for index, (label, points) in enumerate(series.items()):
            is_first = index == 0 and len(series) > 1
            color, style = (_FIRST, '--') if is_first else (_SECOND, '-')
            axes.plot(*zip(*points, strict=True), style, color=color, label=label, marker='o', markersize=3)
        low, high = x_range
        margin = (high - low or 1) * 0.03
        axes.set(xlim=(low - margin, high + margin), ylim=(-0.03, 1.03), xlabel=x_title, ylabel=y_title)
        if x_range != (0, 1):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(series) > 1:
            axes.legend(loc='best')

    return _draw(name, title, 3, draw)


def draw_intervals(name: str, title: str, shares: Mapping[str, tuple[float, float, float]], x_title: str) -> Markup:
    """Draws shares with their intervals, one below the other.

    Args:
      name, title: see `draw_lines`.
      shares: value and ends of the interval, 0-1, by the name of the row.
      x_title: what the shares are.
    """

    def draw(axes: 'Axes') -> None:
        values, lows, highs = zip(*shares.values(), strict=True)
        errors = [
            [v - low for v, low in zip(values, lows, strict=True)],
            [h - v for h, v in zip(highs, values, strict=True)],
        ]
        axes.errorbar(values, range(len(values)), xerr=errors, fmt='o', color=_SECOND, markersize=4, capsize=2)
        axes.set_yticks(range(len(values)), list(shares))
        axes.set(xlabel=x_title, xlim=(min(0.5, *lows), 1.01))
        axes.invert_yaxis()

    return _draw(name, title, 0.8 + 0.24 * len(shares), draw)


def draw_pairs(name: str, title: str, rows: Mapping[str, tuple[int, int]], labels: tuple[str, str]) -> Markup:
    """Draws two counts a row, one to the left and one to the right of zero.

    Args:
      name, title: see `draw_lines`.
      rows: counts to the left and to the right, by the name of the row.
      labels: what the counts are.
    """

    def draw(axes: 'Axes') -> None:
        left, right = zip(*rows.values(), strict=True)
        places = range(len(rows))
        axes.barh(places, [-count for count in left], color=_FIRST, label=labels[0])
        axes.barh(places, right, color=_SECOND, label=labels[1])
        axes.set_yticks(places, list(rows))
        most = max(*left, *right, 1)
        axes.set(xlim=(-most * 1.05, most * 1.05), xlabel='images')
        axes.xaxis.set_major_formatter(lambda value, _: f'{abs(value):g}')
        axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=2)
        axes.invert_yaxis()

    return _draw(name, title, 1.1 + 0.24 * len(rows), draw)
