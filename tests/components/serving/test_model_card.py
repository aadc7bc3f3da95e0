"""The model card: its figures are the verdict's, and what is not known is said to be so."""

import json

import pytest

from components.contract import DataContract
from components.data.cifar10 import CONTRACT
from components.model_gate.slices import Slice
from components.reasons import Reason
from components.serving.model_card import describe_weights, render_card

INFO = {
    'accuracy': 0.93,
    'images': 100,
    'pushed': '2026-01-02T03:04:05+00:00',
    'run': '20260102-030405',
    'pipeline': 'cifar10-test',
    'changed': {'train_from': 'a|b'},
    'contract': CONTRACT.to_dict(),
    'settings': {
        'trainer': {
            'backbone': 'vgg16',
            'image_size': 160,
            'weights': 'imagenet',
            'train_from': 'block5',
        }
    },
    'data': {
        'source': {'kind': 'archive', 'name': 'a`|*.tar.gz', 'sha256': 'abc'},
        'counts': {'train': 1800, 'test': 100},
        'counts_by_class': {
            'train': dict.fromkeys(CONTRACT.class_names, 180),
            'test': dict.fromkeys(CONTRACT.class_names, 10),
        },
    },
}
REASONS = (
    Reason('accuracy', '', 0.93, 0.9, 100, True, 'accuracy 0.930 >= 0.900 on 100 test images'),
    Reason('calibration_error', '', 0.02, 0.15, 100, True, 'calibration error 0.020 <= 0.150 on 100'),
    Reason('recall', 'cat', 0.7, 0.5, 10, True, 'recall of cat 0.700 >= 0.500 on 10'),
)
BASELINE = 'accuracy +0.010 (95% interval -0.020 to +0.040) against version 5 on 100: equal within chance'
SLICES = [
    Slice('brightness', part, 10 * part, 10 * part + 9, right, 25) for part, right in enumerate((20, 24, 25, 24), 1)
]


def test_the_figures_are_those_of_the_verdict_with_their_intervals():
    card = render_card(17, json.loads(json.dumps(INFO)), REASONS, BASELINE, SLICES)
    assert card.startswith('# Model card of version 17\n')
    assert 'Accuracy: **0.930 (0.863 to 0.966) on 100**.' in card  # Wilson's interval, by R's binom.confint
    assert '| cat | 0.700 (0.397 to 0.892) on 10 |' in card
    assert 'Calibration error: 0.020 on 100.' in card
    assert f'Against the baseline: {BASELINE}.' in card
    assert "Trained were the head and the backbone's layers from `block5` on." in card
    assert '| `train_from` | `a\\|b` |' in card, 'a cell of a table cannot end early'
    assert '| brightness 10 to 19 | 0.800 (0.609 to 0.911) on 25 |' in card
    assert '| cat | 180 | 10 |' in card
    assert '| all | 1,800 | 100 |' in card
    assert 'Source: `archive` `a|*.tar.gz`, SHA-256 `abc`' in card, 'a text of others cannot end its quotation'
    assert "Oxford's Visual Geometry Group" in card
    assert '\n\n\n' not in card


def test_a_training_without_changes_is_said_to_be_one():
    sentence = 'All settings of the training have their defaults.'
    for changed, is_said in (({}, True), ({'seed': 1}, False)):
        assert (sentence in render_card(17, {**INFO, 'changed': changed}, REASONS, BASELINE, SLICES)) == is_said


@pytest.mark.parametrize('data', [None, {}, {'source': {'name': 'cifar.tar.gz'}}, {'counts_by_class': {'train': {}}}])
def test_what_is_not_known_is_said_to_be_so(data):
    info = {
        'accuracy': 0.5,
        'images': 20,
        'pushed': 'now',
        'settings': None,
        'data': data,
        'contract': CONTRACT.to_dict(),
    }
    card = render_card(17, info, (), '', ())
    assert 'Accuracy: **0.500 (0.299 to 0.701) on 20**.' in card
    assert ('Where the data comes from is not known.' in card) != ('`cifar.tar.gz`, SHA-256 `not known`' in card)
    assert ('How many records of each class' in card) != ('| cat | 0 |' in card)
    for sentence in (
        'The recall by class is not known.',
        'The calibration error is not known.',
        'Against the baseline: not known.',
        'How good it is on dark or blurred images was not measured.',
        'Which layers were trained is not known.',
        'Where the initial weights come from is not known.',
    ):
        assert sentence in card
    assert '\n\n\n' not in card


def test_a_model_of_other_classes_is_not_called_cifar10s():
    source = {'kind': 'images', 'name': 'my pets', 'sha256': 'abc'}
    counts = {'train': {'cat': 20, 'guinea|pig': 30}, 'test': {'cat': 3, 'guinea|pig': 4}}
    contract = DataContract(('cat', 'guinea|pig'), 256, False)
    info = {**INFO, 'contract': contract.to_dict(), 'data': {'source': source, 'counts_by_class': counts}}
    card = render_card(17, info, REASONS, BASELINE, SLICES)
    assert 'To give an image like the images of `my pets` that it was trained on one of 2 classes: cat, ' in card
    assert 'On which terms the images of `my pets` that it was trained on may be used is not known here.' in card
    assert 'reduced to 256 x 256 pixels' in card
    assert '| `guinea\\|pig` | 30 | 4 |' in card
    assert 'CIFAR' not in card
    assert 'teaching' not in card


def test_of_many_classes_twenty_are_named():
    names = tuple(f'class{label:03}' for label in range(300))
    contract = DataContract(names, 64, True)
    info = {**INFO, 'contract': contract.to_dict(), 'data': {'counts_by_class': {'test': dict.fromkeys(names, 7)}}}
    reasons = [Reason('recall', name, label / 300, 0.5, 9, True, '') for label, name in enumerate(reversed(names))]
    card = render_card(17, info, reasons, BASELINE, SLICES)
    assert 'one of 300 classes: class000, class001, ' in card
    assert 'class019 and 280 more.' in card
    assert '| class019 | 7 |\n| 280 more | |\n| all | 2,100 |\n' in card
    assert 'The 20 classes with the lowest recall, of 300:\n\n| class | recall |\n| --- | --- |\n| class299 |' in card
    assert (card.count('class0'), card.count('class2')) == (40, 20)


def test_the_licence_of_a_weights_file_is_not_guessed():
    assert describe_weights({'trainer': {'weights': 'none', 'backbone': 'vgg16'}}) == 'The initial weights are random.'
    said = describe_weights({'trainer': {'weights': 'mine.h5', 'backbone': 'vgg16'}})
    assert said == 'The initial weights are those of the file `mine.h5`; its licence is not known here.'
