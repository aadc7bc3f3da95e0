"""The serving folder as TensorFlow Serving reads it, at every moment of a promotion."""

import contextlib
import errno
from pathlib import Path

import pytest
from cloudpathlib import CloudPath
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.errors import PipelineError, StorageError, UsageError
from components.places import Place, fetch, locate, remove_folder
from components.serving import models_config, version_labels, versions
from components.serving.models_config import CONFIG_FILE


def write(path: Place, text: str) -> None:
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def serving(place) -> Place:
    """Three pushed versions, 10, 20 and 30, and folders that are not versions."""
    for name in ('40', '.50.partial-host-1', 'notes'):
        write(place / name / 'variables', name)
    for number in (10, 20, 30):
        write(place / str(number) / 'saved_model.pb', str(number))
    return place


def read_config(serving: Place) -> tuple[list[int], dict[str, int]]:
    """Returns the versions that a server loads, and the version labels."""
    text = (serving / CONFIG_FILE).read_text()
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert config.base_path == str(serving)
    assert config.name == 'cifar10'
    return list(config.model_version_policy.specific.versions), dict(config.version_labels)


@pytest.fixture
def server(serving, monkeypatch):
    """Treats models.config as TensorFlow Serving does: refuses labels of versions that are not loaded, then loads."""
    loaded, readings = set(), []
    original = version_labels.write_config

    def read_as_server(folder, config):
        original(folder, config)
        listed, named = read_config(folder)
        if readings:  # a server that starts allows it, with a flag
            assert set(named.values()) <= loaded, f'{named} with {loaded} loaded: the server refuses'
        loaded.clear()
        loaded.update(listed)
        readings.append((listed, named))

    monkeypatch.setattr(version_labels, 'write_config', read_as_server)
    return readings


def test_without_a_config_the_newest_version_serves(serving):
    assert versions.find_serving_version(serving).name == '30'
    assert [(each.number, each.listing) for each in versions.list_versions(serving)] == [
        (10, 'older'),
        (20, 'older'),
        (30, 'newest'),
    ]


def test_the_first_promotion_makes_the_config(serving, server):
    assert version_labels.promote(serving, 10, 'stable') == 'labelled'
    assert server == [([10], {'stable': 10})]
    assert versions.find_serving_version(serving).name == '10'


URL = 'http://localhost:8501'


def load_at_once(serving, number, server) -> None:
    """Stands in for `wait_until_loaded`."""


def promote_at_once(serving: Place, number: int) -> None:
    """Makes a version stable, with a server that loads it at once."""
    version_labels.promote(serving, number, 'stable')
    assert version_labels.promote(serving, number, 'stable') == 'labelled'


def test_a_version_is_listed_before_it_is_labelled(serving, server, monkeypatch):
    version_labels.promote(serving, 10, 'stable')
    waited = []
    monkeypatch.setattr(
        version_labels, 'wait_until_loaded', lambda *given: waited.append((given, read_config(serving)))
    )
    assert version_labels.promote(serving, 20, 'stable', URL) == 'labelled'
    assert waited == [((serving, 20, URL), ([10, 20], {'stable': 10}))]
    assert server[-1] == ([10, 20], {'stable': 20, 'previous': 10})


def test_a_label_that_moved_during_the_wait_is_left_where_it_is(serving, server, monkeypatch):
    def wait(*_) -> None:
        monkeypatch.setattr(version_labels, 'wait_until_loaded', load_at_once)
        version_labels.promote(serving, 30, 'stable', URL)

    version_labels.promote(serving, 10, 'stable')
    monkeypatch.setattr(version_labels, 'wait_until_loaded', wait)
    with pytest.raises(
        PipelineError,
        match='The version label stable was moved to version 30 while a server was loading version 20, and is left',
    ):
        version_labels.promote(serving, 20, 'stable', URL)
    assert read_config(serving)[1] == {'stable': 30, 'previous': 10}


def test_a_version_that_was_labelled_by_others_during_the_wait_is_not_labelled_again(serving, server, monkeypatch):
    def wait(*_) -> None:
        assert version_labels.promote(serving, 20, 'stable') == 'labelled'

    version_labels.promote(serving, 10, 'stable')
    monkeypatch.setattr(version_labels, 'wait_until_loaded', wait)
    assert version_labels.promote(serving, 20, 'stable', URL) == 'unchanged'


def test_a_version_that_is_removed_during_the_wait_gets_no_label(serving, server, monkeypatch):
    version_labels.promote(serving, 10, 'stable')
    monkeypatch.setattr(version_labels, 'wait_until_loaded', lambda *_: (serving / '20' / 'saved_model.pb').unlink())
    with pytest.raises(UsageError, match='has no version 20; there are: 10, 30'):
        version_labels.promote(serving, 20, 'stable', URL)
    assert read_config(serving)[1] == {'stable': 10}


def test_without_a_server_to_wait_for_a_second_call_labels(serving, server):
    version_labels.promote(serving, 10, 'stable')
    assert version_labels.promote(serving, 20, 'canary') == 'listed'
    assert server[-1] == ([10, 20], {'stable': 10})
    assert version_labels.promote(serving, 20, 'canary') == 'labelled'
    assert server[-1] == ([10, 20], {'stable': 10, 'canary': 20})
    assert version_labels.promote(serving, 20, 'canary') == 'unchanged'


def test_a_pushed_version_is_listed_so_that_one_call_promotes_it(serving, server):
    version_labels.list_pushed(serving, 30)
    assert not (serving / CONFIG_FILE).exists(), 'without version labels, the newest version serves by itself'
    version_labels.promote(serving, 10, 'stable')
    version_labels.list_pushed(serving, 30)
    assert server[-1] == ([10, 30], {'stable': 10})
    assert version_labels.promote(serving, 30, 'stable') == 'labelled'


def test_rollback_brings_the_previous_version_back_at_once_and_only_once(serving, server):
    version_labels.promote(serving, 10, 'stable')
    promote_at_once(serving, 20)
    readings = len(server)
    assert version_labels.rollback(serving) == (10, 20)
    assert server[readings:] == [([10], {'stable': 10})]  # the version is still loaded, so one reading is enough
    with pytest.raises(UsageError, match=r'no version before 10 .* taken back already'):
        version_labels.rollback(serving)


def test_rollback_without_a_stable_version_says_so(serving):
    with pytest.raises(UsageError, match='has no stable version to go back from'):
        version_labels.rollback(serving)


def test_rollback_to_a_version_that_is_gone_changes_nothing(serving):
    version_labels.promote(serving, 10, 'stable')
    promote_at_once(serving, 20)
    (serving / '10' / 'saved_model.pb').unlink()
    before = read_config(serving)
    with pytest.raises(PipelineError, match='Version 10, which was stable before 20, has been removed'):
        version_labels.rollback(serving)
    assert read_config(serving) == before


def test_prune_keeps_the_newest_and_the_labelled_versions(serving):
    version_labels.promote(serving, 10, 'canary')
    write(serving / '5' / 'variables', 'left by a push that was killed')
    assert version_labels.prune(serving, 1) == [20]
    assert [each.number for each in versions.list_versions(serving)] == [10, 30]
    assert not (serving / '5').exists()
    assert (serving / '40').exists(), 'newer than every version: it may be a push that is not complete yet'
    assert version_labels.prune(serving, 1) == []


def test_pruning_every_version_is_refused(serving):
    with pytest.raises(UsageError, match=r'--keep takes a number of at least 1\. Received: 0'):
        version_labels.prune(serving, 0)


@pytest.mark.parametrize(('number', 'label'), [(15, 'stable'), (40, 'stable'), (10, 'latest')])
def test_what_is_not_there_cannot_be_promoted(serving, number, label):
    with pytest.raises(
        UsageError, match=r'has no version \d+; there are: 10, 20, 30|A version label is one of canary, stable'
    ):
        version_labels.promote(serving, number, label)
    assert not (serving / CONFIG_FILE).exists()


@pytest.mark.parametrize('text', ['nonsense', 'model_config_list { config {} config {} }'])
def test_a_damaged_config_is_refused_and_kept(serving, text):
    (serving / CONFIG_FILE).write_text(text)
    for call in (versions.list_versions, version_labels.rollback, versions.find_serving_version):
        with pytest.raises(PipelineError, match=r'models\.config (is not a configuration|lists 2 models)'):
            call(serving)
    assert (serving / CONFIG_FILE).read_text() == text


def test_edits_of_the_config_by_hand_are_kept(serving):
    version_labels.promote(serving, 10, 'stable')
    path = serving / CONFIG_FILE
    path.write_text(path.read_text().replace(str(serving), '/models/cifar10'))
    promote_at_once(serving, 20)
    assert 'base_path: "/models/cifar10"' in path.read_text()


def test_a_number_in_use_or_known_to_the_server_is_not_given_again(serving):
    far_future = 99_999_999_999
    write(serving / str(far_future) / 'variables', '')
    assert versions.choose_version(serving) == far_future + 1
    remove_folder(serving / str(far_future))
    version_labels.promote(serving, 30, 'stable')
    path = serving / CONFIG_FILE
    path.write_text(path.read_text().replace('versions: 30', f'versions: {far_future}'))
    assert versions.choose_version(serving) == far_future + 1


def test_what_is_not_a_folder_is_refused(place):
    for call in (versions.list_versions, version_labels.rollback):
        with pytest.raises(UsageError, match='is not a folder; --serving takes the folder that `run` pushes to'):
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


def test_a_staged_model_becomes_a_version_with_all_its_files(serving, staged):
    versions.publish(staged, serving, 50)
    assert versions.find_newest_version(serving).name == '50'
    with fetch(serving / '50') as folder:
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
    assert seen == [{}, {}, {}], 'there is no version before its last file is uploaded'
    assert not serving.exists()


@pytest.mark.parametrize('failures', [2, 7])
def test_a_volume_that_gives_no_locks_for_a_while_is_waited_for(tmp_path, monkeypatch, failures):
    calls = []

    def flock(file, operation):
        calls.append(operation)
        if len(calls) <= failures:
            raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(models_config.fcntl, 'flock', flock)
    monkeypatch.setattr(models_config, '_LOCK_WAIT_S', 0)
    refusal = pytest.raises(StorageError, match=r'\.lock cannot be locked: .*No locks available')
    with refusal if failures == 7 else contextlib.nullcontext(), models_config.lock_config(tmp_path):
        pass
    assert len(calls) == min(failures + 1, 7)
