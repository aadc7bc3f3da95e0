"""The linter as a whole: documents, the rules for the pipeline itself, and the command."""

from pathlib import Path

import pytest

from components.errors import UsageError
from kubeflow.lint.linter import lint_package
from pipeline.__main__ import main
from tests.kubeflow.lint.small_package import (
    PARAMETERS,
    assert_error,
    assert_warning,
    break_package,
    change,
    make_pipeline,
    make_platform,
    write,
)

ERRORS = {
    'schema of an older version': (
        change('spec/schemaVersion', '2.0.0'),
        'schemaVersion',
        'only schema 2.1.0',
        'use_pipeline_spec_2_1',
    ),
    'a platform without kubernetes': (
        change('platform/platforms', {'vertex': {}}),
        'document 2',
        'drops the whole document',
        'platforms.kubernetes',
    ),
    'pipeline name with capitals': (
        change('spec/pipelineInfo/name', 'CIFAR_10'),
        'pipelineInfo.name',
        'CIFAR_10',
        'Rename',
    ),
    'pipeline name that is too long': (
        change('spec/pipelineInfo/name', 'a' * 129),
        'pipelineInfo.name',
        '128 characters',
        'Rename',
    ),
    'no root component': (change('spec/root'), 'root', 'nothing to run', 'Compile'),
    'pipeline root that is a path': (
        change('spec/defaultPipelineRoot', '/home/me'),
        'defaultPipelineRoot',
        '/home/me',
        'minio://',
    ),
    'pipeline root without a bucket': (
        change('spec/defaultPipelineRoot', 'minio:///v2'),
        'defaultPipelineRoot',
        'minio://, s3://, gs:// and a bucket',
        'minio://BUCKET',
    ),
    'default of a different type': (
        change(f'{PARAMETERS}/data', {'parameterType': 'LIST', 'defaultValue': '/data/cifar10'}),
        'root.inputDefinitions.parameters.data',
        'LIST',
        'default',
    ),
    'parameter of the type of a final status': (
        change(f'{PARAMETERS}/status', {'parameterType': 'TASK_FINAL_STATUS'}),
        'root.inputDefinitions.parameters.status',
        'refuses every run',
        'isOptional',
    ),
}

WARNINGS = {
    'package without a pipeline root': (
        change('spec/defaultPipelineRoot'),
        'defaultPipelineRoot',
        'minio://mlpipeline',
    ),
    'parameter without a default': (
        change(f'{PARAMETERS}/data/defaultValue'),
        'root.inputDefinitions.parameters.data',
        'no default',
    ),
}


def test_a_broken_package_is_refused_with_the_place_and_what_mends_it(error_case):
    assert_error(*error_case)


def test_what_the_server_takes_but_hardly_anyone_means_is_a_warning(warning_case):
    assert_warning(*warning_case)


def test_a_valid_package_has_no_problem():
    assert lint_package(write(make_pipeline(), make_platform())) == []


@pytest.mark.parametrize(
    ('documents', 'what'),
    [
        ((make_platform(), make_pipeline()), 'comes first'),
        ((make_pipeline(), make_platform(), make_platform()), 'There are 3 documents'),
        (({'pipelineSpec': make_pipeline()},), 'PipelineJob'),
        (('text',), 'must be a mapping'),
    ],
)
def test_documents_in_a_form_that_cannot_be_read_are_refused(documents, what):
    (problem,) = lint_package(write(*documents))
    assert problem.severity == 'error'
    assert what in problem.what


def test_text_that_is_not_yaml_is_wrong_usage():
    with pytest.raises(UsageError, match='not YAML'):
        lint_package('a: [')


def test_the_command_prints_a_line_for_each_problem_and_exits_by_the_worst(tmp_path, capsys):
    package = tmp_path / 'package.yaml'
    package.write_text(write(make_pipeline(), make_platform()))
    assert main(['lint', str(package)]) == 0
    assert capsys.readouterr().out == ''
    package.write_text(break_package(WARNINGS['package without a pipeline root'][0]))
    assert main(['lint', str(package)]) == 0
    assert capsys.readouterr().out.startswith('warning: defaultPipelineRoot: ')
    package.write_text(break_package(ERRORS['pipeline name with capitals'][0]))
    assert main(['lint', str(package)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith('error: pipelineInfo.name: ')


@pytest.mark.parametrize('text', [None, 'a: [', b'\xff\xfe\x00'])
def test_a_file_that_cannot_be_read_is_wrong_usage(tmp_path, capsys, text):
    package = tmp_path / 'package.yaml'
    if text is not None:
        package.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(['lint', str(package)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.slow
def test_what_tfx_compiles_by_itself_is_refused_for_its_resolver_and_its_paths(tmp_path):
    import tfx.v1 as tfx
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner

    examples = tfx.components.ImportExampleGen(input_base='/home/me/cifar10')
    baseline = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.LatestBlessedModelStrategy,
        model=tfx.dsl.Channel(type=tfx.types.standard_artifacts.Model),
        model_blessing=tfx.dsl.Channel(type=tfx.types.standard_artifacts.ModelBlessing),
    ).with_id('baseline_resolver')
    pipeline = tfx.dsl.Pipeline('two-nodes', 'minio://mlpipeline/v2', components=[examples, baseline])
    config = runner.KubeflowV2DagRunnerConfig(default_image='tfx:latest', use_pipeline_spec_2_1=True)
    job = runner.KubeflowV2DagRunner(config, str(tmp_path), 'package.yaml').run(pipeline, write_out=True)
    assert job
    text = Path(tmp_path, 'package.yaml').read_text()
    found = {(problem.severity, problem.where): problem.what for problem in lint_package(text)}
    resolvers = [where for (_, where), what in found.items() if 'no resolvers' in what]
    assert resolvers
    assert all('baseline_resolver' in where for where in resolvers)
    executor = 'deploymentSpec.executors.ImportExampleGen_executor.container'
    assert 'a different day' in found['error', f'{executor}.image']
    assert 'neither new spans' in found['warning', f'{executor}.lifecycle.preCacheCheck']
    assert '/home/me/cifar10' in found['error', 'root.dag.tasks.ImportExampleGen.inputs.parameters.input_base']
    names = [where for (_, where), what in found.items() if 'letters, digits' in what and '.tasks.' in where]
    assert names
    assert all('baseline_resolver' in where for where in names)
