"""Beam's engines: which options each gets, which are refused, and whether the steps give the same results on them."""

import contextlib
import json
from pathlib import Path

import pytest

from benchmarks import beam_cluster, engines
from benchmarks.beam_cluster import Cluster, Unavailable, start_cluster
from components.data.manifest import check_written
from components.errors import DataError, UsageError
from pipeline.__main__ import main
from pipeline.config import BeamConfig, SampleConfig
from pipeline.engines import explain_worker_failure, find_engine
from tests.conftest import PROJECT, run_cli

EXTERNAL = ('--environment_type=EXTERNAL', '--environment_config=localhost:50000')
SMALL = [
    *('--set', 'sample.train=100', '--set', 'sample.test=20'),
    *('--set', 'trainer.image_size=32', '--set', 'trainer.epochs=1', '--set', 'trainer.head_units=16'),
]


@pytest.mark.parametrize(
    ('args', 'is_remote'),
    [
        (BeamConfig().args, False),
        ((), False),
        (('--direct_num_workers=2',), False),
        (('--runner=direct',), False),
        (('--runner=PrismRunner',), False),  # its workers are threads of this process
        (('--runner=PrismRunner', *EXTERNAL), True),
        (('--runner', 'FlinkRunner', *EXTERNAL), True),
        (('--runner=FlinkRunner', '--flink_master=[local]', '--environment_type=LOOPBACK'), False),
        (('--runner=apache_beam.runners.portability.spark_runner.SparkRunner', *EXTERNAL), True),
        (('--runner=PortableRunner', '--job_endpoint=h:1', '--environment_config=image:1'), True),
        (engines.DATAFLOW, True),
    ],
)
def test_an_engine_whose_workers_are_elsewhere_is_told_from_one_in_this_process(args, is_remote):
    assert find_engine(args).is_remote == is_remote


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        ('--runner=DaskRunner', 'DaskRunner, which loses records without an error'),
        ('--runner=apache_beam.runners.dask.dask_runner.DaskRunner', 'loses records without an error'),
        ('--runner=DataflowRunner,--project=p', r'DataflowRunner and no image .* --sdk_container_image=IMAGE'),
        ('--runner=PortableRunner,--job_endpoint=h:1', r'PortableRunner and no image .* --environment_config=IMAGE'),
        ('--runner=FlinkRunner,--flink_master=h:8081', r'FlinkRunner and no image .* --environment_config=IMAGE'),
    ],
)
def test_an_engine_on_which_the_steps_cannot_run_is_refused_by_name(args, sentence):
    with pytest.raises(UsageError, match=sentence):
        BeamConfig(args=tuple(args.split(',')))


def test_every_engine_gets_a_runner_the_modules_of_the_workers_and_the_name_of_an_image_once():
    assert BeamConfig(args=('--direct_num_workers=2',)).options == [
        *('--direct_num_workers=2', '--beam_plugins=tfx.components'),
        *('--runner=FnApiRunner', '--sdk_container_image=unused'),
    ]
    completed = BeamConfig(args=engines.DATAFLOW).options
    assert completed == [*engines.DATAFLOW, '--beam_plugins=tfx.components']
    assert BeamConfig(args=tuple(completed)).options == completed


def test_worker_processes_that_are_told_no_options_read_the_same_modules_from_a_file():
    content = json.loads((PROJECT / 'components' / 'worker_options.json').read_text())
    assert [f'--beam_plugins={name}' for name in content['beam_plugins']] == [
        option for option in BeamConfig().options if option.startswith('--beam_plugins=')
    ]


def test_a_failure_of_remote_workers_is_a_sentence_and_any_other_is_left_alone():
    remote = ('--runner=FlinkRunner', *EXTERNAL)
    cause = RuntimeError("FileNotFoundError: [Errno 2] No such file or directory: '/data/train/a.gz' [while running x]")
    error = ValueError('StatisticsGen failed')
    error.__cause__ = cause
    explained = explain_worker_failure(error, remote)
    assert str(explained).startswith('A worker of FlinkRunner cannot use /data/train/a.gz: every worker must see the')
    assert explain_worker_failure(error, BeamConfig().args) is None
    assert explain_worker_failure(ValueError('division by zero'), remote) is None
    assert explain_worker_failure(FileNotFoundError(2, 'No such file or directory', '/w.npz'), remote) is None


def test_a_job_that_wrote_no_file_is_a_sentence(tmp_path):
    (tmp_path / 'Split-train').mkdir()
    with pytest.raises(DataError, match=f'wrote no file into {tmp_path}/Split-train. Workers on other machines'):
        check_written(tmp_path / 'Split-train')
    (tmp_path / 'Split-train' / 'data').touch()
    check_written(tmp_path / 'Split-train')


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (('--sample', '--out', 'gs://b/d'), '--out takes a folder of this machine .* Received: gs://b/d'),
        (('--sample', '--out', 'd', '--set', 'trainer.epochs=1'), r'`data` reads only the settings of beam\.\*'),
        (('--sample', '--out', 'd', '--set', 'beam.args=--runner=dask'), 'loses records without an error'),
        (('--images', '.', '--out', 'd', '--set', 'beam.args=--x'), '--set beam.args=--x does not apply to --images'),
    ],
)
def test_data_refuses_an_engine_or_a_place_that_it_cannot_use(options, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['data', *options]) == 2
    assert capsys.readouterr().err.startswith('error: ')
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def skip_where_unavailable():
    try:
        yield
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope='module')
def shared(tmp_path_factory) -> Path:
    """The folder that a cluster shares with this machine."""
    return tmp_path_factory.mktemp('shared')


@pytest.fixture(scope='module')
def root(shared) -> Path:
    """The root of a finished run in this process, in the shared folder."""
    answer = run_cli('run', '--root', shared / 'root', *SMALL)
    assert answer.returncode in (0, 3), answer.stderr
    return shared / 'root'


@pytest.fixture(scope='module')
def cluster(shared):
    """A cluster that has nothing in common with this machine but a read-only environment and the shared folder."""
    with skip_where_unavailable():
        beam_cluster.check_namespaces()
        beam_cluster.build_binaries()
    with start_cluster(shared, isolated=True) as started:
        yield started


def read_records(folder: Path) -> list[list[tuple[str, str]]]:
    """Returns the features of all records, in an order of their own: an engine writes them, and each's, in any."""
    import tensorflow as tf

    files = [str(file) for file in sorted(folder.iterdir())]
    examples = map(tf.train.Example.FromString, tf.data.TFRecordDataset(files, 'GZIP').as_numpy_iterator())
    return sorted(sorted((name, str(value)) for name, value in each.features.feature.items()) for each in examples)


def summarize_statistics(folder: Path) -> dict[str, object]:
    """Returns what TFDV counted exactly, which leaves out the borders of its histograms."""
    from components.data_gate.drift import read_statistics

    found: dict[str, object] = {}
    for split, statistics in read_statistics(folder).items():
        (dataset,) = statistics.datasets
        found[split] = dataset.num_examples
        for feature in dataset.features:
            name = f'{split}/{feature.path.step[0]}'
            which = feature.WhichOneof('stats')
            common = getattr(feature, which).common_stats
            found[name] = (which, common.num_non_missing, common.tot_num_values)
            if which == 'num_stats':
                found[f'{name}/mean'] = feature.num_stats.mean
                found[f'{name}/deviation'] = feature.num_stats.std_dev
    return found


def read_result(name: str, folders: dict[str, Path]) -> dict[str, object]:
    """Returns what a step found, to be compared with what it found on another engine."""
    from components import features
    from components.data_gate.report import read_report
    from components.model_gate.metrics import read_metrics

    if name == 'ImportExampleGen':
        return {split: read_records(folders['examples'] / f'Split-{split}') for split in features.SPLITS}
    if name == 'StatisticsGen':
        return summarize_statistics(folders['statistics'])
    if name == 'DataCheck':
        return {'report': read_report(str(folders['report']))}
    metrics = read_metrics(str(folders['evaluation']))
    return {f'{label} {key}': value for label, values in metrics.items() for key, value in values.items()}


def find_first_result(root: Path, name: str) -> dict[str, object]:
    """Returns what a step found in the run in this process."""
    folders = {}
    for output in (root / 'artifacts' / name).iterdir():
        if not output.name.startswith('.'):
            (folders[output.name],) = output.iterdir()
    return read_result(name, folders)


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    assert len(found) > 0
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), key


def list_args(cluster: Cluster) -> str:
    return f'beam.args={",".join(cluster.args)}'


@pytest.mark.slow
@pytest.mark.parametrize('name', engines.STEPS)
def test_each_step_gives_on_workers_elsewhere_what_it_gives_in_this_process(name, root, cluster, shared):
    folders = engines.run_step(root, name, BeamConfig(args=tuple(cluster.args)), shared / 'steps' / name)
    assert_same(read_result(name, folders), find_first_result(root, name))


@pytest.mark.slow
def test_data_is_the_same_from_workers_elsewhere(root, cluster, shared):
    engines.write_data(BeamConfig(args=tuple(cluster.args)), shared / 'data', SampleConfig(train=100, test=20))
    for split in ('train', 'val', 'test'):
        assert read_records(shared / 'data' / split) == read_records(root / 'sample' / split)


@pytest.mark.slow
def test_workers_that_do_not_share_the_folder_are_a_sentence(cluster, tmp_path):
    answer = run_cli('data', '--sample', '--out', tmp_path / 'd', '--set', list_args(cluster))
    assert answer.returncode == 1
    assert answer.stderr.count('\n') == 1
    assert 'error: A worker of PrismRunner cannot use ' in answer.stderr
    assert not (tmp_path / 'd').exists()


@pytest.mark.slow
def test_worker_processes_of_this_machine_give_the_same_statistics(root, tmp_path):
    beam = BeamConfig(args=('--runner=FnApiRunner', '--direct_running_mode=multi_processing', '--direct_num_workers=2'))
    folders = engines.run_step(root, 'StatisticsGen', beam, tmp_path / 'out')
    assert_same(read_result('StatisticsGen', folders), find_first_result(root, 'StatisticsGen'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['data', *engines.STEPS])
def test_dataflow_would_take_each_step(name, root, tmp_path):
    work = engines.list_work(root, BeamConfig(args=engines.DATAFLOW), tmp_path)[name]
    assert engines.translate(work) > 10
