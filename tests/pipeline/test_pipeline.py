"""The graph: its components, and what makes a component run again."""

import json

import pytest

from components.data.manifest import check_splits
from components.errors import UsageError
from pipeline import pipeline as graph
from pipeline.config import PRESETS
from pipeline.kubeflow_config import STEPS
from pipeline.local import lock_root
from pipeline.overrides import apply_overrides


def get_properties(assignments=()) -> dict[str, dict]:
    """Returns the execution properties by component id; TFX makes its cache key from them."""
    config = apply_overrides(PRESETS['sample']('/root-folder'), list(assignments))
    return {node.id: dict(node.exec_properties) for node in graph.create_pipeline(config).components}


def test_the_graph_is_the_whole_chain():
    assert set(get_properties()) == {
        'ImportExampleGen',
        'StatisticsGen',
        'CuratedSchemaGen',
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
    }


@pytest.mark.parametrize(
    ('assignment', 'changed'),
    [
        ('trainer.learning_rate=0.5', {'Trainer'}),
        ('trainer.image_size=64', {'Transform', 'Trainer'}),
        ('export.precision=bfloat16', {'Trainer'}),
        ('trainer.backbone=vgg16', {'Transform', 'Trainer'}),
        ('trainer.resize=upsampling', {'Transform', 'Trainer', 'ServingCheck'}),
        ('trainer.optimizer=adam', {'Trainer'}),
        ('gate.accuracy=0.1', {'Evaluator'}),
        ('gate.baseline=better', {'Evaluator'}),
        ('serving_check.max_latency_ms=5', {'ServingCheck'}),
        ('data_gate.max_imbalance=0.1', {'DataCheck'}),
        ('tuner.seed=1', set()),  # there is no Tuner
    ],
)
def test_a_setting_changes_only_the_components_that_read_it_and_those_that_keep_it(assignment, changed):
    before, after = get_properties(), get_properties([assignment])
    assert {node_id for node_id in before if before[node_id] != after[node_id]} == {*changed, 'Pusher', 'Report'}


def test_a_version_keeps_the_settings_of_its_run_without_paths():
    paths = ['trainer.weights=/weights/a.h5', 'trainer.cache_dir=/cache', 'trainer.warm_start=/models/12']
    properties = get_properties([*paths, 'trainer.seed=7'])
    config = json.loads(properties['Pusher']['custom_config'])
    kept, defaults = config['settings'], config['defaults']
    assert (kept['name'], kept['trainer']['seed'], kept['trainer']['weights']) == ('cifar10-sample', 7, 'a.h5')
    assert kept['trainer']['warm_start'] == '12'
    assert (defaults['trainer']['seed'], defaults['trainer']['weights']) == (0, 'imagenet')
    assert defaults['trainer'].keys() == kept['trainer'].keys()
    assert '/' not in json.dumps((kept, defaults))


def test_models_are_pushed_to_the_root_or_where_the_config_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for assignments, serving in (
        ([], '/root-folder/serving'),
        (['serving=/mnt/models'], '/mnt/models'),
        (['serving=models'], str(tmp_path / 'models')),
    ):
        properties = get_properties(assignments)
        assert properties['DataCheck']['serving'] == properties['BaselineFinder']['serving'] == serving
        destination = json.loads(properties['Pusher']['push_destination'])
        assert destination['filesystem']['base_directory'] == serving


def test_artifacts_are_kept_in_the_root_or_where_the_caller_says():
    config = PRESETS['sample']('/root-folder')
    roots = [graph.create_pipeline(config, place).pipeline_info.pipeline_root for place in (None, 'minio://b/v2')]
    assert roots == ['/root-folder/artifacts', 'minio://b/v2']


def test_a_graph_for_another_runner_makes_no_folder_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph.create_pipeline(PRESETS['sample']('minio://bucket/v2'), 'minio://bucket/v2')
    assert not list(tmp_path.iterdir())


def test_the_steps_that_kubeflow_can_be_told_about_are_the_graphs():
    others = 'trainer.warm_start=serving', 'tuner.trials=2'  # they exclude each other
    assert set(STEPS) == {step for other in others for step in get_properties(['bulk_input=new', other])}


def test_the_trainer_takes_what_the_tuner_chose_and_the_version_and_the_report_keep_it():
    config = apply_overrides(PRESETS['cifar10-tune']('/root-folder'), [])
    nodes = {node.id: node for node in graph.create_pipeline(config).components}
    tuner = nodes['Tuner']
    assert json.loads(tuner.exec_properties['custom_config'])['tuner'] == {'trials': 20, 'seed': 0}
    assert tuner.exec_properties['source_digest']
    for name in ('Trainer', 'Pusher'):
        assert nodes[name].inputs['hyperparameters'] is tuner.outputs['best_hyperparameters']
    assert nodes['Report'].inputs['tuner_results'] is tuner.outputs['tuner_results']


def test_a_search_and_a_warm_start_exclude_each_other():
    with pytest.raises(UsageError, match=r'^tuner\.trials must be 0 with trainer\.warm_start=serving, .* Received: 2$'):
        get_properties(['trainer.warm_start=serving', 'tuner.trials=2'])


def test_transform_is_given_a_size_even_where_the_config_leaves_it_to_the_backbone():
    properties = get_properties(['trainer.backbone=inception_v3', 'trainer.image_size=none'])
    settings = json.loads(properties['Transform']['custom_config'])
    assert {key: settings[key] for key in ('backbone', 'image_size', 'resize')} == {
        'backbone': 'inception_v3',
        'image_size': 299,
        'resize': 'bilinear',
    }


def test_user_code_goes_by_dotted_path_that_can_be_imported():
    from tfx.utils import import_utils

    properties = get_properties(['tuner.trials=2'])
    functions = {'Transform': 'preprocessing_fn', 'Trainer': 'run_fn', 'Tuner': 'tuner_fn'}
    for path in (properties[name][key] for name, key in functions.items()):
        module, _, name = path.rpartition('.')
        assert callable(import_utils.import_func_from_module(module, name))
    assert properties['Trainer'].get('module_file') is None


def test_beams_arguments_reach_the_pipeline():
    config = apply_overrides(PRESETS['sample']('/r'), ['beam.args=--runner=FnApiRunner,--direct_num_workers=2'])
    given = graph.create_pipeline(config).beam_pipeline_args
    assert given == config.beam.options
    assert given[:2] == ['--runner=FnApiRunner', '--direct_num_workers=2']


def test_data_without_a_split_is_refused(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'x').touch()
    with pytest.raises(UsageError, match=r'/val has no TFRecord files'):
        check_splits(str(tmp_path))


def test_a_second_run_on_the_same_root_is_refused_and_names_the_first(tmp_path):
    import os

    with lock_root(tmp_path), pytest.raises(UsageError, match=f'in use by process {os.getpid()}'), lock_root(tmp_path):
        pass
    with lock_root(tmp_path):
        pass
