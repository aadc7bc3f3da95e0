"""The download: resumed, retried and verified, against a server on this machine."""

import hashlib

import pytest
import requests

from components.data.download import RemoteFile, download
from components.errors import DataError
from components.progress import listen

CONTENT = bytes(range(256)) * 8192  # 2 MB: two chunks


def describe(server, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(server.base_url + 'c.tar.gz', len(content), hashlib.sha256(content).hexdigest())


def test_a_file_arrives_complete(serve_file, tmp_path):
    target = download(describe(serve_file(CONTENT)), tmp_path / 'sub' / 'c.tar.gz')
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ['c.tar.gz']


def test_a_broken_download_resumes_where_it_stopped(serve_file, tmp_path):
    server = serve_file(CONTENT)
    server.break_after = [1_500_000]
    target = download(describe(server), tmp_path / 'c.tar.gz', pause_s=0)
    assert target.read_bytes() == CONTENT
    first, second = server.ranges
    assert first is None
    assert 0 < int(second.removeprefix('bytes=').removesuffix('-')) <= 1_500_000


def test_the_next_call_resumes_where_a_killed_one_stopped(serve_file, tmp_path):
    (tmp_path / 'c.tar.gz.partial').write_bytes(CONTENT[:1000])
    server, seen = serve_file(CONTENT), []
    with listen(seen.append):
        assert download(describe(server), tmp_path / 'c.tar.gz').read_bytes() == CONTENT
    assert server.ranges == ['bytes=1000-']
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (1000, len(CONTENT), len(CONTENT))


def test_a_download_starts_over_when_the_server_cannot_resume(serve_file, tmp_path):
    (tmp_path / 'c.tar.gz.partial').write_bytes(b'old' * 100)
    server = serve_file(CONTENT)
    server.can_resume = False
    assert download(describe(server), tmp_path / 'c.tar.gz').read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_requested_again(serve_file, tmp_path):
    (tmp_path / 'c.tar.gz').write_bytes(CONTENT)
    server = serve_file(CONTENT)
    download(describe(server), tmp_path / 'c.tar.gz')
    assert server.ranges == []


def test_a_server_error_is_retried(serve_file, tmp_path):
    server = serve_file(CONTENT)
    server.statuses = [503, 429]
    assert download(describe(server), tmp_path / 'c.tar.gz', pause_s=0).read_bytes() == CONTENT
    assert len(server.ranges) == 3


def test_a_refused_request_is_not_retried(serve_file, tmp_path):
    server = serve_file(CONTENT)
    server.statuses = [404, 404]
    with pytest.raises(DataError, match=r'could not be downloaded \(404.*--archive'):
        download(describe(server), tmp_path / 'c.tar.gz', pause_s=0)
    assert len(server.ranges) == 1


def test_unexpected_bytes_are_refused_and_removed(serve_file, tmp_path):
    server = serve_file(CONTENT[:-1] + b'!')
    with pytest.raises(DataError, match='is not the expected file'):
        download(describe(server), tmp_path / 'c.tar.gz')
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_which_only_the_md5_is_known_is_verified_too(serve_file, tmp_path):
    remote = describe(serve_file(CONTENT))._replace(digest=hashlib.md5(CONTENT).hexdigest(), algorithm='md5')
    assert download(remote, tmp_path / 'c.tar.gz').read_bytes() == CONTENT
    with pytest.raises(DataError, match=r'is not the expected file: 2,097,152 bytes with MD5 \w{32}, expected'):
        download(remote._replace(digest='0' * 32), tmp_path / 'd.tar.gz')


def test_more_bytes_than_expected_are_refused(serve_file, tmp_path):
    server = serve_file(CONTENT * 3)
    with pytest.raises(DataError, match='is not the expected file'):
        download(describe(server), tmp_path / 'c.tar.gz')
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_always_breaks_off_is_an_error_and_the_bytes_that_came_are_kept(serve_file, tmp_path):
    server = serve_file(CONTENT)
    server.break_after = [10] * 10
    with pytest.raises(DataError, match=r'(ended after|could not be downloaded).*run the command again'):
        download(describe(server), tmp_path / 'c.tar.gz', pause_s=0)
    assert len(server.ranges) == 5
    assert not (tmp_path / 'c.tar.gz').exists()


def test_a_server_that_cannot_be_reached_is_named(serve_file, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise requests.ConnectionError('no route')

    monkeypatch.setattr(requests, 'get', refuse)
    with pytest.raises(DataError, match=r'could not be downloaded \(no route; attempt 5 of 5\)'):
        download(RemoteFile('http://127.0.0.1/c', 1, '0'), tmp_path / 'c', pause_s=0)
