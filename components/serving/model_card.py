"""The model card of a version: what the model is for, what it was made of, how good it is, and where it is weak.

Its parts are those of Mitchell et al., "Model Cards for Model Reporting" (2019). The Pusher writes it, and the report
shows the parts that are no figures.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from components.contract import DataContract, parse_contract
from components.data import cifar10
from components.model_gate.slices import Slice
from components.reasons import Reason
from components.shares import Share, format_share, measure_share

CARD_FILE = Path('assets.extra') / 'MODEL_CARD.md'  # in a version
_TEMPLATE = 'MODEL_CARD.md.jinja'

_NAMED = 20  # classes that a card names
_PLAIN_NAME = re.compile(r'[\w .-]+')  # has no meaning in Markdown

_CIFAR10_LICENCE = (
    'CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images") is published without a '
    'licence; its authors ask for that citation. Its images were collected from the web for 80 Million Tiny Images, '
    'which its authors withdrew in 2020. The embedded sample is no part of it: this code draws it. If the images are '
    'your own, their terms are yours to know.'
)


class Statement(NamedTuple):
    """The parts of a model card that are no figures."""

    intended_use: str
    out_of_scope: str
    limits: tuple[str, ...]
    data_licence: str


def make_statement(contract: DataContract, data: str = '') -> Statement:
    """Says what a model of these classes is for, and what it is not for.

    Args:
      contract: the model's.
      data: name of the data that it was trained on; '' if it is not known.
    """
    names = ', '.join(map(_write_name, contract.class_names[:_NAMED]))
    more = contract.num_classes - _NAMED
    classes = f'{contract.num_classes:,} classes: {names}' + (f' and {more:,} more' if more > 0 else '')
    images = f'the images of {_quote(data)}' if data else 'the images'
    if contract.class_names == cifar10.CONTRACT.class_names:
        licence = _CIFAR10_LICENCE
        use = (
            f'To give a small photograph one of {classes}. It is made for teaching, for demonstrations, and for trying '
            'out a pipeline.'
        )
    else:
        use = f'To give an image like {images} that it was trained on one of {classes}.'
        licence = f'On which terms {images} that it was trained on may be used is not known here.'
    return Statement(
        intended_use=use,
        out_of_scope='Decisions about people, and any use where a wrong answer does harm. An image of anything else '
        'gets one of the classes too, often with a high probability.',
        limits=(
            f'Every image is first reduced to {contract.image_size} x {contract.image_size} pixels, so details are '
            'lost.',
            'The figures are those of test images from the same source as the training images. On images from '
            'elsewhere neither the accuracy nor how well the probabilities fit it was measured.',
            'Labels of the test images may be wrong; the report of the run names suspects.',
        ),
        data_licence=licence,
    )


_WEIGHTS_LICENCES = {
    'resnet50': 'published by He et al. under the MIT licence',
    'resnet101': 'published by He et al. under the MIT licence',
    'vgg16': "published by Oxford's Visual Geometry Group under a Creative Commons Attribution licence",
    'inception_v3': 'published under the Apache License',
    'densenet121': 'published by Huang et al. under the BSD 3-clause licence',
}
"""Of the ImageNet weights, as the documentation of Keras 2.3 has it (keras.io/applications)."""


def describe_weights(settings: dict[str, Any] | None) -> str:
    """Says where the initial weights come from, and under which licence.

    Args:
      settings: of the run, as a version keeps them; None if they are not known.
    """
    trainer = (settings or {}).get('trainer', {})
    weights, backbone = trainer.get('weights'), trainer.get('backbone')
    if weights is None:
        return 'Where the initial weights come from is not known.'
    if weights == 'none':
        return 'The initial weights are random.'
    licence = _WEIGHTS_LICENCES.get(backbone)
    if weights == 'imagenet' and licence:
        return f"The initial weights are Keras' for ImageNet, {licence}, as Keras' documentation says."
    return f'The initial weights are those of the file {_quote(weights)}; its licence is not known here.'


def _describe_trained(trainer: dict[str, Any]) -> str:
    """Says which layers were trained, from the setting `train_from`."""
    train_from = trainer.get('train_from')
    if train_from is None:
        return 'Which layers were trained is not known.'
    backbone = {
        'none': 'no layer of the backbone',
        'all': 'every layer of the backbone',
        'auto': "the backbone's last stage",
    }.get(train_from, f"the backbone's layers from {_quote(train_from)} on")
    return f'Trained were the head and {backbone}.'


def _quote(text: Any) -> str:
    """Writes a text that others have chosen as code, in which Markdown has no meaning."""
    return f'`{" ".join(str(text).replace("`", "").split())}`'


def _write_name(name: str) -> str:
    """Writes the name of a class: as code, also within a table, if it could have a meaning in Markdown."""
    return name if _PLAIN_NAME.fullmatch(name) else _quote(name).replace('|', '\\|')


def _measure(value: float, count: int) -> Share:
    return measure_share(round(value * count), count)


def _list_weakest(slices: Sequence[Slice]) -> dict[str, Share]:
    """Returns the weakest quarter by each property, in words."""
    weakest: dict[str, Slice] = {}
    for each in slices:
        before = weakest.get(each.property)
        if before is None or each.right * before.count < before.right * each.count:
            weakest[each.property] = each
    return {
        f'{each.property} {each.low:,.0f} to {each.high:,.0f}': measure_share(each.right, each.count)
        for each in weakest.values()
    }


def render_card(
    version: int, info: dict[str, Any], reasons: Sequence[Reason], baseline: str, slices: Sequence[Slice]
) -> str:
    """Makes the model card in Markdown; what is not known is said to be so.

    Args:
      version: the version's number.
      info: what the version says about itself, see `components.pusher.describe_version`.
      reasons: the bounds of the model gate with what was measured; empty if they are not known.
      baseline: how the model compares with its baseline, in words; '' if it is not known.
      slices: from `components.model_gate.slices`; empty if they were not measured.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # Markdown and not HTML: texts of others are quoted
        loader=PackageLoader('components.serving', ''),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {'share': format_share, 'quote': _quote}
    environment.filters['name'] = _write_name
    trainer, manifest = (info.get('settings') or {}).get('trainer', {}), info.get('data') or {}
    contract = parse_contract(info['contract'])
    recalls = [each for each in reasons if each.metric == 'recall']
    if len(recalls) > _NAMED:
        recalls.sort(key=lambda each: each.value)
    return environment.get_template(_TEMPLATE).render(
        version=version,
        info=info,
        trainer=trainer,
        trained=_describe_trained(trainer),
        manifest=manifest,
        classes=contract.class_names,
        max_classes=_NAMED,
        statement=make_statement(contract, (manifest.get('source') or {}).get('name', '')),
        weights=describe_weights(info.get('settings')),
        accuracy=_measure(info['accuracy'], info['images']),
        recalls={each.slice: _measure(each.value, each.count) for each in recalls},
        calibration=next((each for each in reasons if each.metric == 'calibration_error'), None),
        baseline=baseline,
        weakest=_list_weakest(slices),
    )
