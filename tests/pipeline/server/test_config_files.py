"""The files that the small server reads: TensorFlow Serving's, with its defaults, and what is wrong with one."""

import pytest

from components.errors import UsageError
from components.serving.server_files import METRICS_PATH, choose_batching, write_files
from pipeline.server.config_files import Batching, read_batching, read_metrics_path, read_models


def test_an_empty_file_gives_tensorflow_servings_defaults(tmp_path):
    (tmp_path / 'batching.config').write_text('')
    assert read_batching(tmp_path / 'batching.config') == Batching()


def test_the_files_that_serve_writes_are_read(tmp_path):
    batching = choose_batching({'1': 10.0, '8': 40.0, '32': 150.0}, cores=2)
    write_files(tmp_path, tmp_path, batching)
    found = read_batching(tmp_path / 'batching.config')
    assert (found.max_execution_batch_size, found.num_batch_threads) == (batching.sizes[-1], 2)
    assert found.allowed_batch_sizes[:-1] == batching.sizes
    assert found.batch_timeout_s == pytest.approx(batching.wait_ms / 1000)
    assert read_metrics_path(tmp_path / 'monitoring.config') == METRICS_PATH
    (model,) = read_models(tmp_path / 'models.config').model_config_list.config
    assert model.base_path == str(tmp_path)


def test_metrics_are_off_without_being_asked_for(tmp_path):
    (tmp_path / 'monitoring.config').write_text('prometheus_config { path: "/x" }')
    assert read_metrics_path(tmp_path / 'monitoring.config') is None
    (tmp_path / 'monitoring.config').write_text('prometheus_config { path: "/x" enable: true }')
    assert read_metrics_path(tmp_path / 'monitoring.config') == '/x'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('max_batch_sizes: 1', 'cannot be read as a BatchingParameters of TensorFlow Serving'),
        ('max_batch_size { value: 4 } allowed_batch_sizes: [4, 2]', 'must be positive and ascending'),
        ('max_batch_size { value: 4 } allowed_batch_sizes: [1, 2]', 'the last of allowed_batch_sizes must be'),
        ('max_batch_size { value: 0 }', 'must be at least 1'),
        ('num_batch_threads { value: 0 }', 'must be at least 1'),
        ('pad_variable_length_inputs: true', 'pad_variable_length_inputs is of TensorFlow Serving only'),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(text, words, tmp_path):
    path = tmp_path / 'batching.config'
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_batching(path)
    assert str(path) in str(caught.value)
