"""Places on this machine and in object stores; the stores' own clients talk to servers on this machine."""

import pytest

from components.errors import StorageError, UsageError
from components.places import check_place, copy_folder, fetch, locate, remove_folder
from pipeline import __main__


def fill(place) -> None:
    for name in ('a', 'b/c', 'b/d/e'):
        if '://' not in str(place):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)


def list_files(folder) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob('*') if file.is_file()}


WHOLE = {'a': 'a', 'b/c': 'b/c', 'b/d/e': 'b/d/e'}


def test_a_folder_is_copied_whole(place, tmp_path):
    fill(place)
    for _ in range(2):  # the second time over the first copy
        copy_folder(place, tmp_path / 'to' / 'here')
        assert list_files(tmp_path / 'to' / 'here') == WHOLE


def test_a_fetched_folder_is_on_this_machine_while_it_is_needed(place):
    fill(place)
    with fetch(place) as folder:
        assert list_files(folder) == WHOLE
    assert folder.exists() == (folder == place), 'a copy is removed, and a folder of this machine is not copied'


def test_a_removed_folder_is_gone_and_its_neighbours_stay(place):
    fill(place)
    remove_folder(place / 'b')
    assert [entry.name for entry in place.iterdir()] == ['a']


@pytest.mark.parametrize(
    'text', ['minio://mlpipeline/serving', 'hdfs://name/serving', 'https://host/serving', 's3://', 'gs:///serving']
)
def test_an_unknown_scheme_and_a_missing_bucket_are_refused_with_what_to_give(text, capsys):
    match = r'must be a path, or a URI with s3:// or gs:// and a bucket \(for MinIO s3://, .*AWS_ENDP'
    with pytest.raises(ValueError, match=match):
        check_place(text)
    with pytest.raises(UsageError, match=f'Received: {text}'):
        locate(text)
    assert __main__.main(['run', '--set', f'serving={text}']) == 2
    assert 'serving must be a path, or a URI' in capsys.readouterr().err


@pytest.mark.parametrize('scheme', ['s3', 'gs'])
def test_a_bucket_that_does_not_exist_is_named_in_one_sentence(make_bucket, scheme, capsys):
    make_bucket(scheme)
    with pytest.raises(StorageError, match=rf'^{scheme}://nowhere/serving cannot be used: .*Check bucket, credentials'):
        locate(f'{scheme}://nowhere/serving')
    assert __main__.main(['versions', '--serving', f'{scheme}://nowhere/serving']) == 1
    assert capsys.readouterr().err.startswith(f'error: {scheme}://nowhere/serving cannot be used: ')


def test_missing_credentials_are_one_sentence(make_bucket, monkeypatch, tmp_path):
    bucket = make_bucket('s3')
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        monkeypatch.delenv(name)
    for name in ('AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE'):
        monkeypatch.setenv(name, str(tmp_path / 'none'))
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    with pytest.raises(StorageError, match='Unable to locate credentials'):
        locate(bucket)


def test_a_store_that_does_not_respond_is_one_sentence(make_bucket, monkeypatch):
    bucket = make_bucket('s3')
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9')
    monkeypatch.setenv('AWS_MAX_ATTEMPTS', '1')
    with pytest.raises(StorageError, match='Could not connect to the endpoint URL'):
        locate(bucket)


def test_a_place_without_a_model_is_refused_and_named(place, capsys):
    assert __main__.main(['predict', '--model', str(place), 'cat.png']) == 2
    assert f'error: {place} holds neither a SavedModel nor numbered versions' in capsys.readouterr().err
