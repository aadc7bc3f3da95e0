"""The Pusher: what becomes a version, what a version says about itself, and what is not pushed."""

import errno
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from tfx import types
from tfx.proto import pusher_pb2
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components import pusher
from components.baseline import BASELINE_FILE, Baseline, BaselineInfo
from components.contract import CONTRACT_FILE, DataContract
from components.data import cifar10
from components.errors import PipelineError
from components.model_gate.slices import Slice, write_slices
from components.model_gate.verdict import Verdict, write_verdict
from components.reasons import Reason
from components.serving import version_labels, versions
from components.serving.model_card import CARD_FILE
from components.serving_check.component import WARMUP_FILE
from components.serving_check.report import make_skipped_report, write_report

DEFAULTS = {'trainer': {'epochs': 10, 'seed': 0}}


@pytest.fixture
def push(tmp_path, place, monkeypatch):
    """Runs the Pusher's executor on a model; returns the serving folder and the pushed_model artifact."""
    monkeypatch.setattr(pusher, 'read_metrics', lambda uri: {None: {'accuracy': 0.93, 'example_count': 100.0}})
    serving = place / 'serving'
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / 'model')
    folder = tmp_path / 'model' / 'Format-Serving'
    (folder / 'variables').mkdir(parents=True)
    (folder / 'saved_model.pb').write_text('graph')
    (folder / 'variables' / 'variables.index').write_text('weights')
    destination = pusher_pb2.PushDestination(filesystem={'base_directory': str(serving)})

    def run(
        is_blessed: bool = True,
        is_servable: bool = True,
        serving_classes: str = 'same',
        tuned: dict | None = None,
        **settings,
    ):
        blessing = standard_artifacts.ModelBlessing()
        blessing.uri = str(tmp_path / 'blessing')
        blessing.set_int_custom_property('blessed', int(is_blessed))
        evaluation = standard_artifacts.ModelEvaluation()
        evaluation.uri = str(tmp_path / 'evaluation')
        Path(evaluation.uri).mkdir(exist_ok=True)
        (Path(evaluation.uri) / versions.PREDICTIONS_FILE.name).write_text('predictions')
        (Path(evaluation.uri) / versions.REFERENCE_FILE.name).write_text('reference')
        baseline = Baseline()
        baseline.uri = str(tmp_path / 'baseline')
        Path(baseline.uri).mkdir(exist_ok=True)
        (Path(baseline.uri) / BASELINE_FILE).write_text(json.dumps(BaselineInfo(5)._asdict()))
        infra = standard_artifacts.InfraBlessing()
        infra.uri = str(tmp_path / 'infra')
        Path(infra.uri).mkdir(exist_ok=True)
        (Path(infra.uri) / WARMUP_FILE).write_text('requests')
        write_report(Path(infra.uri), make_skipped_report()._replace(batch_ms={'1': 20.0, '8': 82.0}))
        infra.set_int_custom_property('blessed', int(is_servable))
        statistics = standard_artifacts.ExampleStatistics()
        statistics.uri = str(tmp_path / 'statistics')
        (Path(statistics.uri) / 'Split-train').mkdir(parents=True, exist_ok=True)
        (Path(statistics.uri) / 'Split-train' / 'FeatureStats.pb').write_text('statistics')
        best = standard_artifacts.HyperParameters()
        best.uri = str(tmp_path / 'best')
        Path(best.uri).mkdir(exist_ok=True)
        (Path(best.uri) / 'best_hyperparameters.txt').write_text(json.dumps({'space': [], 'values': tuned}))
        pushed = standard_artifacts.PushedModel()
        pushed.uri = str(tmp_path / 'pushed')
        info = pipeline_pb2.PipelineInfo(id='cifar10-test')
        pusher.Executor(pusher.Executor.Context(pipeline_info=info, pipeline_run_id='20260102-030405')).Do(
            {
                'model': [model],
                'model_blessing': [blessing],
                'infra_blessing': [infra],
                'evaluation': [evaluation],
                'baseline': [baseline],
                'statistics': [statistics],
                **({'hyperparameters': [best]} if tuned else {}),
            },
            {'pushed_model': [pushed]},
            {
                'push_destination': proto_utils.proto_to_json(destination),
                'custom_config': json.dumps(
                    {
                        'data': str(tmp_path / 'data'),
                        'settings': settings,
                        'defaults': DEFAULTS,
                        'serving_classes': serving_classes,
                    }
                ),
            },
        )
        return serving, pushed

    return run


def test_a_blessed_model_is_pushed_completely_under_a_number(push):
    serving, pushed = push()
    version = versions.find_newest_version(serving)
    assert [name for name in (entry.name for entry in serving.iterdir()) if name[0] != '.'] == [version.name]
    assert abs(int(version.name) - time.time()) < 60
    assert (version / 'saved_model.pb').read_text() == 'graph'
    assert (version / 'variables' / 'variables.index').read_text() == 'weights'
    assert pushed.get_string_custom_property('pushed_destination') == str(version)
    assert pushed.get_string_custom_property('pushed_version') == version.name


def test_a_version_says_how_good_it_is_and_what_it_was_trained_on(push, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'manifest.json').write_text('{"source": {"name": "cifar.tar.gz"}}')
    (version,) = versions.list_versions(push(trainer={'epochs': 2, 'seed': 0})[0])
    assert version.info['accuracy'] == 0.93
    assert version.info['images'] == 100
    assert version.info['data'] == {'source': {'name': 'cifar.tar.gz'}}
    assert (version.info['baseline'], version.info['unlike']) == (5, None)
    assert version.info['contract'] == cifar10.CONTRACT.to_dict()
    assert version.info['batch_ms'] == {'1': 20.0, '8': 82.0}
    assert (version.folder / versions.STATISTICS_FOLDER / 'Split-train' / 'FeatureStats.pb').read_text() == 'statistics'
    assert (version.folder / 'assets.extra' / WARMUP_FILE).read_text() == 'requests'
    assert (version.folder / versions.PREDICTIONS_FILE).read_text() == 'predictions'
    assert (version.folder / versions.REFERENCE_FILE).read_text() == 'reference'
    assert version.info['settings'] == {'trainer': {'epochs': 2, 'seed': 0}}
    assert version.info['changed'] == {'epochs': 2}
    assert version.info['tuned'] is None
    assert '| `epochs` | `2` |' in (version.folder / CARD_FILE).read_text()
    assert (version.info['run'], version.info['pipeline']) == ('20260102-030405', 'cifar10-test')
    assert version.listing == 'newest'


def test_a_version_says_what_the_tuner_chose(push):
    chosen = {'epochs': 10, 'head_units': '[128]', 'seed': 3}
    (version,) = versions.list_versions(push(tuned=chosen, name='x', trainer={'epochs': 2, 'seed': 0})[0])
    assert version.info['tuned'] == {'epochs': 10, 'head_units': [128], 'seed': 3}
    assert version.info['settings'] == {'name': 'x', 'trainer': version.info['tuned']}
    assert version.info['changed'] == {'head_units': [128], 'seed': 3}


def test_the_model_card_of_a_version_has_the_figures_of_the_verdict(push, tmp_path):
    right, count = {name: 8 + label % 3 for label, name in enumerate(cifar10.CONTRACT.class_names)}, 10
    reasons = [
        Reason('accuracy', '', 0.93, 0.5, 100, True, ''),
        Reason('calibration_error', '', 0.02, 1, 100, True, ''),
    ]
    reasons += [Reason('recall', name, value / count, 0.5, count, True, '') for name, value in right.items()]
    evaluation = tmp_path / 'evaluation'
    evaluation.mkdir()
    write_verdict(str(evaluation), Verdict(True, tuple(reasons), 'accuracy +0.010 against version 5'))
    write_slices(evaluation, [Slice('contrast', 1, 3, 9, 20, 25), Slice('contrast', 2, 9, 12, 24, 25)])
    card = (versions.find_newest_version(push()[0]) / CARD_FILE).read_text()
    assert re.search(r'^Accuracy: \*\*0\.930 \(0\.863 to 0\.966\) on 100\*\*\.$', card, flags=re.MULTILINE)
    assert dict(re.findall(r'^\| (\w+) \| ([\d.]+) \([\d.]+ to [\d.]+\) on 10 \|$', card, flags=re.MULTILINE)) == {
        name: f'{value / count:.3f}' for name, value in right.items()
    }
    assert 'Calibration error: 0.020 on 100.' in card
    assert 'Against the baseline: accuracy +0.010 against version 5.' in card
    assert '| contrast 3 to 9 | 0.800 (' in card
    assert '| contrast 9 to 12 |' not in card, 'only the weakest quarter is shown'


def test_a_model_without_verdict_and_manifest_gets_a_card_that_says_so(push):
    card = (versions.find_newest_version(push()[0]) / CARD_FILE).read_text()
    assert 'The recall by class is not known.' in card
    assert 'How many records of each class it was trained on is not known.' in card


def test_a_push_is_listed_for_a_server_that_labels_versions(push):
    serving, _ = push()
    (first,) = versions.list_versions(serving)
    version_labels.promote(serving, first.number, 'stable')
    push()
    assert [(each.labels, each.listing) for each in versions.list_versions(serving)] == [
        (('stable',), 'listed'),
        ((), 'listed'),
    ]


def test_a_model_that_is_the_newest_already_is_not_pushed_again(push, monkeypatch):
    monkeypatch.setattr(pusher, 'read_fingerprint', lambda saved_model: 'one')
    serving, first = push()
    _, second = push()
    assert len(versions.list_versions(serving)) == 1
    number = first.get_string_custom_property('pushed_version')
    assert second.get_string_custom_property('pushed_version') == number
    monkeypatch.setattr(pusher, 'read_fingerprint', lambda saved_model: 'two')
    push()
    assert len(versions.list_versions(serving)) == 2


@pytest.mark.parametrize('place', ['path'], indirect=True)
def test_a_version_on_this_file_system_takes_no_space_of_its_own_and_outlives_the_other_copies(push, tmp_path):
    serving, pushed = push()
    version = versions.find_newest_version(serving)
    trained, kept = tmp_path / 'model' / 'Format-Serving', Path(pushed.uri)
    for name in ('saved_model.pb', 'variables/variables.index'):
        assert (trained / name).samefile(version / name)
        assert (trained / name).samefile(kept / name)
    assert {file.name for file in trained.rglob('*') if file.is_file()} == {'saved_model.pb', 'variables.index'}
    shutil.rmtree(trained)
    shutil.rmtree(kept)
    assert (version / 'variables' / 'variables.index').read_text() == 'weights'


@pytest.mark.parametrize('place', ['path'], indirect=True)
def test_a_file_system_without_hard_links_gets_a_copy(push, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EXDEV, 'Invalid cross-device link')

    monkeypatch.setattr(os, 'link', refuse)
    version = versions.find_newest_version(push()[0])
    assert (version / 'saved_model.pb').read_text() == 'graph'
    assert not (version / 'saved_model.pb').samefile(tmp_path / 'model' / 'Format-Serving' / 'saved_model.pb')


def test_the_extra_files_of_a_version_never_change_those_of_the_model_itself(tmp_path, push):
    extra = tmp_path / 'model' / 'Format-Serving' / 'assets.extra'
    extra.mkdir()
    written = (versions.INFO_FILE, CARD_FILE, versions.PREDICTIONS_FILE, versions.REFERENCE_FILE)
    for name in (*(file.name for file in written), WARMUP_FILE):
        (extra / name).write_text("the model's own")
    version = versions.find_newest_version(push()[0])
    assert json.loads((version / versions.INFO_FILE).read_text())['accuracy'] == 0.93
    assert (version / 'assets.extra' / WARMUP_FILE).read_text() == 'requests'
    assert (version / versions.PREDICTIONS_FILE).read_text() == 'predictions'
    assert {file.read_text() for file in extra.iterdir()} == {"the model's own"}


def test_the_settings_are_in_the_cache_key():
    def make(**settings):
        kinds = {
            'model': standard_artifacts.Model,
            'model_blessing': standard_artifacts.ModelBlessing,
            'infra_blessing': standard_artifacts.InfraBlessing,
            'evaluation': standard_artifacts.ModelEvaluation,
            'baseline': Baseline,
            'statistics': standard_artifacts.ExampleStatistics,
        }
        channels = {name: types.Channel(type=kind) for name, kind in kinds.items()}
        destination = pusher_pb2.PushDestination(filesystem={'base_directory': 'serving'})
        return pusher.Pusher(**channels, data='data', push_destination=destination, **settings).exec_properties

    assert make(settings={'seed': 1}) == make(settings={'seed': 1})
    assert make(settings={'seed': 1}) != make(settings={'seed': 2})
    assert json.loads(make()['custom_config']) == {
        'data': 'data',
        'settings': None,
        'defaults': None,
        'serving_classes': 'same',
    }


def test_a_model_of_other_classes_is_pushed_beside_the_serving_one_only_if_that_is_said(push, place, tmp_path):
    serving, _ = push()
    (version,) = versions.list_versions(serving)
    contract = tmp_path / 'model' / 'Format-Serving' / CONTRACT_FILE
    contract.parent.mkdir(exist_ok=True)
    contract.write_text(DataContract(('cat', 'cow', 'dog'), 256, False).to_json())
    with pytest.raises(PipelineError, match='Nothing was pushed: ') as caught:
        push()
    assert str(caught.value) == (
        f'Nothing was pushed: version {version.number}, which is serving in {serving}, has other classes: '
        f'{cifar10.CONTRACT.describe()}, and this model has 3 classes (cat, cow, dog) at 256 pixels; give another '
        'folder with --set serving=DIR, or push there anyway with --set serving_classes=any.'
    )
    assert len(versions.list_versions(serving)) == 1
    push(serving_classes='any')
    _, second = versions.list_versions(serving)
    assert second.info['contract'] == {'class_names': ['cat', 'cow', 'dog'], 'image_size': 256, 'is_square': False}
    push()
    assert len(versions.list_versions(serving)) == 3, 'the serving version has the same classes now'


@pytest.mark.parametrize('blessings', [(False, True), (True, False)])
def test_a_refused_model_is_not_pushed(push, blessings):
    serving, pushed = push(*blessings)
    assert list(serving.iterdir()) == []
    assert pushed.get_int_custom_property('pushed') == 0


def test_a_push_that_breaks_leaves_nothing(push, monkeypatch):
    def fail(*arguments):
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(pusher, 'choose_version', fail)
        with pytest.raises(OSError, match='disk full'):
            push()
    serving, _ = push()
    assert len(versions.list_versions(serving)) == 1
