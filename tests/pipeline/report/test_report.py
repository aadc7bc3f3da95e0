"""The report of artifacts that the test makes: its figures, its page, and what it says where something is missing."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from lxml import html
from markupsafe import escape
from PIL import Image

from components.contract import DataContract
from components.contract_schema import SCHEMA_NAME, make_schema
from components.data import cifar10
from components.serving import model_card
from components.shares import measure_share
from pipeline.compare import Table
from pipeline.report.figures import MAX_CLASSES, Predictions, choose_matrix, count_confusion, measure_test
from pipeline.report.folders import ComponentState, Folders
from pipeline.report.report import make_report
from pipeline.report.suspects import find_suspects

COUNT = 200
SECTIONS = [
    *('gates', 'flips', 'accuracy', 'confusion', 'mistakes', 'suspects'),
    *('slices', 'calibration', 'training', 'data', 'serving', 'card', 'lineage'),
]


def make_probabilities(seed: int, margin: float = 3.0, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and probabilities of a model that is right on most."""
    labels = np.arange(COUNT, dtype=np.int64) % classes
    scores = np.random.default_rng(seed).normal(size=(COUNT, classes))
    scores[np.arange(COUNT), labels] += margin
    exponentials = np.exp(scores)
    return labels, (exponentials / exponentials.sum(1, keepdims=True)).astype(np.float32)


def make_image(index: int, contract: DataContract = cifar10.CONTRACT) -> bytes:
    height, width, channels = contract.image_shape
    shape = height, width if contract.is_square else width * 3 // 2, channels
    pixels = np.random.default_rng(index).integers(0, 1 + index, size=shape, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'PNG')
    return out.getvalue()


def make_reason(metric: str, slice: str, value: float, count: int) -> dict:
    sentence = f'{metric} {value:.3f} >= 0.500 on {count}'
    reason = {'metric': metric, 'slice': slice, 'value': value, 'bound': 0.5}
    return {**reason, 'count': count, 'is_kept': True, 'sentence': sentence}


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Artifacts of a run whose model was pushed and was compared with version 7."""
    return write_artifacts(tmp_path_factory.mktemp('artifacts'), cifar10.CONTRACT)


def write_artifacts(root: Path, contract: DataContract) -> Folders:
    """Writes the artifacts of a run without a model."""
    import tensorflow as tf

    from components.image_statistics import measure_images
    from components.model_gate.predictions import read_images, read_records, write_predictions
    from components.model_gate.slices import measure_slices, write_slices

    names = ('Evaluator.evaluation', 'ImportExampleGen.examples', 'Trainer.model_run', 'ServingCheck.blessing')
    names += ('DataCheck.report', 'BaselineFinder.baseline', 'CuratedSchemaGen.schema')
    artifacts = {name: root / name for name in names}
    split = artifacts['ImportExampleGen.examples'] / 'Split-test'
    for folder in (*artifacts.values(), split, artifacts['BaselineFinder.baseline'] / 'assets.extra'):
        folder.mkdir()
    (artifacts['CuratedSchemaGen.schema'] / SCHEMA_NAME).write_text(text_format.MessageToString(make_schema(contract)))
    labels, _ = make_probabilities(0, classes=contract.num_classes)
    with tf.io.TFRecordWriter(str(split / 'data.gz'), 'GZIP') as writer:
        for index in range(COUNT):
            example = tf.train.Example()
            example.features.feature['image'].bytes_list.value.append(make_image(index, contract))
            example.features.feature['label'].int64_list.value.append(labels[index])
            example.features.feature['id'].bytes_list.value.append(f'<test>_{index:05}'.encode())
            writer.write(example.SerializeToString())
    records = read_records([str(split / '*.gz')])
    positions = [int(name[-5:]) for name in records.ids]
    own, other = (make_probabilities(seed, classes=contract.num_classes)[1][positions] for seed in (1, 2))
    write_predictions(artifacts['Evaluator.evaluation'] / 'test_predictions.npz', records, own)
    kept = artifacts['BaselineFinder.baseline'] / 'assets.extra' / 'test_predictions.npz'
    write_predictions(kept, records, other)
    right = own.argmax(1) == records.labels
    slices = measure_slices(measure_images(read_images(records), contract.image_size), right)
    write_slices(artifacts['Evaluator.evaluation'], slices)
    reasons = [make_reason('accuracy', '', right.mean(), COUNT)]
    for label, name in enumerate(contract.class_names):
        right_ones = right[records.labels == label]
        reasons.append(make_reason('recall', name, right_ones.mean(), len(right_ones)))
    verdict = {'is_blessed': True, 'reasons': reasons, 'baseline': 'equal within chance', 'baseline_predictions': ''}
    history = [
        {'phase': 'training', 'epoch': epoch, 'accuracy': 0.5, 'loss': 1.0, 'val_accuracy': 0.6, 'val_loss': 0.9}
        for epoch in (1, 2)
    ]
    training = {'device': 'CPU', 'precision': 'float32', 'images_per_s': 9.0, 'epochs': 2, 'best_epoch': 2}
    training |= {'val_accuracy': 0.6, 'temperature': 1.5, 'val_calibration_error_before': 0.2}
    finding = {'severity': 'warning', 'kind': 'drift', 'split': 'train', 'feature': 'image', 'expected': 'a < b'}
    finding |= {'found': 'c & d', 'count': 0, 'ids': []}
    training['stages'] = [{'name': 'conv5', 'layers': 2, 'parameters': 1234, 'trained': 0}]
    serving = {
        'reasons': [],
        'batch_ms': {'1': 17.0, '8': 40.0},
        'size_mb': 30.0,
        'memory_mb': None,
        'load_s': 1.0,
        'p50_ms': 17.0,
        'p99_ms': 21.0,
    }
    for name, file, content in (
        ('Evaluator.evaluation', 'verdict.json', verdict),
        ('Trainer.model_run', 'report.json', {**training, 'val_calibration_error': 0.1}),
        ('Trainer.model_run', 'history.json', history),
        ('DataCheck.report', 'data_report.json', {'findings': [finding], 'records': {'test': COUNT}}),
        ('ServingCheck.blessing', 'report.json', {**serving, 'server': 'no TensorFlow Serving here'}),
        ('BaselineFinder.baseline', 'baseline.json', {'version': 7, 'candidate': None, 'removed': None}),
    ):
        (artifacts[name] / file).write_text(json.dumps(content))
    states = (ComponentState('Evaluator', 'complete', 2.0), ComponentState('Pusher', 'complete', 0.1))
    settings = {'gate': {'confidence': 0.9}, 'trainer': {'epochs': 4}}
    return Folders(artifacts, '20260101-000000', 'cifar10-fast', states, '/data', settings, '8')


def test_the_trials_of_the_tuner_are_a_table_the_best_first(folders, tmp_path):
    trials = [
        {'trial': 2, 'hyperparameters': {'optimizer': 'adam', 'learning_rate': 0.00123456, 'head_units': [128]}},
        {'trial': 1, 'hyperparameters': {'optimizer': 'sgd', 'learning_rate': 0.5, 'dropout': 0.25}},
    ]
    trials[0] |= {'val_accuracy': 0.812345, 'best_epoch': 4, 'seconds': 3.21, 'error': ''}
    trials[1] |= {'val_accuracy': None, 'best_epoch': None, 'seconds': 1.0, 'error': 'The loss became NaN.'}
    search = {'trials': trials, 'frozen_pass_s': 66.4, 'seconds': 101.0}
    (tmp_path / 'trials.json').write_text(json.dumps(search))
    artifacts = {**folders.artifacts, 'Tuner.tuner_results': tmp_path}
    figures = make_report(dataclasses.replace(folders, artifacts=artifacts), tmp_path / 'report.html')
    assert figures.search == search
    (table,) = html.parse(tmp_path / 'report.html').xpath('//table[starts-with(caption, "Trials, the best first")]')
    assert [[cell.text_content() for cell in row] for row in table.iter('tr')] == [
        ['trial', 'accuracy', 'epoch', 'seconds', 'optimizer', 'learning rate', 'head units', 'dropout'],
        ['2', '0.812', '4', '3.2', 'adam', '0.00123', '[128]', '-'],
        ['1', 'diverged', '-', '1.0', 'sgd', '0.5', '-', '0.25'],
    ]


@pytest.fixture(scope='module')
def page(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp('page') / 'report.html'
    make_report(folders, out)
    return out


def read_island(page) -> dict:
    (island,) = html.fromstring(page.read_text()).xpath('//script')
    assert island.get('type') == 'application/json'
    return json.loads(island.text)


def list_ids(page) -> list[str]:
    return html.fromstring(page.read_text()).xpath('//@id')


def test_the_figures_agree_with_the_verdict(page, folders):
    figures = read_island(page)
    verdict = json.loads((folders.artifacts['Evaluator.evaluation'] / 'verdict.json').read_text())
    accuracy, *recalls = (reason['value'] for reason in verdict['reasons'])
    assert figures['test']['accuracy']['value'] == pytest.approx(accuracy)
    assert [each['recall']['value'] for each in figures['test']['classes']] == pytest.approx(recalls)
    assert [gate['value'] for gate in figures['gates']] == pytest.approx([accuracy, *recalls])
    assert all(gate['low'] < gate['value'] <= gate['high'] + 1e-9 for gate in figures['gates'])


def test_the_table_of_classes_shows_the_island(page):
    rows = html.fromstring(page.read_text()).xpath('//section[@id="accuracy"]//tbody/tr')
    shown = {row.xpath('string(th)'): row.xpath('string(td[2])') for row in rows}
    assert shown == {each['name']: f'{each["recall"]["value"]:.3f}' for each in read_island(page)['test']['classes']}


def test_the_parts_are_in_order_and_each_link_leads_to_something(page):
    tree = html.fromstring(page.read_text())
    assert tree.xpath('//main/section/@id') == SECTIONS
    ids = list_ids(page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in tree.xpath('//a/@href | //use/@href')} <= set(ids)


def test_the_page_requests_nothing_and_names_its_pictures(page):
    tree = html.fromstring(page.read_text())
    assert not tree.xpath('//link | //iframe | //script[@src]')
    assert all(source.startswith('data:image/') for source in tree.xpath('//img/@src'))
    assert all(link.startswith(('#', 'data:image/')) for link in tree.xpath('//@href'))
    assert not re.findall(r'url\((?!#)', page.read_text())
    pictures = tree.xpath('//*[@role="img"]')
    assert len(pictures) > 50
    assert all(picture.get('aria-label') for picture in pictures)


def test_the_page_shows_stages_latencies_and_the_weakest_slice(page):
    tree = html.fromstring(page.read_text())
    assert tree.xpath('//section[@id="training"]//tr[th="conv5"]/*/text()') == ['conv5', '2', '1,234', 'frozen']
    assert tree.xpath('//section[@id="serving"]//tr[th="8"]/*/text()') == ['8', '40.0', '200.0']
    slices = read_island(page)['test']['slices']
    assert {each['property'] for each in slices} == {'brightness', 'contrast', 'sharpness'}
    weakest = min(slices, key=lambda each: each['accuracy']['value'])
    assert f'that with {weakest["property"]} ' in tree.xpath('string(//section[@id="slices"]/p)')
    assert len(tree.xpath('//*[local-name()="svg" and @class="chart"]')) == 6


def test_the_page_shows_the_words_of_the_model_card(page):
    (card,) = re.findall(r'<section id="card">(.*?)</section>', page.read_text(), flags=re.DOTALL)
    statement = model_card.make_statement(cifar10.CONTRACT)
    for words in (statement.intended_use, *statement.limits, statement.data_licence):
        assert str(escape(words)) in card
    assert str(escape(model_card.describe_weights(read_island(page)['settings']))) in card


OWN = {
    3: DataContract(('cat', 'cat-dog', 'dog <x> & y'), 256, is_square=False),
    100: DataContract(tuple(f'class {number}' for number in range(100)), 64, is_square=True),
}


@pytest.mark.parametrize('count', OWN)
def test_the_page_has_the_classes_of_the_data_whatever_their_number(count, tmp_path):
    folders = write_artifacts(tmp_path, OWN[count])
    make_report(folders, tmp_path / 'report.html')
    tree = html.fromstring((tmp_path / 'report.html').read_text())
    figures, ids = read_island(tmp_path / 'report.html'), tree.xpath('//@id')
    rows = tree.xpath('//section[@id="accuracy"]//tbody/tr')
    assert {row.xpath('string(th)') for row in rows} == set(OWN[count].class_names)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in tree.xpath('//a/@href | //use/@href')} <= set(ids)
    heads = tree.xpath('//table[@class="matrix"]//thead//th')
    assert len(heads) - 1 == len(figures['test']['matrix']['rows']) == min(count, MAX_CLASSES + 1)
    assert sum(map(sum, figures['test']['matrix']['rows'])) == sum(map(sum, figures['test']['confusion'])) == COUNT
    assert len(figures['test']['confusion']) == count
    assert 'all others' not in heads[-1].text_content() or count > MAX_CLASSES
    assert len(tree.xpath('//section[@id="data"]//ul[@class="gallery"]/li')) == min(5 * count, 50)
    assert figures['contract']['class_names'] == list(OWN[count].class_names)
    assert (tmp_path / 'report.html').stat().st_size < 2_500_000, 'pictures are shown small'
    places = tree.xpath('//*[local-name()="g" and starts-with(@id, "recall-ytick_")]')
    assert len(places) == min(count, MAX_CLASSES)


def test_a_run_of_an_earlier_release_has_cifar10s_classes(folders, tmp_path):
    text = (folders.artifacts['CuratedSchemaGen.schema'] / SCHEMA_NAME).read_text()
    (tmp_path / SCHEMA_NAME).write_text(text[: text.index('string_domain')])
    older = dataclasses.replace(folders, artifacts={**folders.artifacts, 'CuratedSchemaGen.schema': tmp_path})
    assert make_report(older, tmp_path / 'report.html').contract == cifar10.CONTRACT


def test_of_many_classes_those_with_the_most_mistakes_are_in_the_matrix_and_the_others_are_counted_together():
    labels = np.repeat(np.arange(30), 4)
    answers = np.where(labels % 3 == 0, (labels + 1) % 30, labels)  # every third class is taken for the next one
    answers[0] = -1  # no number
    matrix = choose_matrix(count_confusion(labels, answers, 30))
    assert matrix.labels == tuple(label for label in range(30) if label % 3 != 2)
    rows = np.array(matrix.rows)
    assert rows.shape == (21, 21)
    assert rows[2:4, 2:4].tolist() == [[0, 4], [0, 4]], 'classes 3 and 4'
    assert rows[-1].tolist() == [0] * 20 + [40], 'ten classes without a mistake'
    assert rows.sum() == 119


def test_flips_are_the_images_that_only_one_model_has_right(page, folders):
    flips = read_island(page)['flips']
    kept = np.load(folders.artifacts['Evaluator.evaluation'] / 'test_predictions.npz')
    before = np.load(folders.artifacts['BaselineFinder.baseline'] / 'assets.extra' / 'test_predictions.npz')
    own, other = (each['probabilities'].argmax(1) == kept['labels'] for each in (kept, before))
    assert sum(flips['newly_right'].values()) == np.sum(own & ~other) > 0
    assert sum(flips['newly_wrong'].values()) == np.sum(~own & other) > 0
    assert flips['change'] == pytest.approx(own.mean() - other.mean())
    assert flips['low'] < flips['change'] < flips['high']
    assert flips['against'] == 'version 7'


@pytest.fixture(scope='module')
def other(folders):
    """Another run, whose predictions are those that version 7 has kept."""
    evaluation = folders.artifacts['BaselineFinder.baseline'] / 'assets.extra'
    return Folders({'Evaluator.evaluation': evaluation}, '20250101-000000', 'cifar10-fast')


def read_flips_part(page) -> html.HtmlElement:
    (part,) = html.fromstring(page.read_text()).xpath('//section[@id="flips"]')
    return part


def test_another_run_takes_the_place_of_the_serving_model(page, folders, other, tmp_path):
    tables = (Table('', (('version', '7', '8', ''),)), Table('metrics', (('accuracy', '0.900', '0.925', '+0.025'),)))
    figures = make_report(folders, tmp_path / 'report.html', other, tables)
    assert figures.flips.against == 'run 20250101-000000'
    assert figures.flips.newly_wrong == read_island(page)['flips']['newly_wrong']
    part = read_flips_part(tmp_path / 'report.html')
    assert part.xpath('string(h2)') == 'Against run 20250101-000000'
    assert part.xpath('h3/text()') == ['Newly wrong', 'Newly right', 'Runs', 'Metrics']
    assert part.xpath('.//tr[th="accuracy"]/*/text()') == ['accuracy', '0.900', '0.925', '+0.025']
    runs, metrics = (part.xpath(f'.//div[@aria-label="{name}"]//thead//th/text()') for name in ('Runs', 'Metrics'))
    assert runs == ['name', '20250101-000000', '20260101-000000'], 'nothing in this table changes by a number'
    assert metrics == [*runs, 'change']
    assert read_island(tmp_path / 'report.html')['other']['tables'][1]['title'] == 'metrics'


def test_runs_without_the_same_test_images_have_a_sentence_in_place_of_flips(folders, other, tmp_path):
    kept = dict(np.load(other.artifacts['Evaluator.evaluation'] / 'test_predictions.npz'))
    np.savez(tmp_path / 'test_predictions.npz', **{**kept, 'digest': 'of other images'})
    for artifacts, why in (
        (
            {'Evaluator.evaluation': tmp_path},
            'The predictions of run 20250101-000000 are for other test images, or damaged',
        ),
        ({}, 'Run 20250101-000000 has no predictions on the test split, or they are gone'),
    ):
        compared = dataclasses.replace(other, artifacts=artifacts)
        assert make_report(folders, tmp_path / 'report.html', compared).flips is None
        part = read_flips_part(tmp_path / 'report.html')
        assert part.xpath('string(p)') == f'{why}, so there are no flips.'
        assert not part.xpath('.//table')


def test_the_suspects_are_in_a_file_for_a_labeller(page):
    rows = list(csv.DictReader(io.StringIO(page.with_name('report-suspects.csv').read_text())))
    assert [row['id'] for row in rows] == read_island(page)['test']['suspects']['ids']
    assert rows
    assert all(row['label'] in cifar10.CONTRACT.class_names for row in rows)


def test_the_command_names_preset_data_and_what_differs(page):
    command = read_island(page)['command']
    words = ['python -m pipeline run --preset cifar10-fast --data /data']
    assert command == ' '.join([*words, '--set gate.confidence=0.9', '--set trainer.epochs=4'])


OUTPUTS = ('ImportExampleGen.examples', 'DataCheck.report', 'Trainer.model_run', 'BaselineFinder.baseline')
OUTPUTS += ('Evaluator.evaluation', 'ServingCheck.blessing')


@pytest.mark.parametrize('count', range(len(OUTPUTS) + 1))
def test_a_run_that_failed_at_any_component_gets_a_page_of_what_there_is(count, folders, tmp_path):
    kept = OUTPUTS[:count]
    some = {name: folders.artifacts[name] for name in kept}
    states = (ComponentState('StatisticsGen', 'complete', 1.0), ComponentState('Next', 'failed', 1.0))
    failed = dataclasses.replace(folders, artifacts=some, components=states, version='', settings={})
    figures = make_report(failed, tmp_path / 'report.html')
    assert figures.verdict == 'Nothing was pushed: Next did not finish. Below is what there is.'
    tree = html.fromstring((tmp_path / 'report.html').read_text())
    assert tree.xpath('//main/section/@id') == SECTIONS
    is_evaluated = 'Evaluator.evaluation' in kept
    assert ('no predictions on the test split' in tree.xpath('string(//section[@id="accuracy"])')) == (not is_evaluated)
    assert bool(tree.xpath('//section[@id="training"]//figure')) == ('Trainer.model_run' in kept)
    assert (figures.flips is not None) == is_evaluated
    assert (figures.serving is not None) == ('ServingCheck.blessing' in kept)


def refuse(folders: Folders, folder, name: str, file: str, content: dict) -> Folders:
    """Returns a run that one of its gates refused, with what this gate wrote."""
    folder.mkdir()
    (folder / file).write_text(json.dumps(content))
    return dataclasses.replace(folders, artifacts={**folders.artifacts, name: folder}, version='')


def test_a_bound_that_the_model_gate_or_the_serving_check_refused_is_in_the_verdict(folders, tmp_path):
    evaluation = folders.artifacts['Evaluator.evaluation']
    verdict = json.loads((evaluation / 'verdict.json').read_text())
    reason = make_reason('accuracy', '', 0.4, COUNT) | {'is_kept': False, 'sentence': 'accuracy 0.400 < 0.500'}
    content = {**verdict, 'reasons': [reason, *verdict['reasons'][1:]]}
    refused = refuse(folders, tmp_path / 'evaluation', 'Evaluator.evaluation', 'verdict.json', content)
    (tmp_path / 'evaluation' / 'test_predictions.npz').write_bytes((evaluation / 'test_predictions.npz').read_bytes())
    figures = make_report(refused, tmp_path / 'report.html')
    assert figures.verdict == 'Nothing was pushed: 1 bound was not kept (accuracy 0.400 < 0.500).'
    tree = html.fromstring((tmp_path / 'report.html').read_text())
    assert tree.xpath('//section[@id="gates"]//tr[td[@class="words bad"]]/td[1]/text()') == ['accuracy']

    report = json.loads((folders.artifacts['ServingCheck.blessing'] / 'report.json').read_text())
    reason = make_reason('latency', 'serving_default', 900, 30) | {'is_kept': False, 'sentence': 'p99 900 ms > 500 ms'}
    content = {**report, 'reasons': [reason]}
    refused = refuse(folders, tmp_path / 'blessing', 'ServingCheck.blessing', 'report.json', content)
    figures = make_report(refused, tmp_path / 'report.html')
    assert figures.verdict == 'Nothing was pushed: 1 bound was not kept (p99 900 ms > 500 ms).'


def test_data_that_was_refused_is_in_the_verdict(folders, tmp_path):
    finding = {'severity': 'error', 'kind': 'bad_labels', 'split': 'train', 'feature': 'label', 'expected': '0 to 9'}
    content = {'findings': [{**finding, 'found': '1 record', 'count': 1, 'ids': ['a']}], 'records': {'train': 10}}
    refused = refuse(folders, tmp_path / 'data', 'DataCheck.report', 'data_report.json', content)
    artifacts = {'DataCheck.report': refused.artifacts['DataCheck.report']}
    figures = make_report(dataclasses.replace(refused, artifacts=artifacts), tmp_path / 'report.html')
    assert figures.verdict == 'The data was refused with 1 error, and nothing was trained.'
    assert '1 record; expected 0 to 9 (a)' in html.fromstring((tmp_path / 'report.html').read_text()).text_content()


def test_swapped_labels_are_found():
    labels, probabilities = make_probabilities(3, margin=6.0)
    swapped = np.arange(0, COUNT, 17)  # of every class
    given = labels.copy()
    given[swapped] = (labels[swapped] + 5) % cifar10.CONTRACT.num_classes
    first = find_suspects(given, probabilities)[: len(swapped)]
    assert len(np.intersect1d(first, swapped)) >= 0.6 * len(swapped)


def test_a_rare_confusion_is_more_suspicious_than_a_usual_one():
    cat, dog, ship = (cifar10.CONTRACT.class_names.index(name) for name in ('cat', 'dog', 'ship'))
    labels = np.repeat([cat, dog, ship], 50)
    probabilities = np.full((150, cifar10.CONTRACT.num_classes), 0.001)
    probabilities[np.arange(150), labels] = 0.6
    probabilities[:10, [cat, dog]] = 0.01, 0.9  # a fifth of the cats is taken for dogs
    probabilities[10, [cat, ship]] = 0.01, 0.9
    assert find_suspects(labels, probabilities).tolist() == [10, *range(10)]


def test_no_label_is_doubted_where_the_model_agrees():
    labels, _ = make_probabilities(0)
    assert len(find_suspects(labels, np.eye(cifar10.CONTRACT.num_classes, dtype=np.float32)[labels])) == 0


def test_a_class_without_images_has_no_figures_and_a_prediction_that_is_no_number_is_wrong():
    probabilities = np.eye(cifar10.CONTRACT.num_classes, dtype=np.float32)[[0, 1, 0]]
    probabilities[2] = np.nan
    predictions = Predictions(
        cifar10.CONTRACT.class_names,
        ['a', 'b', 'c'],
        np.array([0, 1, 0]),
        probabilities,
        [make_image(n) for n in range(3)],
    )
    test = measure_test(predictions, ())
    assert (test.accuracy.right, test.accuracy.count) == (2, 3)
    assert test.classes[5].recall.value is None
    assert [picture.answer for picture in test.mistakes] == ['not a number']


def test_the_interval_is_wilsons():
    share = measure_share(8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
