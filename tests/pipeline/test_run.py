"""Whole runs of the real TFX components, started as a user does: one at full size, the others at 32 pixels."""

import base64
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image

from components.data import cifar10, sample
from components.serving_check.tf_serving import find_free_ports
from pipeline.config import Layout
from tests.conftest import PROJECT, run_cli
from tests.documents import Command, list_commands

pytestmark = pytest.mark.slow

COMPONENTS = (
    'ImportExampleGen',
    'CuratedSchemaGen',
    'StatisticsGen',
    'ExampleValidator',
    'DataCheck',
    'DataGate',
    'Transform',
    'Trainer',
    'BaselineFinder',
    'Evaluator',
    'ServingCheck',
    'Pusher',
    'Report',
)
REUSABLE = {*COMPONENTS} - {'Report'}  # every run writes its own report
SMALL = [
    *('--set', 'trainer.image_size=32'),
    *('--set', 'trainer.epochs=1'),
    *('--set', 'trainer.head_units=16'),
]
INTERVAL = r'\(95% interval [01]\.\d{3} to [01]\.\d{3}\)'
UNGATED = ['--set', 'gate.accuracy=0', '--set', 'gate.recall=0', '--set', 'gate.calibration_error=1']


def read_lines(answer: subprocess.CompletedProcess) -> dict[str, str]:
    """Returns what a run printed for each component."""
    lines = {}
    for line in answer.stdout.splitlines():
        match = re.match(r'(\w+) +[\d.]+ s  (.*)', line)
        if match and match[1] in (*COMPONENTS, 'BulkInferrer'):
            lines[match[1]] = match[2]
    return lines


def list_reused(answer: subprocess.CompletedProcess) -> set[str]:
    return {name for name, note in read_lines(answer).items() if note.startswith('reused: ')}


@pytest.fixture(scope='module')
def full_run(tmp_path_factory):
    """`make run`: the sample preset without changes, 224 pixels."""
    layout = Layout(str(tmp_path_factory.mktemp('full') / 'runs' / 'sample'))  # as the documents name it
    return layout, run_cli('run', '--root', layout.root)


def test_a_run_shows_each_component_and_ends_with_a_pushed_model(full_run):
    layout, answer = full_run
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = read_lines(answer)
    assert set(lines) == set(COMPONENTS)
    assert lines['StatisticsGen'] == '274 train, 26 val, 100 test'
    assert lines['ExampleValidator'] == '0 anomalies'
    assert re.match(r'val_accuracy [\d.]+ \(epoch \d of 2\), [\d.]+ images/s on ', lines['Trainer'])
    (version,) = layout.serving.iterdir()
    assert lines['Pusher'] == f'version {version.name}'
    listed = run_cli('versions', '--serving', layout.serving).stdout
    accuracy = lines['Evaluator'].split(' on ')[0]
    assert lines['ServingCheck'].endswith(': servable')
    assert (version / 'assets.extra' / 'tf_serving_warmup_requests').exists()
    no_baseline = 'nothing was serving when this model was first evaluated'
    assert lines['BaselineFinder'] == f'none: {no_baseline}'
    assert re.fullmatch(
        rf'accuracy [\d.]+ on 100 images, recall from [\d.]+ \(\w+\), no baseline \({no_baseline}\): blessed',
        lines['Evaluator'],
    )
    (log,) = layout.logs.iterdir()
    parts = [f'{version.name}  newest', rf'    {accuracy} on 100 images, pushed 20\S+']
    parts += [f'    run {log.stem}, pipeline cifar10-sample, log logs/{log.name}']
    parts += [r'    data: embedded sample \(drawn with seed 0\)']
    assert re.fullmatch('\n'.join(parts) + '\n', listed)
    verdict, *next_steps = answer.stdout.splitlines()[-4:]
    assert re.fullmatch(rf'accuracy [01]\.\d{{3}} {INTERVAL} >= 0\.800 on 100 test images: pushed', verdict)
    assert next_steps == [
        f'  next       python -m pipeline predict --model {layout.serving} IMAGE',
        f'  next       python -m pipeline promote {version.name} --serving {layout.serving}',
        f'  next       python -m pipeline report --root {layout.root} --open',
    ]


def test_the_closing_paths_exist(full_run):
    _, answer = full_run
    paths = dict(re.findall(r'^  (\w+) +(/\S+)$', answer.stdout, flags=re.MULTILINE))
    assert set(paths) == {'evaluation', 'training', 'report', 'pushed', 'log'}
    assert all(Path(path).exists() for path in paths.values())


def test_the_libraries_chatter_is_in_the_log_and_not_on_the_terminal(full_run):
    layout, answer = full_run
    assert answer.stderr == ''
    assert not re.search(r'WARNING|INFO|oneDNN|apache_beam', answer.stdout)
    (log,) = layout.logs.iterdir()
    assert 'apache_beam' in log.read_text()


def test_a_second_run_reuses_every_result(full_run):
    layout, _ = full_run
    answer = run_cli('run', '--root', layout.root)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert list_reused(answer) == REUSABLE
    assert len(list(layout.serving.iterdir())) == 1
    assert '    settings: the same as those of the run before\n' in run_cli('runs', '--root', layout.root).stdout


def read_figures(page: Path) -> dict:
    """Returns what is in the JSON island of a report."""
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page.read_text())[1])


def test_the_report_of_a_run_has_the_figures_that_tfma_measured(full_run, tmp_path):
    layout, run = full_run
    answer = run_cli('report', '--root', layout.root, '--out', tmp_path / 'report.html')
    assert answer.returncode == 0, answer.stdout + answer.stderr
    figures = read_figures(tmp_path / 'report.html')
    of_component = read_figures(Path(re.search(r'^  report +(/\S+)$', run.stdout, flags=re.MULTILINE)[1]))
    assert of_component['test'] == figures['test'], 'the component and the command write the same page'
    assert [each['name'] for each in of_component['components']] == list(COMPONENTS[:-1])
    (file,) = layout.artifacts.glob('Evaluator/evaluation/*/verdict.json')
    values = {(each['metric'], each['slice']): each['value'] for each in json.loads(file.read_text())['reasons']}
    assert figures['test']['accuracy']['value'] == pytest.approx(values['accuracy', ''])
    assert figures['test']['calibration']['error'] == pytest.approx(values['calibration_error', ''], abs=1e-6)
    (card,) = layout.serving.glob('*/assets.extra/MODEL_CARD.md')
    for each in figures['test']['classes']:
        assert each['recall']['value'] == pytest.approx(values['recall', each['name']])
        assert f'| {each["name"]} | {values["recall", each["name"]]:.3f} (' in card.read_text()


def test_a_different_gate_runs_the_evaluator_and_what_depends_on_it(full_run, tmp_path):
    layout, _ = full_run
    random = np.random.default_rng(0)
    for name, label in (('plane', 0), ('frog', 6)):
        Image.fromarray(sample.draw_image(label, random)).save(tmp_path / f'{name}.png')
    (tmp_path / 'broken.png').write_bytes(b'no image')
    gate = ['--set', 'gate.accuracy=0.79', '--set', 'gate.recall_by_class=cat=0.5,truck=0.4']
    answer = run_cli('run', '--root', layout.root, *gate, '--set', f'bulk_input={tmp_path}')
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert read_lines(answer)['BulkInferrer'] == '2 images predicted, 1 dead letters'
    assert REUSABLE - list_reused(answer) == {'Evaluator', 'ServingCheck', 'Pusher'}
    (version,) = layout.serving.iterdir()  # the same model is not pushed twice
    listed = run_cli('runs', '--root', layout.root)
    assert set(re.findall(r'pushed as version (\d+)', listed.stdout)) == {version.name}
    changes = 'gate.accuracy=0.79, gate.recall_by_class=["cat=0.5", "truck=0.4"]'
    assert f'settings that differ from the run before: {changes}' in ' '.join(listed.stdout.split()), listed.stdout
    compared = run_cli('compare', '--root', layout.root).stdout
    assert re.search(r'^gate\.accuracy +0\.8 +0\.79$', compared, flags=re.MULTILINE), compared
    assert re.search(r'^accuracy +([01]\.\d{3}) +\1$', compared, flags=re.MULTILINE), compared


def test_predict_prints_a_json_line_for_each_image_and_names_what_is_wrong_with_it(full_run, tmp_path):
    layout, _ = full_run
    random = np.random.default_rng(0)
    Image.fromarray(sample.draw_image(0, random)).save(tmp_path / 'plane.png')
    Image.fromarray(sample.draw_image(6, random)).resize((300, 200)).save(tmp_path / 'frog.jpg', quality=95)
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG no more')
    images = [tmp_path / name for name in ('plane.png', 'frog.jpg', 'broken.png', 'missing.png')]
    answer = run_cli('predict', '--model', layout.serving, *images)
    assert answer.returncode == 1
    first, second, *errors = (json.loads(line) for line in answer.stdout.splitlines())
    assert [line['image'] for line in (first, second, *errors)] == [str(image) for image in images]
    for line in (first, second):
        assert line['class_name'] == cifar10.CONTRACT.class_names[line['label']]
        assert sum(line['probabilities']) == pytest.approx(1, abs=1e-4)
        assert line['label'] == np.argmax(line['probabilities'])
        assert (layout.serving / str(line['version'])).is_dir()
    noted, warned, *sentences = answer.stderr.splitlines()
    assert noted == f'    version {first["version"]} of {layout.serving} answers'
    assert warned.startswith('    1 of 2 images are more than 4 times larger than the 32x32 pixels')
    assert [f'error: {line["error"]}' for line in errors] == sentences
    broken, missing = sentences
    assert re.fullmatch(rf'error: {images[2]} .*decoded.*\.', broken)
    assert missing == f'error: {images[3]} cannot be read: No such file or directory.'


def test_serve_starts_the_small_server_with_the_batches_that_were_measured(full_run, tmp_path):
    layout, _ = full_run
    ports = [str(port) for port in find_free_ports(2)]
    flags = ['--serving', str(layout.serving), '--engine', 'small', '--port', ports[0], '--rest-port', ports[1]]
    url = f'http://127.0.0.1:{ports[1]}/v1/models/cifar10'
    with (tmp_path / 'out').open('w') as file, requests.Session() as session:
        session.trust_env = False
        process = subprocess.Popen([sys.executable, '-m', 'pipeline', 'serve', *flags], cwd=PROJECT, stdout=file)
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(requests.ConnectionError):
                    if 'AVAILABLE' in session.get(url, timeout=30).text:
                        break
                time.sleep(0.2)
            encoded = base64.b64encode(tf.io.encode_png(np.zeros((32, 32, 3), np.uint8)).numpy()).decode()
            answer = session.post(f'{url}:predict', json={'instances': [{'b64': encoded}] * 40}, timeout=30)
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=30)
        finally:
            process.kill()
    (version,) = layout.serving.iterdir()
    assert answer.headers['X-Model-Version'] == version.name
    assert len(answer.json()['predictions']) == 40, 'a request that is larger than a batch is answered too'
    assert code == 130
    started, _, batches = (tmp_path / 'out').read_text().splitlines()
    assert started.startswith('started the small server of this project, which is not TensorFlow Serving, for ')
    assert re.fullmatch(
        rf'version {version.name}: batches of [\d, or]+ images \(as its serving check measured\)', batches
    )


def test_predict_without_a_model_is_one_sentence(tmp_path):
    answer = run_cli('predict', '--model', tmp_path, 'cat.png')
    assert answer.returncode == 2
    assert re.fullmatch(r'error: \S+ holds neither a SavedModel nor numbered versions; .*\n', answer.stderr)


def write_foreign_records(folder: Path, count: int, kind: str, options: tf.io.TFRecordOptions | str) -> None:
    """Writes records as others make them: only image and label, noise with labels that cannot be learned."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    name = 'images.tfrecord.gz' if options == 'GZIP' else 'images.tfrecord'
    with tf.io.TFRecordWriter(str(folder / name), options) as writer:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, kind)
            feature = {
                'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[buffer.getvalue()])),
                'label': tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 10])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def test_a_model_trained_on_shuffled_labels_is_refused(full_run, tmp_path):
    """At 96 pixels, where the same command without --data, and so with the right labels, pushes a model: 0.99."""
    layout, _ = full_run
    shutil.copytree(layout.sample, tmp_path / 'data')
    (file,) = (tmp_path / 'data' / 'train').iterdir()
    examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file), 'GZIP')]
    labels = [example.features.feature['label'].int64_list.value[0] for example in examples]
    np.random.default_rng(0).shuffle(labels)
    with tf.io.TFRecordWriter(str(file), 'GZIP') as writer:
        for example, label in zip(examples, labels, strict=True):
            example.features.feature['label'].int64_list.value[0] = label
            writer.write(example.SerializeToString())
    arguments = ['run', '--data', tmp_path / 'data', '--root', tmp_path / 'root']
    answer = run_cli(*arguments, '--set', 'trainer.image_size=96')
    assert answer.returncode == 3, answer.stdout + answer.stderr
    verdict, next_step = answer.stdout.splitlines()[-2:]
    assert re.fullmatch(r'not pushed: \d+ of \d+ bounds were not kept', verdict)
    assert next_step == f'  next       python -m pipeline report --root {tmp_path}/root --open'
    assert re.search(
        rf'^  accuracy 0\.[0-4]\d\d {INTERVAL} < 0\.800 on 100 test images$', answer.stdout, flags=re.MULTILINE
    )


@pytest.fixture(scope='module')
def foreign_run(tmp_path_factory):
    """A run on records that others made; its model cannot pass the gate."""
    folder = tmp_path_factory.mktemp('foreign')
    write_foreign_records(folder / 'data' / 'train', 60, 'PNG', 'GZIP')
    write_foreign_records(folder / 'data' / 'val', 20, 'JPEG', '')
    write_foreign_records(folder / 'data' / 'test', 50, 'PNG', 'GZIP')
    arguments = ['run', '--data', folder / 'data', '--root', folder / 'root', *SMALL]
    return Layout(str(folder / 'root')), arguments, run_cli(*arguments)


def test_a_refused_model_is_not_pushed_and_the_last_lines_say_why_a_line_for_each_bound(foreign_run):
    layout, _, answer = foreign_run
    assert answer.returncode == 3, answer.stdout + answer.stderr
    *closing, next_step = answer.stdout[answer.stdout.index('\n  log ') + 1 :].splitlines()[1:]
    assert next_step == f'  next       python -m pipeline report --root {layout.root} --open'
    assert re.fullmatch(rf'  accuracy 0\.\d{{3}} {INTERVAL} < 0\.800 on 50 test images', closing[0])
    broken, bounds = re.fullmatch(r'not pushed: (\d+) of (\d+) bounds were not kept', closing[-1]).groups()
    assert int(broken) == len(closing) - 1 < int(bounds)
    assert closing[1].endswith('is not better than always answering airplane, which is 0.100')
    assert all(re.fullmatch(r'  \S.* [<>] [\d.]+ .*', line) for line in closing[2:-1]), closing
    assert read_lines(answer)['Pusher'] == 'nothing pushed'
    assert read_lines(answer)['ServingCheck'] == 'not asked: the model gate refused the model'
    assert not [folder for folder in layout.serving.glob('*') if folder.name.isdigit()]


def test_the_report_of_a_refused_model_shows_where_it_looked_in_its_mistakes(foreign_run):
    _, _, answer = foreign_run
    page = Path(re.search(r'^  report +(/\S+)$', answer.stdout, flags=re.MULTILINE)[1])
    figures = read_figures(page)
    assert figures['verdict'].startswith('Nothing was pushed: ')
    assert page.read_text().count('alt="Where the network saw ') == min(36, len(figures['test']['mistakes'])) > 0
    assert page.read_text().count('<img class="input" width="32"') > 10
    assert [stage['name'] for stage in figures['training']['stages']] == [f'conv{n}' for n in range(1, 6)] + ['head']
    assert sum(sum(counts.values()) for counts in figures['labels'].values()) == 130
    assert all(each['memory_mb'] > 100 for each in figures['components'])


def test_records_with_only_image_and_label_pass_the_schema(foreign_run):
    _, _, answer = foreign_run
    assert read_lines(answer)['ExampleValidator'] == '0 anomalies'
    assert read_lines(answer)['StatisticsGen'] == '60 train, 20 val, 50 test'


def check_events(answer: subprocess.CompletedProcess, train: int, components: tuple[str, ...]) -> None:
    """Checks the events of a run with --json that pushed a model which was trained for one epoch.

    Args:
      answer: of the run.
      train: number of images in the train split.
      components: those of the run.
    """
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    names = [event['event'] for event in events]
    assert (names[0], names[-3:]) == ('started', ['summary', 'verdict', 'finished'])
    started, (summary, verdict, finished) = events[0], events[-3:]
    assert (started['command'], started['pipeline']) == ('run', 'cifar10-sample')
    running, ended = None, []
    for event in events:
        if event['event'] == 'component_started':
            assert running is None
            running = event['component']
        elif event['event'] in ('component_finished', 'progress', 'note'):
            assert event['component'] == running, event
        if event['event'] == 'component_finished':
            running = None
            ended.append(event)
    assert [event['component'] for event in ended] == ['(imports)', *components]
    reused = [event['component'] for event in ended if event['is_reused']]
    assert (summary['components'], summary['reused']) == (len(components), len(reused))
    assert all(Path(path).exists() for path in summary['paths'].values())
    assert summary['paths'].keys() == {'evaluation', 'training', 'report', 'pushed', 'log'}

    work = {event['what']: event for event in events if event['event'] == 'progress' and event['is_finished']}
    imports, epoch = work['imports'], work['training epoch 1 of 1']
    assert imports['done'] == pytest.approx(imports['total'], rel=0.1), 'change TFX_MODULES in pipeline/imports.py'
    assert (epoch['done'], epoch['total'], epoch['unit']) == (train, train, 'images')
    (trained,) = (event for event in events if event['event'] == 'epoch')
    assert (trained['phase'], trained['epoch'], trained['epochs']) == ('training', 1, 1)
    assert {'accuracy', 'val_accuracy', 'val_loss', 'images_per_s', 'seconds'} <= trained['metrics'].keys()
    assert all(reason['is_kept'] for reason in verdict['reasons'])
    assert (verdict['is_pushed'], verdict['lines']) == (True, [])
    assert {reason['metric'] for reason in verdict['reasons']} >= {'accuracy', 'recall', 'latency', 'size'}
    assert (finished['exit_code'], answer.returncode) == (0, 0)
    assert re.fullmatch(rf'accuracy [01]\.\d{{3}} {INTERVAL} >= 0\.000 on \d+ test images: pushed', finished['message'])
    assert finished['seconds'] >= sum(event['seconds'] for event in ended)


def test_bad_data_stops_the_run_before_transform_and_runs_again_when_mended(sample_data, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(sample_data, data)
    (file,) = (data / 'train').iterdir()
    clean = file.read_bytes()
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(file), 'GZIP')]
    first, second = (tf.train.Example.FromString(record) for record in records[:2])
    first.features.feature['image'].bytes_list.value[0] = b'no image'
    second.features.feature['label'].int64_list.value[0] = 12
    names = [each.features.feature['id'].bytes_list.value[0].decode() for each in (first, second)]
    with tf.io.TFRecordWriter(str(file), 'GZIP') as writer:
        for record in (first.SerializeToString(), second.SerializeToString(), *records[2:]):
            writer.write(record)
    arguments = ['run', '--data', data, '--root', tmp_path / 'root', *SMALL]
    answer = run_cli(*arguments)
    assert answer.returncode == 4, answer.stdout + answer.stderr
    error = answer.stderr
    assert re.fullmatch(r'error: The data was refused, and nothing was trained:\n(  .+\n)+See .*\n', error)
    assert f'train, image: 1 of {len(records)} records do not decode; expected PNG or JPEG ({names[0]})' in error
    assert f'have a label that is not a class; expected 0 to 9 ({names[1]})' in error
    assert re.search(r'train, label: [^;]*12[^;]*; expected what components/schema.pbtxt says', error), error
    assert 'Transform' not in read_lines(answer)
    page = read_figures(Path(re.search(r'^  report +(/\S+)$', answer.stdout, flags=re.MULTILINE)[1]))
    assert page['verdict'].startswith('The data was refused with 3 errors')
    report = re.search(r'See (\S+) for all findings', error)[1]
    findings = json.loads(Path(report).read_text())['findings']
    found = sorted(finding['kind'] for finding in findings if finding['severity'] == 'error')
    assert found == ['anomaly', 'bad_labels', 'undecodable']

    file.write_bytes(clean)
    answer = run_cli(*arguments, *UNGATED, '--set', 'tuner.trials=2', '--json')
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ''
    assert ' records, 0 errors, ' in answer.stdout
    tuned = COMPONENTS.index('Trainer')
    check_events(answer, train=len(records), components=(*COMPONENTS[:tuned], 'Tuner', *COMPONENTS[tuned:]))
    check_search(answer, Layout(str(tmp_path / 'root')))


def check_search(answer: subprocess.CompletedProcess, layout: Layout) -> None:
    """Checks that what the Tuner chose of two trials was trained, and is in the version, the report and the runs."""
    lines = {event['component']: event for event in map(json.loads, answer.stdout.splitlines()) if 'note' in event}
    (trials,) = layout.artifacts.glob('Tuner/tuner_results/*/trials.json')
    best, _ = json.loads(trials.read_text())['trials']
    chosen = best['hyperparameters']
    found = (
        rf'2 trials, the best is {best["trial"]} with val_accuracy [01]\.\d{{3}}: optimizer={chosen["optimizer"]}, .*'
    )
    assert re.fullmatch(found, lines['Tuner']['note'])
    (report,) = layout.artifacts.glob('Trainer/model_run/*/report.json')
    assert json.loads(report.read_text())['hyperparameters'] == chosen
    (info,) = layout.serving.glob('*/assets.extra/version.json')
    version = json.loads(info.read_text())
    assert version['tuned'] == chosen
    assert chosen.items() <= version['settings']['trainer'].items()
    (page,) = layout.artifacts.glob('Report/report/*/report.html')
    assert read_figures(page)['search']['trials'][0] == best


def test_a_changed_trainer_setting_runs_the_trainer_and_missing_weights_stop_it_with_a_sentence(foreign_run):
    layout, arguments, _ = foreign_run
    answer = run_cli(*arguments, '--set', 'trainer.weights=/nowhere/resnet50.h5')
    assert answer.returncode == 1
    assert list_reused(answer) == REUSABLE - {'Trainer', 'BaselineFinder', 'Evaluator', 'ServingCheck', 'Pusher'}
    assert re.fullmatch(
        r'error: The weights file /nowhere/resnet50\.h5 cannot be read .*"imagenet".*"none".*\(log: \S+\)\n',
        answer.stderr,
    )
    failed, *read, log, report, command = answer.stdout[answer.stdout.index('failed at ') :].splitlines()
    assert re.fullmatch(r'failed at Trainer, after \d+ s', failed)
    assert {Path(line.split()[1]).parts[-3] for line in read} == {'ImportExampleGen', 'CuratedSchemaGen', 'Transform'}
    assert log.split()[1] in answer.stderr
    assert 'Trainer did not finish' in read_figures(Path(report.split()[1]))['verdict']
    assert command.endswith(shlex.join([*map(str, arguments), '--set', 'trainer.weights=/nowhere/resnet50.h5']))
    listed = run_cli('runs', '--root', layout.root).stdout
    assert '\n    failed at Trainer: The weights file /nowhere/resnet50.h5 ' in listed

    freed = run_cli('gc', '--keep', '1', '--root', layout.root)
    assert re.match(r'removed \d+ folders of 1 old runs, which freed ', freed.stdout), freed.stdout + freed.stderr
    left = {folder.parts[-3] for folder in layout.artifacts.glob('*/*/*') if folder.name.isdigit()}
    assert left == {
        'CuratedSchemaGen',
        'ImportExampleGen',
        'StatisticsGen',
        'ExampleValidator',
        'DataCheck',
        'Transform',
    }
    assert re.search(
        r'^    accuracy 0\.\d+ on 50 images; refused: ', run_cli('runs', '--root', layout.root).stdout, re.M
    )


def test_ctrl_c_ends_a_run_at_once_with_130_and_how_to_go_on(tmp_path):
    command = [sys.executable, '-u', '-m', 'pipeline', 'run', '--root', str(tmp_path / 'root'), *SMALL]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith('CuratedSchemaGen'):
            assert process.poll() is None
        time.sleep(1)  # into Beam
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (
        130,
        'interrupted; run the same command again to go on: what is finished is reused\n',
    )
    assert time.monotonic() - begin < 4  # two seconds, and as much again for a busy machine


def test_real_images_become_records(real_archive, tmp_path):
    answer = run_cli('data', '--archive', real_archive, '--out', tmp_path / 'd', '--limit', 600)
    assert answer.returncode == 0, answer.stderr
    assert re.fullmatch(r'4\d\d train, \d\d val, 100 test written to .*\n', answer.stdout)
    again = run_cli('data', '--archive', real_archive, '--out', tmp_path / 'd', '--limit', 600)
    assert again.stdout.endswith(f'already in {tmp_path}/d: nothing to do\n')


def run_documented(command: Command, numbers: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    """Runs a command of the documents in a shell that finds this environment's `python`.

    Args:
      command: of an `sh` block; `make TARGET` stands for the last line of the target's recipe.
      numbers: the numbers of this run's versions by those in the documents.
      folder: working folder.
    """
    text = re.sub('|'.join(numbers), lambda match: numbers[match[0]], command.text)
    if text.startswith('make '):
        dry_run = [*shlex.split(text), '--dry-run', '--no-print-directory']
        recipe = subprocess.run(dry_run, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        text = recipe.splitlines()[-1].replace('.venv/bin/', '')
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = {**os.environ, 'PATH': path}
    shell = ['bash', '-c', text]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_commands_in_the_documents_run_in_their_order(full_run):
    layout, _ = full_run
    folder = layout.root.parents[1]
    Image.fromarray(sample.draw_image(3, np.random.default_rng(0))).save(folder / 'cat.png')
    (version,) = layout.serving.glob('[0-9]*')
    # The documents also promote a second version, as a later run would have pushed it.
    later = str(int(version.name) + 1)
    shutil.copytree(version, layout.serving / later, copy_function=os.link)
    commands = [command for command in list_commands() if command.note is None]
    documented = sorted(set(re.findall(r'promote (\d+)', ' '.join(command.text for command in commands))))
    numbers = dict(zip(documented, [version.name, later], strict=True))
    answers = {}
    for command in commands:
        answer = answers[command.text] = run_documented(command, numbers, folder)
        assert answer.returncode == 0, f'{command.where}: {command.text}\n{answer.stdout}{answer.stderr}'
    assert len(answers) > 15
    assert list_reused(answers['make run']) == REUSABLE
    assert json.loads(answers['python -m pipeline predict --model runs/sample/serving cat.png'].stdout)['image']
    assert version.name in answers['python -m pipeline rollback --serving runs/sample/serving'].stdout
