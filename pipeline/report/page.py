"""The page of a report: figures and images become one self-contained HTML file, without scripts and requests."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components import features
from pipeline.report.charts import draw_lines
from pipeline.report.figures import Figures, Picture, Share
from pipeline.report.pictures import make_thumbnail

_TEMPLATE = 'page.html.jinja'


def _format_share(share: Share) -> str:
    """Shows a share with its interval and its number of images, such as '0.8695 (0.8540 to 0.8836) on 2,000'."""
    if share.value is None:
        return 'no images'
    return f'{share.value:.4f} ({share.low:.4f} to {share.high:.4f}) on {share.count:,}'


def _format_number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:,.{digits}f}'


def _make_island(figures: Figures) -> Markup:
    """Makes the JSON of all figures, safe inside a script element."""
    text = json.dumps(_clean(dataclasses.asdict(figures)), allow_nan=False)
    return Markup(text.replace('<', '\\u003c').replace('&', '\\u0026'))


def _clean(value: Any) -> Any:
    """Replaces numbers that JSON does not have by None."""
    if isinstance(value, dict):
        return {key: _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return None if isinstance(value, float) and value - value != 0 else value


def _list_shown(figures: Figures, samples: Sequence[Picture]) -> Iterable[Picture]:
    """Lists every picture of the page; some more than once."""
    yield from samples
    if figures.flips:
        yield from (*figures.flips.right_pictures, *figures.flips.wrong_pictures)
    if figures.test:
        yield from (*figures.test.mistakes, *figures.test.suspects.pictures)
        for cell in figures.test.cells:
            yield from cell.pictures


def _draw_charts(figures: Figures) -> dict[str, Markup]:
    charts = {}
    if figures.test:
        calibration = figures.test.calibration
        charts['reliability'] = draw_lines(
            'Reliability diagram: accuracy of the answers by their confidence, beside the diagonal',
            {
                'diagonal': [(0, 0), (1, 1)],
                'accuracy': [(part.confidence, part.accuracy) for part in calibration.bins],
            },
            'confidence',
            'accuracy',
        )
        charts['coverage'] = draw_lines(
            'Accuracy of the most confident answers, by the share of images that they cover',
            {'accuracy': calibration.coverage},
            'share of images answered',
            'accuracy',
        )
    names = [name for name in ('accuracy', 'val_accuracy') if any(name in epoch for epoch in figures.epochs)]
    if names:
        epochs = list(enumerate(figures.epochs, 1))
        charts['epochs'] = draw_lines(
            'Accuracy on the training and validation images by epoch',
            {name: [(place, epoch[name]) for place, epoch in epochs if name in epoch] for name in names},
            'epoch',
            'accuracy',
            x_range=(1, len(epochs)),
        )
    return charts


def render_page(figures: Figures, samples: Sequence[Picture], images: Sequence[bytes], suspects_file: str) -> str:
    """Makes the page.

    Args:
      figures: what it shows.
      samples: some test images of each class.
      images: the encoded test images; pictures name their positions.
      suspects_file: name of the file with the label suspects, beside the page.
    """
    environment = Environment(
        loader=PackageLoader('pipeline.report', ''),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'share': _format_share, 'number': _format_number}
    shown = sorted({picture.index for picture in _list_shown(figures, samples)})
    return environment.get_template(_TEMPLATE).render(
        figures=figures,
        samples=samples,
        thumbnails={index: make_thumbnail(images[index]) for index in shown},
        charts=_draw_charts(figures),
        classes=features.CLASS_NAMES,
        island=_make_island(figures),
        suspects_file=suspects_file,
    )
