"""The serving folder as TensorFlow Serving reads it, at every moment of a promotion."""

import time
from pathlib import Path

import pytest
from cloudpathlib import CloudPath
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineError, UsageError
from components.places import Place, fetch_folder, locate, remove_folder
from components.serving import version_labels, versions
from components.serving.models_config import CONFIG_FILE


def write(path: Place, text: str) -> None:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def serving(place) -> Place:
    """Three pushed versions, 10, 20 and 30, and what is none."""
    for name in ('40', '.50.partial-host-1', 'notes'):
        write(place / name / 'variables', name)
    for number in (10, 20, 30):
        write(place / str(number) / 'saved_model.pb', str(number))
    return place


def read_config(serving: Place) -> tuple[list[int], dict[str, int]]:
    """The versions that a server loads, and its labels."""
    text = (serving / CONFIG_FILE).read_text()
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert config.base_path == str(serving)
    assert config.name == 'cifar10'
    return list(config.model_version_policy.specific.versions), dict(config.version_labels)


@pytest.fixture
def server(serving, monkeypatch):
    """What TensorFlow Serving does with each models.config: refuses labels of what it has not loaded, then loads."""
    loaded, readings = set(), []
    original = version_labels.write_config

    def read_as_server(folder, config):
        original(folder, config)
        listed, named = read_config(folder)
        if readings:  # a server that starts is told to allow it
            assert set(named.values()) <= loaded, f'{named} with {loaded} loaded: the server refuses'
        loaded.clear()
        loaded.update(listed)
        readings.append((listed, named))

    monkeypatch.setattr(version_labels, 'write_config', read_as_server)
    return readings


def test_without_a_config_the_newest_version_serves(serving):
    assert versions.find_serving_version(serving).name == '30'
    assert [(each.number, each.is_listed) for each in versions.list_versions(serving)] == [
        (10, False),
        (20, False),
        (30, True),
    ]


def test_the_first_promotion_makes_the_config(serving, server):
    assert version_labels.promote(serving, 10, 'stable', None) == 'labelled'
    assert server == [([10], {'stable': 10})]
    assert versions.find_serving_version(serving).name == '10'


def test_a_version_is_listed_before_it_is_labelled(serving, server):
    version_labels.promote(serving, 10, 'stable', None)
    waited = []
    assert version_labels.promote(serving, 20, 'stable', lambda: waited.append(read_config(serving))) == 'labelled'
    assert waited == [([10, 20], {'stable': 10})]
    assert server[-1] == ([10, 20], {'stable': 20, 'previous': 10})


def test_without_a_server_to_wait_for_a_second_call_labels(serving, server):
    version_labels.promote(serving, 10, 'stable', None)
    assert version_labels.promote(serving, 20, 'canary', None) == 'listed'
    assert server[-1] == ([10, 20], {'stable': 10})
    assert version_labels.promote(serving, 20, 'canary', None) == 'labelled'
    assert server[-1] == ([10, 20], {'stable': 10, 'canary': 20})
    assert version_labels.promote(serving, 20, 'canary', None) == 'unchanged'


def test_a_pushed_version_is_listed_so_that_one_call_promotes_it(serving, server):
    version_labels.list_pushed(serving, 30)
    assert not (serving / CONFIG_FILE).exists(), 'nobody labels, so the newest serves by itself'
    version_labels.promote(serving, 10, 'stable', None)
    version_labels.list_pushed(serving, 30)
    assert server[-1] == ([10, 30], {'stable': 10})
    assert version_labels.promote(serving, 30, 'stable', None) == 'labelled'


def test_rollback_brings_the_previous_version_back_at_once_and_only_once(serving, server):
    version_labels.promote(serving, 10, 'stable', None)
    version_labels.promote(serving, 20, 'stable', lambda: None)
    begin = time.perf_counter()
    assert version_labels.rollback(serving) == (10, 20)
    assert time.perf_counter() - begin < 1
    assert server[-1] == ([10], {'stable': 10})
    with pytest.raises(UsageError, match=r'no version before 10 .* taken back already'):
        version_labels.rollback(serving)


def test_rollback_without_a_stable_version_says_so(serving):
    with pytest.raises(UsageError, match='has no stable version to go back from'):
        version_labels.rollback(serving)


def test_rollback_to_a_version_that_is_gone_changes_nothing(serving):
    version_labels.promote(serving, 10, 'stable', None)
    version_labels.promote(serving, 20, 'stable', lambda: None)
    (serving / '10' / 'saved_model.pb').unlink()
    before = read_config(serving)
    with pytest.raises(PipelineError, match='Version 10, which was stable before 20, is gone'):
        version_labels.rollback(serving)
    assert read_config(serving) == before


def test_prune_keeps_the_newest_and_what_a_label_names(serving):
    version_labels.promote(serving, 10, 'canary', None)
    write(serving / '5' / 'variables', 'of a call that was killed')
    assert version_labels.prune(serving, 1) == [20]
    assert [each.number for each in versions.list_versions(serving)] == [10, 30]
    assert not (serving / '5').exists()
    assert (serving / '40').exists(), 'newer than every version: it may be on its way'
    assert version_labels.prune(serving, 1) == []


def test_prune_to_nothing_is_refused(serving):
    with pytest.raises(UsageError, match=r'--keep takes a number of at least 1\. Received: 0'):
        version_labels.prune(serving, 0)


@pytest.mark.parametrize(('number', 'label'), [(15, 'stable'), (40, 'stable'), (10, 'latest')])
def test_what_is_not_there_cannot_be_promoted(serving, number, label):
    with pytest.raises(UsageError, match=r'has no version \d+; there are: 10, 20, 30|one of canary, stable'):
        version_labels.promote(serving, number, label, None)
    assert not (serving / CONFIG_FILE).exists()


@pytest.mark.parametrize('text', ['nonsense', 'model_config_list { config {} config {} }'])
def test_a_damaged_config_is_refused_and_kept(serving, text):
    (serving / CONFIG_FILE).write_text(text)
    for call in (versions.list_versions, version_labels.rollback, versions.find_serving_version):
        with pytest.raises(PipelineError, match=r'models\.config (is not a configuration|lists 2 models)'):
            call(serving)
    assert (serving / CONFIG_FILE).read_text() == text


def test_what_somebody_wrote_into_the_config_is_kept(serving):
    version_labels.promote(serving, 10, 'stable', None)
    path = serving / CONFIG_FILE
    path.write_text(path.read_text().replace(str(serving), '/models/cifar10'))
    version_labels.promote(serving, 20, 'stable', lambda: None)
    assert 'base_path: "/models/cifar10"' in path.read_text()


def test_a_number_in_use_or_known_to_the_server_is_not_given_again(serving):
    far_future = 99_999_999_999
    write(serving / str(far_future) / 'variables', '')
    assert versions.choose_version(serving) == far_future + 1
    remove_folder(serving / str(far_future))
    version_labels.promote(serving, 30, 'stable', None)
    path = serving / CONFIG_FILE
    path.write_text(path.read_text().replace('versions: 30', f'versions: {far_future}'))
    assert versions.choose_version(serving) == far_future + 1


def test_a_folder_that_is_none_is_refused(place):
    for call in (versions.list_versions, version_labels.rollback):
        with pytest.raises(UsageError, match='is no folder; --serving takes the one that `run` pushes to'):
            call(place / 'none')
    assert versions.find_newest_version(place / 'none') is None
    assert versions.find_serving_version(place / 'none') is None


FILES = ('saved_model.pb', 'variables/variables.index', 'assets.extra/version.json')


@pytest.fixture
def staged(tmp_path) -> Path:
    """A model that is to become a version."""
    for name in FILES:
        write(tmp_path / 'staged' / name, name)
    return tmp_path / 'staged'


def test_a_staged_model_becomes_a_version_with_all_that_is_in_it(serving, staged):
    versions.publish(staged, serving, 50)
    assert versions.find_newest_version(serving).name == '50'
    with fetch_folder(serving / '50') as folder:
        files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob('*') if file.is_file()}
    assert files == {name: name for name in FILES}


@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_an_upload_that_breaks_leaves_no_version_and_no_file(make_bucket, staged, monkeypatch, scheme):
    serving = locate(make_bucket(scheme)) / 'serving'
    seen, original = [], CloudPath.upload_from

    def upload(self, source, **options):
        seen.append(versions.list_folders(serving))
        if source.name == versions.MODEL_FILE:
            raise OSError('connection lost')
        return original(self, source, **options)

    monkeypatch.setattr(CloudPath, 'upload_from', upload)
    with pytest.raises(OSError, match='connection lost'):
        versions.publish(staged, serving, 50)
    assert seen == [{}, {}, {}], 'no version before its last file is there'
    assert not serving.exists()
