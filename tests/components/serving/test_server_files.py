"""The files for a model server: batches that the measured latencies justify, in files that the server can read."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.serving import version_labels, versions
from components.serving.models_config import CONFIG_FILE
from components.serving.server_files import (
    BATCHING_FILE,
    Batching,
    choose_batching,
    make_batching,
    make_message,
    write_files,
    write_models,
)
from components.serving_check.config import ServingCheckConfig

CURVES = {
    'grows to the end': ({'1': 20, '2': 30, '4': 45, '8': 70}, (1, 2, 4, 8)),
    'is flat from 8 on': ({'1': 20, '2': 32, '4': 49, '8': 82, '16': 151, '32': 313}, (1, 2, 4, 8)),
    'a slow size in the middle is no end': ({'1': 20, '2': 41, '4': 50, '8': 80}, (1, 2, 4, 8)),
    'small gains count together': ({'1': 100, '2': 190, '4': 360, '8': 700}, (1, 2, 4)),
    'batches gain nothing': ({'1': 20, '8': 170}, (1,)),
}


@pytest.mark.parametrize('curve', CURVES)
def test_the_batch_sizes_end_where_images_per_second_no_longer_rise(curve):
    batch_ms, sizes = CURVES[curve]
    batching = choose_batching(batch_ms, cores=2)
    assert batching.sizes == sizes
    assert batching.is_measured


def test_a_request_waits_for_a_tenth_of_what_it_takes_and_a_full_queue_is_empty_before_rest_gives_up():
    batching = choose_batching({'1': 20.0, '8': 80.0}, cores=4)
    assert batching == Batching((1, 8), wait_ms=2.0, queue=125, threads=4, is_measured=True)
    assert choose_batching({'1': 9000.0, '8': 9000.0}, cores=4).queue == 4, 'never less than the threads can take'


@pytest.mark.parametrize('batch_ms', [{}, {'4': 10.0}])
def test_a_version_without_measured_latencies_gets_the_sizes_of_the_serving_check(batch_ms):
    batching = choose_batching(batch_ms, cores=2)
    assert batching.sizes == ServingCheckConfig().batch_sizes
    assert batching.to_sentence() == (
        'batches of 1, 2, 4, 8, 16 or 32 images (the default, as it keeps no measured latencies)'
    )


@pytest.mark.parametrize('sizes', [(1,), (1, 2, 4, 8)])
def test_batching_keeps_the_rules_that_tensorflow_serving_checks(sizes):
    """WrapSessionForBatching of its bundle_factory_util.cc, and TensorFlow's SharedBatchScheduler::AddQueue."""
    parameters = make_batching(Batching(sizes, 2.0, 125, 2, is_measured=True))
    allowed = list(parameters.allowed_batch_sizes)
    assert allowed == sorted(set(allowed))
    assert allowed[-1] == parameters.max_batch_size.value
    assert parameters.max_execution_batch_size.value == sizes[-1] <= parameters.max_batch_size.value
    assert parameters.enable_large_batch_splitting.value, 'or a request of 32 images would be refused'
    assert parameters.batch_timeout_micros.value == 2000
    assert parameters.num_batch_threads.value >= 1
    assert parameters.max_enqueued_batches.value >= 1


def test_a_field_that_the_server_does_not_know_is_refused():
    with pytest.raises(text_format.ParseError, match='max_batch_sise'):
        text_format.Parse('max_batch_sise { value: 8 }', make_message('BatchingParameters'))


def test_models_config_is_the_serving_folders_own_with_the_path_that_the_server_sees(tmp_path):
    serving, files = tmp_path / 'serving', tmp_path / 'files'
    (serving / '7').mkdir(parents=True)
    files.mkdir()
    (serving / '7' / versions.MODEL_FILE).touch()

    def read():
        [config] = text_format.Parse(
            (files / CONFIG_FILE).read_text(), model_server_config_pb2.ModelServerConfig()
        ).model_config_list.config
        return config

    assert write_models(files, serving)
    assert not write_models(files, serving), 'a file that says the same is not written again'
    assert (read().base_path, read().HasField('model_version_policy')) == (str(serving), False)
    version_labels.promote(serving, 7, 'stable')
    text = (serving / CONFIG_FILE).read_text()
    (serving / CONFIG_FILE).write_text(text.replace(str(serving), '/models/cifar10'))
    assert write_models(files, serving)
    assert (read().base_path, list(read().model_version_policy.specific.versions)) == (str(serving), [7])


def test_the_flags_name_the_files_that_were_written(tmp_path):
    (tmp_path / 'serving').mkdir()
    flags = dict(
        flag.partition('=')[::2] for flag in write_files(tmp_path, tmp_path / 'serving', choose_batching({}, cores=1))
    )
    written = {value for name, value in flags.items() if name.endswith('_file')}
    assert written == {str(file) for file in tmp_path.iterdir() if file.is_file()}
    assert flags['--batching_parameters_file'] == str(tmp_path / BATCHING_FILE)
