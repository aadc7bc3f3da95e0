"""`submit` against a local server that records what kfp's client sends."""

import copy
import io
import json

import pytest
import yaml
from kfp.client import Client

from components.errors import PipelineError, UsageError
from kubeflow import submit
from kubeflow.package import parse_parameters, read_package
from tests.conftest import run_cli
from tests.kubeflow.stand_in_kubeflow import KubeflowServer

DESCRIPTION = 'Trains and pushes a model.'
SPEC = {
    'pipelineInfo': {'name': 'cifar10', 'description': DESCRIPTION},
    'defaultPipelineRoot': 'minio://mlpipeline/v2',
    'schemaVersion': '2.1.0',
    'root': {
        'dag': {'tasks': {name: {'componentRef': {'name': name}} for name in ('Trainer', 'Pusher')}},
        'inputDefinitions': {
            'parameters': {
                'data': {'parameterType': 'STRING', 'defaultValue': '/data'},
                'epochs': {'parameterType': 'NUMBER_INTEGER', 'defaultValue': 2},
                'accuracy': {'parameterType': 'NUMBER_DOUBLE', 'defaultValue': 0.9},
                'fast': {'parameterType': 'BOOLEAN', 'isOptional': True},
            }
        },
    },
    'components': {'Trainer': {'executorLabel': 't'}, 'Pusher': {'executorLabel': 'p'}},
    'deploymentSpec': {'executors': {'t': {'container': {'image': 'a:1'}}, 'p': {'container': {'image': 'a:1'}}}},
}


@pytest.fixture
def server():
    started = KubeflowServer()
    yield started
    started.close()


@pytest.fixture
def package(tmp_path):
    path = tmp_path / 'cifar10.yaml'
    path.write_text(yaml.safe_dump(SPEC))
    return path


@pytest.fixture
def user_namespace(tmp_path, monkeypatch):
    """The namespace of a user whose kfp context names one."""
    context = tmp_path / 'context.json'
    context.write_text(json.dumps({'namespace': 'team-a'}))
    monkeypatch.setattr(Client, '_LOCAL_KFP_CONTEXT', str(context))
    return 'team-a'


def call_submit(package, server, cron=None, assignments=(), wait=True) -> tuple[int, str]:
    out = io.StringIO()
    submission = submit.Submission(package, server.url, 'weekly', cron, list(assignments), wait)
    return submit.submit(submission, out, poll_s=0.01), out.getvalue()


def make_task(name: str, state: str, **more) -> dict:
    return {'task_id': name, 'display_name': name, 'state': state, **more}


def test_a_first_submission_creates_pipeline_version_experiment_and_run(package, server):
    assert call_submit(package, server, assignments=['epochs=5', 'data=/mnt/x=y'])[0] == 0
    [pipeline], [experiment] = server.list_posted('pipelines'), server.list_posted('experiments')
    assert pipeline.body['display_name'] == 'cifar10'
    assert pipeline.body['description'] == DESCRIPTION, 'the server does not read it from the package'
    assert experiment.body['display_name'] == 'weekly'
    [upload] = server.list_posted('pipelines/upload_version')
    assert upload.body == package.read_bytes()
    assert upload.query['pipelineid'] == 'pipelines-1'
    assert upload.query['description'] == DESCRIPTION
    [run] = server.list_posted('runs')
    assert run.body['experiment_id'] == 'experiments-1'
    assert run.body['pipeline_version_reference'] == {
        'pipeline_id': 'pipelines-1',
        'pipeline_version_id': 'versions-1',
    }
    assert run.body['runtime_config'] == {
        'parameters': {'epochs': 5, 'data': '/mnt/x=y'},
        'pipeline_root': 'minio://mlpipeline/v2',
    }


@pytest.mark.parametrize(
    ('health', 'version', 'warned'),
    [
        ({'apiServerTagName': '2.16.1'}, '2.16.1', False),
        ({'apiServerTagName': '2.17.0'}, '2.17.0', True),
        ({'tag_name': '2.20.1'}, '2.20.1', True),
        ({'tag_name': 'unknown'}, 'unknown', True),
        ({}, 'of unknown version', True),
    ],
)
def test_the_servers_version_is_printed_and_whether_it_retries_steps(package, server, health, version, warned):
    spec = copy.deepcopy(SPEC)
    spec['root']['dag']['tasks']['Trainer']['retryPolicy'] = {'maxRetryCount': 2}
    package.write_text(yaml.safe_dump(spec))
    server.health = health
    first, second, *_ = call_submit(package, server)[1].splitlines()
    assert first == f'server {version}'
    assert second.startswith('warning: servers from 2.17 on') == warned


def test_a_package_without_retries_has_no_warning_of_them(package, server):
    server.health = {'tag_name': '2.17.0'}
    assert 'warning' not in call_submit(package, server)[1]


def test_the_same_package_is_uploaded_once_and_a_changed_one_as_a_new_version(package, server):
    for _ in range(2):
        call_submit(package, server)
    assert len(server.list_posted('pipelines/upload_version')) == 1
    assert len(server.list_posted('runs')) == 2
    package.write_text(package.read_text() + '# changed\n')
    call_submit(package, server)
    first, second = server.list_posted('pipelines/upload_version')
    assert first.query['name'] != second.query['name']
    assert len(server.list_posted('pipelines')) == len(server.list_posted('experiments')) == 1
    assert server.list_posted('runs')[-1].body['pipeline_version_reference']['pipeline_version_id'] == 'versions-2'


def test_a_pipeline_in_the_users_namespace_is_found_again(package, server, user_namespace):
    for _ in range(2):
        call_submit(package, server)
    [pipeline] = server.list_posted('pipelines')
    assert pipeline.body['namespace'] == user_namespace
    assert len(server.list_posted('pipelines/upload_version')) == 1


def test_each_change_of_a_step_is_a_line_and_other_nodes_have_no_line(package, server):
    times = {'start_time': '2026-01-01T00:00:00Z', 'end_time': '2026-01-01T00:01:30Z'}
    trained = make_task('Trainer', 'SUCCEEDED', **times)
    server.run_answers = [
        {'state': 'PENDING'},
        {'state': 'RUNNING', 'tasks': [make_task('root', 'RUNNING'), make_task('Trainer', 'RUNNING')]},
        {'state': 'RUNNING', 'tasks': [make_task('Trainer', 'RUNNING')]},
        {
            'state': 'RUNNING',
            'tasks': [trained, make_task('Pusher-driver', 'SUCCEEDED'), make_task('Pusher', 'RUNNING')],
        },
        {'state': 'SUCCEEDED', 'tasks': [trained, make_task('Pusher', 'SUCCEEDED')]},
    ]
    code, out = call_submit(package, server)
    assert code == 0
    steps = [line.split() for line in out.splitlines() if line.startswith(('Trainer', 'Pusher', 'root'))]
    assert steps == [
        ['Trainer', 'RUNNING'],
        ['Trainer', 'SUCCEEDED', '90', 's'],
        ['Pusher', 'RUNNING'],
        ['Pusher', 'SUCCEEDED'],
    ]


def test_a_failed_run_exits_with_1_names_the_step_and_says_where_its_log_is(package, server, user_namespace):
    server.run_answers = [{'state': 'FAILED', 'tasks': [make_task('root', 'FAILED'), make_task('Trainer', 'FAILED')]}]
    code, out = call_submit(package, server)
    assert code == 1
    assert 'Trainer failed' in out
    assert 'root' not in out
    assert f'kubectl get pods -n {user_namespace} -l pipeline/runid=runs-1 ' in out


def test_a_task_without_a_name_is_ignored(package, server):
    nameless = {'task_id': '1', 'state': 'FAILED'}
    server.run_answers = [{'state': 'FAILED', 'tasks': [nameless, make_task('Trainer', 'FAILED')]}]
    code, out = call_submit(package, server)
    assert code == 1
    assert 'Trainer failed' in out


def test_a_response_of_null_is_a_sentence(package, server):
    server.nulls.add('GET healthz')
    with pytest.raises(UsageError, match='does not answer as a Kubeflow Pipelines server'):
        call_submit(package, server)


def test_a_step_whose_driver_failed_is_named(package, server):
    server.run_answers = [{'state': 'FAILED', 'tasks': [make_task('Trainer-driver', 'FAILED')]}]
    assert 'Trainer-driver failed' in call_submit(package, server)[1]


def test_a_run_whose_pusher_was_skipped_counts_by_its_own_state(package, server):
    server.run_answers = [{'state': 'SUCCEEDED', 'tasks': [make_task('Pusher', 'SKIPPED')]}]
    code, out = call_submit(package, server)
    assert code == 0
    assert out.splitlines()[-1].startswith('the run succeeded; ')


def test_no_wait_starts_the_run_and_does_not_watch_it(package, server):
    assert call_submit(package, server, wait=False)[0] == 0
    assert server.calls[-1].what == 'POST runs'


def test_watching_survives_a_broken_connection(package, server):
    server.refusals['GET runs/runs-1'] = [502, 502]
    assert call_submit(package, server)[0] == 0
    assert server.refusals['GET runs/runs-1'] == []


def test_a_recurring_run_replaces_the_previous_one(package, server):
    for cron in ('0 0 3 * * 1', '0 0 4 * * 1'):
        assert call_submit(package, server, cron=cron)[0] == 0
    first, second = server.list_posted('recurringruns')
    assert second.body['trigger'] == {'cron_schedule': {'cron': '0 0 4 * * 1'}}
    assert (second.body['mode'], second.body['no_catchup']) == ('ENABLE', True)
    assert first.body['pipeline_version_reference'] == second.body['pipeline_version_reference']
    assert [run['status'] for run in server.kept['recurringruns']] == ['DISABLED', 'ENABLED']
    assert not server.list_posted('runs')


def test_a_refusal_is_a_sentence_with_what_the_server_said(package, server):
    server.refusals['POST runs'] = [400]
    with pytest.raises(PipelineError, match=r'400.*no such luck') as error:
        call_submit(package, server)
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('epoch=3', 'did you mean epochs'),
        ('epochs', 'KEY=VALUE'),
        ('epochs=2.5', 'NUMBER_INTEGER'),
        ('epochs=true', 'NUMBER_INTEGER'),
        ('accuracy=high', 'NUMBER_DOUBLE'),
        ('fast=1', 'BOOLEAN'),
        ('data=/mnt/{{workflow.nope}}', r'parameter data takes no \{\{, .* Received: /mnt/\{\{workflow'),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_sent(package, server, assignment, message):
    with pytest.raises(UsageError, match=message):
        call_submit(package, server, assignments=[assignment])
    assert not server.calls


def test_parameters_get_their_types(package):
    values = parse_parameters(read_package(package), ['epochs=3', 'accuracy=1', 'fast=false', 'data=5'])
    assert values == {'epochs': 3, 'accuracy': 1, 'fast': False, 'data': '5'}


def test_a_parameter_without_a_default_must_be_given(tmp_path):
    spec = yaml.safe_load(yaml.safe_dump(SPEC))
    del spec['root']['inputDefinitions']['parameters']['data']['defaultValue']
    path = tmp_path / 'needs.yaml'
    path.write_text(yaml.safe_dump(spec))
    with pytest.raises(UsageError, match='--parameter data=VALUE'):
        parse_parameters(read_package(path), [])


def test_a_schedule_of_five_fields_is_refused(package, server):
    with pytest.raises(UsageError, match='six fields'):
        call_submit(package, server, cron='0 3 * * 1')


def test_a_host_without_protocol_is_refused(package):
    submission = submit.Submission(package, 'localhost:8080', 'weekly', None, [], wait=True)
    with pytest.raises(UsageError, match=r"http or https.*'localhost:8080'"):
        submit.submit(submission, io.StringIO())


@pytest.mark.parametrize('content', ['', 'a: 1', '- 1', 'a: [', 'text'])
def test_a_file_that_is_not_a_package_is_named(tmp_path, content):
    path = tmp_path / 'other.yaml'
    path.write_text(content)
    with pytest.raises(UsageError, match=r'other\.yaml is not a compiled pipeline'):
        read_package(path)


def test_the_command_watches_a_run(package, server):
    options = ['--parameter', 'epochs=4', '--service-account', 'trainer']
    result = run_cli('submit', package, '--host', server.url, *options)
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.splitlines()[-1].startswith('the run succeeded')
    [run] = server.list_posted('runs')
    assert run.body['runtime_config']['parameters'] == {'epochs': 4}
    assert run.body['service_account'] == 'trainer'


def test_a_recurring_run_gets_the_service_account_too(package, server):
    submission = submit.Submission(
        package, server.url, 'weekly', '0 0 3 * * 1', [], wait=True, service_account='trainer'
    )
    submit.submit(submission, io.StringIO())
    assert server.list_posted('recurringruns')[0].body['service_account'] == 'trainer'


def test_an_unreachable_host_is_a_sentence_and_exit_code_2(package, server):
    server.close()
    result = run_cli('submit', package, '--host', server.url)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert 'does not answer' in result.stderr
