"""The containers' command: TFX gets the launcher's paths and the launcher gets URIs; failures end in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tfx.dsl.components.base import base_executor

from components.errors import DataRefusedError
from kubeflow import entrypoint
from kubeflow.mirrors import ROOT_VARIABLE, to_path, to_uri
from kubeflow.steps import GPU_VARIABLE
from tests.conftest import PROJECT

CASES = {
    'minio://mlpipeline/v2/x': '/minio/mlpipeline/v2/x',
    's3://bucket/x': '/s3/bucket/x',
    'gs://bucket/x': '/gcs/bucket/x',
}


@pytest.mark.parametrize('root', ['', '/scratch/root'])
@pytest.mark.parametrize('uri', CASES)
def test_a_uri_becomes_the_launchers_path_and_the_path_becomes_the_uri(uri, root):
    assert to_path(uri, root) == root + CASES[uri]
    assert to_uri(root + CASES[uri], root) == uri


@pytest.mark.parametrize('text', ['/data/cifar10', 'train', '', 'miniology'])
def test_other_texts_stay_as_they_are(text):
    assert to_path(text, '') == to_uri(text, '') == text


DEFINITIONS = {
    'artifacts': {'model': {'artifactType': {'schemaTitle': 'tfx.Model'}}},
    'parameters': {
        'data': {'parameterType': 'STRING'},
        'gate': {'parameterType': 'STRING'},
        'gate.accuracy': {'parameterType': 'NUMBER_DOUBLE'},
    },
}


NO_TYPE = {'instanceSchema': ''}  # as in recorded inputs of server 2.17
TYPES = [NO_TYPE, {'schemaTitle': 'system.Model'}, {'instanceSchema': 'title: system.Dataset\ntype: object\n'}, {}]
"""What servers give as the type of an input artifact; the last three as others report it."""


def make_invocation(output_file: str = '/x/output.json', kind: dict = NO_TYPE) -> dict:
    def make(uri: str, kind: dict) -> dict:
        return {'artifacts': [{'name': '7', 'uri': uri, 'type': kind, 'metadata': {'from': uri}}]}

    return {
        'inputs': {
            'parameterValues': {'data': 'gs://bucket/data', 'gate': '{"accuracy": 0.9}', 'gate.accuracy': 0.5},
            'artifacts': {'model': make('minio://mlpipeline/run/model', kind)},
        },
        'outputs': {
            'artifacts': {
                'blessing': make('minio://mlpipeline/run/blessing', {'schemaTitle': 'tfx.ModelBlessing'}),
                'executor-logs': make('minio://mlpipeline/run/executor-logs-0', {'schemaTitle': 'system.Artifact'}),
            },
            'outputFile': output_file,
        },
    }


@pytest.mark.parametrize('kind', TYPES)
def test_artifacts_become_local_and_typed_and_parameters_are_applied(kind):
    mapped = entrypoint.map_invocation(make_invocation(kind=kind), DEFINITIONS, '/r')
    assert mapped['inputs']['parameterValues'] == {'data': 'gs://bucket/data', 'gate': '{"accuracy": 0.5}'}
    (model,) = mapped['inputs']['artifacts']['model']['artifacts']
    assert model['uri'] == model['metadata']['from'] == '/r/minio/mlpipeline/run/model'
    assert model['type'] == {'schemaTitle': 'tfx.Model'}, 'Kubeflow loses it, or gives its own'
    (blessing,) = mapped['outputs']['artifacts']['blessing']['artifacts']
    assert blessing['uri'] == '/r/minio/mlpipeline/run/blessing'
    assert blessing['type'] == {'schemaTitle': 'tfx.ModelBlessing'}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the entry point, with a stand-in for TFX's if there is one; returns the exit code and the output file."""

    def start(stand_in=None, executor: str = 'components.baseline.Executor', kind: dict = NO_TYPE) -> tuple[int, dict]:
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

        if stand_in:
            monkeypatch.setattr(kubeflow_v2_run_executor, 'main', stand_in)
        monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
        logs = (
            tmp_path / 'minio' / 'mlpipeline' / 'run' / 'executor-logs-0'
        )  # the launcher writes it while the step runs
        logs.parent.mkdir(parents=True)
        logs.touch()
        output = tmp_path / 'output.json'
        output.write_text('{}')
        arguments = {
            '--executor_class_path': executor,
            '--json_serialized_invocation_args': json.dumps(make_invocation(str(output), kind)),
            '--json_serialized_inputs_spec_args': json.dumps(DEFINITIONS),
        }
        argv = [part for pair in arguments.items() for part in pair]
        return entrypoint.main([*argv, '--runner=FnApiRunner']), json.loads(output.read_text())

    return start


class ReportingExecutor(base_executor.BaseExecutor):
    """Writes what TFX gives it into its output artifact."""

    def Do(self, input_dict, output_dict, exec_properties):
        (model,), (blessing,) = input_dict['model'], output_dict['blessing']
        blessing.set_string_custom_property('seen', f'{type(model).__name__} {model.uri} {exec_properties["gate"]}')


@pytest.mark.parametrize('kind', TYPES)
def test_tfx_itself_runs_the_executor_with_typed_local_inputs_and_its_output_file_has_uris(run, tmp_path, kind):
    code, output = run(executor=f'{__name__}.{ReportingExecutor.__name__}', kind=kind)
    assert code == 0
    (blessing,) = output['artifacts']['blessing']['artifacts']
    assert blessing['uri'] == 'minio://mlpipeline/run/blessing'
    assert blessing['metadata']['seen'] == f'Model {tmp_path}/minio/mlpipeline/run/model {{"accuracy": 0.5}}'


def test_paths_in_the_output_file_of_a_step_become_uris(run):
    def stand_in(parsed):
        arguments, beam_arguments = parsed
        assert beam_arguments == ['--runner=FnApiRunner']
        outputs = json.loads(arguments.json_serialized_invocation_args)['outputs']
        assert [*outputs['artifacts']] == ['blessing'], 'TFX does not know system.Artifact'
        assert Path(outputs['artifacts']['blessing']['artifacts'][0]['uri']).is_dir()
        Path(outputs['outputFile']).write_text(json.dumps({'artifacts': outputs['artifacts']}))

    code, output = run(stand_in)
    assert code == 0
    (blessing,) = output['artifacts']['blessing']['artifacts']
    assert blessing['uri'] == blessing['metadata']['from'] == 'minio://mlpipeline/run/blessing'


@pytest.mark.parametrize(('error', 'code'), [(DataRefusedError('The data was refused.'), 4), (KeyError('x'), 1)])
def test_a_step_that_fails_ends_with_its_error_message(run, capsys, error, code):
    def stand_in(parsed):
        raise error

    assert run(stand_in)[0] == code
    assert capsys.readouterr().err.splitlines()[-1] == f'error: {error}'


@pytest.mark.parametrize(('given', 'attempts'), [({}, 12), ({'AWS_MAX_ATTEMPTS': '3'}, 3)])
def test_a_step_waits_for_an_object_store_that_is_away_because_the_server_may_not_retry_the_step(
    run, monkeypatch, given, attempts
):
    import boto3

    for name in entrypoint.STORE_VARIABLES:
        monkeypatch.setenv(name, '')  # so that it is restored after the test
        monkeypatch.delenv(name)
    for name, value in {'AWS_DEFAULT_REGION': 'x', **given}.items():
        monkeypatch.setenv(name, value)
    retries = []

    def stand_in(parsed):
        retries.append(boto3.session.Session().client('s3').meta.config.retries)
        Path(json.loads(parsed[0].json_serialized_invocation_args)['outputs']['outputFile']).write_text('{}')

    assert run(stand_in)[0] == 0
    assert retries == [{'mode': 'standard', 'total_max_attempts': attempts}]


@pytest.mark.parametrize(('devices', 'code'), [([], 1), (['GPU:0'], 0)])
def test_a_step_that_was_promised_a_gpu_and_sees_none_stops_before_it_reads_data(
    run, monkeypatch, capsys, devices, code
):
    read = []

    def stand_in(parsed):
        read.append(parsed)
        Path(json.loads(parsed[0].json_serialized_invocation_args)['outputs']['outputFile']).write_text('{}')

    monkeypatch.setenv(GPU_VARIABLE, '1')
    monkeypatch.setattr('tensorflow.config.list_physical_devices', lambda kind: devices)
    assert run(stand_in)[0] == code
    assert bool(read) == bool(devices)
    if not devices:
        assert 'error: The package asks for 1 GPU for this step, and TensorFlow finds none. ' in capsys.readouterr().err


TFX = 'tfx.orchestration.kubeflow.v2.container'
ABORTING = f"""
import atexit, json, logging, os, pathlib, runpy, sys, types
def stand_in(parsed):
    print('written')
    logging.getLogger('trainer').info('training resumes')
    logging.getLogger('components.progress').info('3 of 4 images')
    logging.getLogger('other').info('noise')
    given = json.loads(parsed[0].json_serialized_invocation_args)
    pathlib.Path(given['outputs']['outputFile']).write_text('{{}}')
    if 'fail' in parsed[1]:
        raise ValueError('no data')
tfx = types.ModuleType('{TFX}')
tfx.kubeflow_v2_run_executor = types.SimpleNamespace(main=stand_in)
sys.modules['{TFX}'] = tfx
atexit.register(os.abort)
sys.argv[0] = 'entrypoint'
runpy.run_module('kubeflow.entrypoint', run_name='__main__')
"""


@pytest.mark.parametrize(('more', 'code'), [([], 0), (['fail'], 1)])
def test_a_library_that_aborts_when_python_ends_does_not_fail_a_step_whose_outputs_are_written(tmp_path, more, code):
    output = tmp_path / 'output.json'
    arguments = {
        '--executor_class_path': 'x.Executor',
        '--json_serialized_invocation_args': json.dumps(make_invocation(str(output))),
        '--json_serialized_inputs_spec_args': json.dumps(DEFINITIONS),
    }
    argv = [part for pair in arguments.items() for part in pair]
    environment = {**os.environ, ROOT_VARIABLE: str(tmp_path)}
    command = [sys.executable, '-c', ABORTING, *argv, *more]
    ended = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == 'written\n'
    assert ended.stderr.splitlines()[:2] == [
        'INFO:trainer:training resumes',
        'INFO:components.progress:3 of 4 images',
    ]
    assert 'noise' not in ended.stderr
    assert json.loads(output.read_text()) == {}
