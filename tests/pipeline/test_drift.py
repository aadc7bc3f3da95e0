"""The command `drift`: planted drift is found, chance is not, and a log is read whatever is wrong with it."""

import dataclasses
import json
import re

import numpy as np
import pytest

from components.contract import CONTRACT_FILE, DataContract
from components.data import cifar10
from components.image_statistics import PROPERTIES
from components.serving.models_config import write_config
from components.serving.reference import CONFIDENCE, make_reference, write_reference
from components.serving.versions import INFO_FILE, REFERENCE_FILE
from pipeline import __main__
from pipeline.drift import LEAST_IMAGES, SHARES, describe_drift, judge
from pipeline.request_log import RequestLog, read_log
from pipeline.server import request_sample
from pipeline.server.request_sample import AskedImage
from tests.pipeline.server.test_request_sample import IMAGES, ask

CONTRACT = cifar10.CONTRACT
SIZE = CONTRACT.image_size
COUNT = 2_000
BOUND = 0.1


def draw(count: int, seed: int, **shifts: float):
    """Draws what images look like, and what is answered to them.

    Args:
      count: how many.
      seed: of the random numbers.
      shifts: what is added to a property, in standard deviations of it.

    Returns:
      As `measure_images` and a model give it: [count, 5], and probabilities [count, 10].
    """
    random = np.random.default_rng(seed)
    middle, deviation = np.array([120.0, 50, 1_900]), np.array([40.0, 15, 600])
    looks = random.normal(middle, deviation, (count, 3))
    looks += [shifts.get(name, 0) * each for name, each in zip(PROPERTIES, deviation, strict=False)]
    sizes = np.full((count, 2), 32.0) + [shifts.get(name, 0) for name in ('width', 'height')]
    labels = random.integers(0, 10, count)
    cats = random.random(count) < shifts.get('cats', 0)
    labels[cats] = 3
    sure = np.clip(random.normal(0.8 + 0.1 * shifts.get(CONFIDENCE, 0), 0.1, count), 0.2, 0.99)
    probabilities = np.repeat((1 - sure)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(count), labels] = sure
    return np.hstack([looks, sizes]), probabilities.astype(np.float32)


def list_asked(count: int, seed: int, version: int = 3, **shifts: float) -> list[AskedImage]:
    measured, probabilities = draw(count, seed, **shifts)
    return [
        AskedImage(
            time='2026-11-27T12:00:00+00:00',
            version=version,
            signature='serving_default',
            statistics=dict(zip(PROPERTIES, map(float, values), strict=True)),
            label=int(chances.argmax()),
            probabilities=tuple(chances.tolist()),
        )
        for values, chances in zip(measured, probabilities, strict=True)
    ]


REFERENCE = make_reference(*draw(COUNT, 0))


def find(count: int, seed: int, **shifts: float):
    images = list_asked(count, seed, **shifts)
    return judge(3, CONTRACT, REFERENCE, RequestLog(images, {3: count}, []), BOUND)


@pytest.mark.parametrize(
    ('shift', 'name', 'words'),
    [
        ({'brightness': -0.5}, 'brightness', 'images are darker (brightness median '),
        ({'brightness': 0.5}, 'brightness', 'images are brighter (brightness median '),
        ({'contrast': -0.5}, 'contrast', 'images have less contrast (contrast median '),
        ({'contrast': 0.5}, 'contrast', 'images have more contrast (contrast median '),
        ({'sharpness': -0.5}, 'sharpness', 'images are more blurred (sharpness median 1,'),
        ({'sharpness': 0.5}, 'sharpness', 'images are sharper (sharpness median 2,'),
        ({CONFIDENCE: -0.5}, CONFIDENCE, 'the model is less sure (confidence median 0.7'),
        ({CONFIDENCE: 0.5}, CONFIDENCE, 'the model is surer (confidence median 0.8'),
        ({'cats': 0.3}, SHARES, '% are called cat where 1'),
    ],
)
def test_planted_drift_of_one_property_is_found_and_said_in_words(shift, name, words):
    for seed in range(1, 6):
        drift = find(1_240, seed, **shift)
        assert drift.verdict == 'drift'
        assert [each.property for each in drift.comparisons if each.is_drift] == [name]
        assert drift.sentence.startswith('drifted: ')
        assert words in drift.sentence
        assert drift.sentence.endswith('; label some of these images and retrain with them')


def test_a_wider_spread_around_the_same_middle_is_found():
    images = list_asked(1_240, 1)
    for image in images:
        image.statistics['brightness'] = 120 + 2 * (image.statistics['brightness'] - 120)
    drift = judge(3, CONTRACT, REFERENCE, RequestLog(images, {3: 1_240}, []), BOUND)
    assert 'brightness is spread differently (90% between ' in drift.sentence


def test_several_changes_are_one_sentence():
    drift = find(1_240, 1, brightness=-1.5, contrast=-1, cats=0.3)
    assert drift.sentence.startswith('drifted: images are darker (brightness median 6')
    assert ' where the test images had 117), have less contrast (contrast median ' in drift.sentence
    assert '), and 3' in drift.sentence
    lines = describe_drift(drift)
    assert lines[0] == 'version 3, 1,240 images on 2026-11-27'
    assert [line.split()[0] for line in lines if line.endswith('  drift')] == ['brightness', 'contrast', 'predicted']


@pytest.mark.parametrize('size', ['width', 'height'])
def test_other_sizes_are_a_note_and_no_drift_because_the_model_resizes_every_image(size):
    drift = find(1_240, 1, **{size: 100})
    assert drift.verdict == 'no drift'
    now = {'width': '132x32', 'height': '32x132'}[size]
    (note,) = drift.notes
    assert note.startswith(f'the images are of other sizes, in the median {now} where the test images had 32x32; ')
    assert f'note: {note}' in describe_drift(drift)


@pytest.mark.parametrize(('size', 'is_noted'), [((4_000, 3_000), False), ((400, 100), True)])
def test_of_a_model_that_was_trained_with_photographs_only_small_images_are_of_other_sizes(size, is_noted):
    contract = DataContract(CONTRACT.class_names, 256, is_square=False)
    measured, probabilities = draw(COUNT, 0)
    measured[:, 3:] = 341, 256
    images = list_asked(1_240, 1)
    for image in images:
        image.statistics.update(zip(('width', 'height'), map(float, size), strict=True))
    drift = judge(3, contract, make_reference(measured, probabilities), RequestLog(images, {3: 1_240}, []), BOUND)
    assert [note.split(';')[0] for note in drift.notes] == [
        'the images are of other sizes, in the median 400x100 where the test images had 341x256'
    ] * is_noted


def test_the_classes_are_those_of_the_version(serving, tmp_path, capsys):
    contract = DataContract(('cow', 'goat', 'sheep'), 256, is_square=False)
    labels = np.arange(COUNT) % 3
    images = [dataclasses.replace(image, label=2, probabilities=(0.1, 0.1, 0.8)) for image in list_asked(600, 1)]
    probabilities = np.eye(3, dtype=np.float32)[labels] * 0.7 + 0.1
    write_reference(serving / '3' / REFERENCE_FILE, make_reference(draw(COUNT, 0)[0], probabilities))
    (serving / '3' / CONTRACT_FILE).write_text(contract.to_json())
    (tmp_path / 'a.jsonl').write_text(''.join(image.to_line() for image in images))
    code, out, _ = call(capsys, '--serving', serving, '--requests', tmp_path / 'a.jsonl')
    assert code == 3
    assert '100% are called sheep where 33% of the test images were' in out


@pytest.mark.parametrize('count', [LEAST_IMAGES, 1_240])
def test_chance_is_not_called_drift(count):
    found = [find(count, seed) for seed in range(1, 41)]
    alarms = [each.sentence for each in found if each.verdict == 'drift']
    assert len(alarms) <= 2, 'one check of a hundred may be a false alarm'
    assert all(each.notes == () for each in found)
    if not alarms:
        assert found[0].sentence.startswith(f'no drift found on {count:,} images; a distance of 0.1')


def test_a_difference_too_small_to_matter_is_not_called_drift_however_many_images_show_it():
    drift = find(20_000, 1, brightness=0.15)
    assert drift.verdict == 'no drift'
    assert drift.comparisons[0].distance > 0.04, 'certain with so many images'


def test_with_few_test_images_chance_explains_more():
    small = make_reference(*draw(100, 0))
    verdicts = [
        judge(3, CONTRACT, small, RequestLog(list_asked(LEAST_IMAGES, seed), {3: LEAST_IMAGES}, []), BOUND).verdict
        for seed in range(1, 41)
    ]
    assert verdicts.count('drift') <= 2


def test_too_few_images_say_so_and_who_answered_the_others():
    images = list_asked(LEAST_IMAGES - 1, 1, brightness=-3)
    drift = judge(3, CONTRACT, REFERENCE, RequestLog(images, {3: len(images), 4: 900, None: 2}, []), BOUND)
    assert drift.verdict == 'too few'
    assert drift.comparisons == ()
    assert drift.sentence == (
        'too few images to tell: version 3 answered 399 of those in the log, and at least 400 are needed '
        '(the others were answered: 900 by version 4, 2 by a version that the log does not name)'
    )


def test_images_that_could_not_be_decoded_are_counted_and_not_compared():
    images = list_asked(1_240, 1)
    broken = [
        dataclasses.replace(image, label=-1, statistics=dict.fromkeys(PROPERTIES), probabilities=())
        for image in images[:40]
    ]
    drift = judge(3, CONTRACT, REFERENCE, RequestLog([*images, *broken], {3: 1_280}, []), BOUND)
    assert (drift.verdict, drift.images) == ('no drift', 1_240)
    assert drift.notes == ('40 of 1,280 images could not be decoded or are too large to be measured',)


def test_answers_without_probabilities_are_compared_as_far_as_they_go():
    images = [dataclasses.replace(image, probabilities=()) for image in list_asked(1_240, 1, cats=0.3)]
    drift = judge(3, CONTRACT, REFERENCE, RequestLog(images, {3: 1_240}, []), BOUND)
    assert CONFIDENCE not in [each.property for each in drift.comparisons]
    assert '% are called cat' in drift.sentence


@pytest.fixture
def serving(tmp_path):
    """Versions 2, 3 and 4: 2 is canary and of an earlier release, and 3 is stable."""
    from tensorflow_serving.config import model_server_config_pb2

    for number in (2, 3, 4):
        folder = tmp_path / 'serving' / str(number)
        (folder / 'assets.extra').mkdir(parents=True)
        (folder / 'saved_model.pb').write_bytes(b'')
        (folder / INFO_FILE).write_text('{}')
        if number > 2:
            write_reference(folder / REFERENCE_FILE, REFERENCE)
    config = model_server_config_pb2.ModelConfig(name='cifar10', version_labels={'stable': 3, 'canary': 2})
    config.model_version_policy.specific.versions.extend([2, 3])
    write_config(tmp_path / 'serving', config)
    return tmp_path / 'serving'


@pytest.fixture
def requests(tmp_path):
    """A request sample: 600 dark images that version 3 answered and 500 usual ones that version 4 answered."""
    folder = tmp_path / 'requests'
    folder.mkdir()
    images = [*list_asked(600, 1, brightness=-1), *list_asked(500, 2, version=4)]
    (folder / '2026-11-27.jsonl').write_text(''.join(image.to_line() for image in images))
    return folder


def call(capsys, *arguments) -> tuple[int, str, str]:
    code = __main__.main(['drift', *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_exit_code_is_3_for_drift_and_0_for_none_and_for_too_few(serving, requests, capsys):
    code, out, err = call(capsys, '--serving', serving, '--requests', requests)
    assert (code, err) == (3, '')
    assert out.splitlines()[0] == 'version 3, 600 images on 2026-11-27'
    assert out.splitlines()[1].startswith('drifted: images are darker (brightness median ')
    code, out, _ = call(capsys, '--serving', serving, '--requests', requests, '--label', 'stable')
    assert (code, out.splitlines()[0]) == (3, 'version 3, 600 images on 2026-11-27')
    code, out, _ = call(capsys, '--serving', serving, '--requests', requests, '--version', 4)
    assert code == 0
    assert 'no drift found on 500 images' in out
    file = requests / '2026-11-27.jsonl'
    file.write_text(''.join(file.read_text().splitlines(keepends=True)[:600]))
    code, out, _ = call(capsys, '--serving', serving, '--requests', file, '--version', 4)
    assert code == 0
    assert 'too few images to tell: version 4 answered 0 of those in the log' in out


def test_json_has_everything_for_a_program(serving, requests, capsys):
    code, out, _ = call(capsys, '--serving', serving, '--requests', requests, '--json')
    found = json.loads(out)
    assert (code, found['verdict'], found['version'], found['images']) == (3, 'drift', 3, 600)
    (drifted,) = (each for each in found['comparisons'] if each['is_drift'])
    assert drifted['property'] == 'brightness'
    assert drifted['bound'] < 0.12 < drifted['distance']


def test_the_bound_is_that_which_the_version_was_made_with(serving, requests, capsys):
    info = {'settings': {'data_gate': {'max_drift': 0.9}}}
    (serving / '3' / INFO_FILE).write_text(json.dumps(info))
    code, out, _ = call(capsys, '--serving', serving, '--requests', requests)
    assert (code, 'a distance of 0.90 or more would have been seen' in out) == (0, True)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (['--version', '9'], r'serving has no version 9; `python -m pipeline versions` lists those that there are\.'),
        (['--label', 'x'], 'serving has no version with the label x; '),
        (['--label', 'canary'], r'version 2 does not say what its test images look like .* push a new version'),
        (['--requests', 'nowhere/*.log'], r'--requests nowhere/\*\.log matches no file; give the folder that '),
        (['--requests', 'empty'], r'--requests empty has no \.jsonl file, so it is not a request sample; '),
        (['--serving', 'nowhere'], 'nowhere is not a folder; --serving takes '),
    ],
)
def test_wrong_usage_is_one_sentence(options, sentence, serving, requests, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    code, out, err = call(capsys, '--serving', serving, '--requests', requests, *options)
    assert (code, out, err.count('\n')) == (2, '', 1)
    assert re.search(sentence, err)


def test_a_damaged_reference_is_named(serving, requests, capsys):
    (serving / '3' / REFERENCE_FILE).write_text('{"count"')
    code, _, err = call(capsys, '--serving', serving, '--requests', requests)
    assert code == 2
    assert 'reference.json is damaged (' in err


def test_damaged_lines_are_named_and_left_out(serving, requests, capsys):
    file = requests / '2026-11-27.jsonl'
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(''.join(['{"time": "20\n', *lines[:700], 'x\n' * 6, *lines[700:]]))
    code, out, _ = call(capsys, '--serving', serving, '--requests', requests)
    assert code == 3
    assert f'note: line 1 of {file} is damaged and was left out\n' in out
    assert 'note: line 702 of ' in out
    assert 'note: and 2 more such faults\n' in out
    assert out.startswith('version 3, 600 images')


def write_logs(file, requests, compression: str = '') -> None:
    """Writes requests as TensorFlow Serving logs them; None stands for a record that is no PredictionLog."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    with tf.io.TFRecordWriter(str(file), compression) as writer:
        for each in requests:
            log = prediction_log_pb2.PredictionLog()
            if each is None:
                writer.write(b'\xff' * 20)
                continue
            asked, answer = each
            for name, value in asked.inputs.items():
                log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value.tolist()))
            log.predict_log.request.model_spec.signature_name = answer.signature
            for name, value in answer.outputs.items():
                log.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            if answer.version:
                log.predict_log.response.model_spec.version.value = answer.version
            writer.write(log.SerializeToString())


def test_prediction_logs_of_tensorflow_serving_are_read(tmp_path):
    write_logs(
        tmp_path / 'a.log', [ask(IMAGES[:100]), None, ask(IMAGES[100:110], version=4), ask(IMAGES[:3], version=0)]
    )
    write_logs(tmp_path / 'b.log.gz', [ask(IMAGES[100:200], [7] * 100)], 'GZIP')
    (tmp_path / 'c.log').write_bytes((tmp_path / 'a.log').read_bytes()[:-5])
    log = read_log(str(tmp_path / '*.log*'), 3, SIZE)
    brightness = [image.statistics['brightness'] for image in log.images]
    assert sorted(brightness) == sorted([*range(200), *range(100)])
    assert {image.signature for image in log.images} == {'serving_default'}
    assert sum(image.label == 7 for image in log.images) == 100
    assert log.images[0].probabilities[0] == 1
    assert log.counts == {3: 300, 4: 20, None: 3}
    assert log.faults[0].startswith(f'record 2 of {tmp_path}/a.log is no PredictionLog (')
    assert any('c.log cannot be read as TFRecords after record 3 (' in fault for fault in log.faults)


def test_a_long_log_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr('pipeline.request_log.SAMPLE_SIZE', 50)
    write_logs(tmp_path / 'a.log', [ask(IMAGES)])
    first, again = (read_log(str(tmp_path / 'a.log'), 3, SIZE) for _ in range(2))
    assert first.images == again.images
    assert len(first.images) == 50
    assert first.faults == ['of 200 images in the TFRecords a sample of 50 was measured']
    assert first.counts == {3: 200}


def test_the_sample_that_the_server_writes_is_what_the_command_reads(tmp_path):
    sample = request_sample.RequestSample(tmp_path / 'requests')
    sample.offer(*ask(IMAGES, version=3))
    sample.close()
    log = read_log(str(tmp_path / 'requests'), 3, SIZE)
    assert [image.statistics['brightness'] for image in log.images] == list(range(200))
    assert log.faults == []
    assert len(log.images[0].probabilities) == CONTRACT.num_classes
