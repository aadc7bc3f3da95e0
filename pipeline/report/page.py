"""The page of a report: figures and images become one self-contained HTML file, without scripts and requests."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from components.serving import model_card
from components.shares import Share, format_share
from pipeline.report.charts import draw_intervals, draw_lines, draw_pairs
from pipeline.report.figures import MAX_CLASSES, ClassFigures, Figures, Picture
from pipeline.report.pictures import make_overlay, make_picture, make_thumbnail

_TEMPLATE = 'page.html.jinja'


def _format_number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:,.{digits}f}'


def _make_island(figures: Figures) -> Markup:
    """Makes the JSON of all figures, safe inside a script element."""
    text = json.dumps(_clean(dataclasses.asdict(figures)), allow_nan=False)
    return Markup(text.replace('<', '\\u003c').replace('&', '\\u0026'))


def _clean(value: Any) -> Any:
    """Replaces numbers that JSON does not have by None, and named tuples by dictionaries."""
    if hasattr(value, '_asdict'):
        return _clean(value._asdict())
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


def _list_ends(shares: Mapping[str, Share]) -> dict[str, tuple[float, float, float]]:
    return {
        name: (share.value, share.low, share.high)
        for name, share in shares.items()
        if share.value is not None and share.low is not None and share.high is not None
    }


def _choose_lowest(classes: Sequence[ClassFigures]) -> Sequence[ClassFigures]:
    """Returns all classes in their order, or, of many, those of the lowest recall, the lowest first."""
    if len(classes) <= MAX_CLASSES:
        return classes
    known = [each for each in classes if each.recall.value is not None]
    return sorted(known, key=lambda each: each.recall.value or 0)[:MAX_CLASSES]


def _draw_charts(figures: Figures) -> dict[str, Markup]:
    charts = {}
    if figures.test:
        calibration = figures.test.calibration
        charts['reliability'] = draw_lines(
            'reliability',
            'Reliability diagram: accuracy of the answers by their confidence, beside the diagonal',
            {
                'diagonal': [(0, 0), (1, 1)],
                'accuracy': [(part.confidence, part.accuracy) for part in calibration.bins],
            },
            'confidence',
            'accuracy',
        )
        charts['coverage'] = draw_lines(
            'coverage',
            'Accuracy of the most confident answers, by the share of images that they cover',
            {'accuracy': calibration.coverage},
            'share of images answered',
            'accuracy',
        )
        known = {each.name: each.recall for each in _choose_lowest(figures.test.classes) if each.support}
        charts['recall'] = draw_intervals(
            'recall', 'Recall of each class with its interval', _list_ends(known), 'recall'
        )
        parts = {f'{each.property} {each.low:.0f} to {each.high:.0f}': each.accuracy for each in figures.test.slices}
        if parts:
            charts['slices'] = draw_intervals(
                'slices', 'Accuracy of each slice with its interval', _list_ends(parts), 'accuracy'
            )
    if figures.flips:
        right, wrong = figures.flips.newly_right, figures.flips.newly_wrong
        most = set(sorted(right, key=lambda name: -(wrong[name] + right[name]))[:MAX_CLASSES])
        rows = {name: (wrong[name], right[name]) for name in right if name in most}
        charts['flips'] = draw_pairs(
            'flips', 'Images newly wrong and newly right, by class', rows, ('newly wrong', 'newly right')
        )
    names = [name for name in ('accuracy', 'val_accuracy') if any(name in epoch for epoch in figures.epochs)]
    if names:
        epochs = list(enumerate(figures.epochs, 1))
        charts['epochs'] = draw_lines(
            'epochs',
            'Accuracy on the training and validation images by epoch',
            {name: [(place, epoch[name]) for place, epoch in epochs if name in epoch] for name in names},
            'epoch',
            'accuracy',
            x_range=(1, len(epochs)),
        )
    return charts


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the network makes of some images, by their positions in the test split; empty if the model cannot say it.

    inputs: its input in visible colours, uint8 RGB [S, S, 3].
    cams: where it looked for its answer, float [h, w], 0-1.
    """

    inputs: dict[int, npt.NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    cams: dict[int, npt.NDArray[np.float32]] = dataclasses.field(default_factory=dict)


def render_page(
    figures: Figures, samples: Sequence[Picture], images: Sequence[bytes], shown_network: Shown, suspects_file: str
) -> str:
    """Makes the page.

    Args:
      figures: what it shows.
      samples: some test images of each class.
      images: the encoded test images; pictures name their positions.
      shown_network: what the network makes of the samples and of the mistakes.
      suspects_file: name of the file with the label suspects, beside the page.
    """
    environment = Environment(
        loader=PackageLoader('pipeline.report', ''),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'share': functools.partial(format_share, digits=4), 'number': _format_number}
    inputs = shown_network.inputs
    shown = sorted({picture.index for picture in _list_shown(figures, samples)})
    return environment.get_template(_TEMPLATE).render(
        figures=figures,
        samples=samples,
        thumbnails={index: make_thumbnail(images[index]) for index in shown},
        charts=_draw_charts(figures),
        inputs={each.index: make_picture(inputs[each.index]) for each in samples if each.index in inputs},
        input_size=next((len(pixels) for pixels in inputs.values()), 0),
        overlays={index: make_overlay(inputs[index], cam) for index, cam in shown_network.cams.items()},
        classes=figures.contract.class_names,
        max_classes=MAX_CLASSES,
        island=_make_island(figures),
        suspects_file=suspects_file,
        card_file=model_card.CARD_FILE,
        card=model_card.make_statement(figures.contract),
        weights=model_card.describe_weights(figures.settings),
    )
