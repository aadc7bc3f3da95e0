"""The exit handler: the document equals the one that kfp compiles, and the container's command tells a webhook."""

import http.server
import json
import subprocess
import sys
import threading

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import UsageError
from kubeflow.exit_handler import add_exit_handler
from tests.conftest import PROJECT

IMAGE, WEBHOOK = 'registry/cifar10:1', 'https://hooks/x'
MADE_WITH = 'pipelinechannel--'  # kfp puts it before a parameter's name in a graph within the graph; we keep the name


def compile_with_kfp(path, *, with_handler: bool) -> dict:
    """Compiles a pipeline of two steps with kfp, with or without kfp's own exit handler."""

    @dsl.container_component
    def notify(webhook: str, run_name: str, run_id: str, status: dsl.PipelineTaskFinalStatus):
        args = ['--pipeline', 'p', '--webhook', webhook, '--run-name', run_name, '--run-id', run_id, '--status', status]
        return dsl.ContainerSpec(image=IMAGE, command=['python', '-m', 'kubeflow.notify'], args=args)

    @dsl.container_component
    def train(data: str, model: dsl.Output[dsl.Model]):
        return dsl.ContainerSpec(image=IMAGE, command=['train'], args=[data, model.path])

    @dsl.container_component
    def push(model: dsl.Input[dsl.Model], epochs: int):
        return dsl.ContainerSpec(image=IMAGE, command=['push'], args=[model.path, epochs])

    def add_steps(data, epochs):
        push(model=train(data=data).outputs['model'], epochs=epochs)

    if with_handler:

        @dsl.pipeline(name='p')
        def pipeline(data: str = '/data', epochs: int = 3, webhook: str = WEBHOOK):
            task = notify(
                webhook=webhook, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
            ).set_caching_options(False)
            with dsl.ExitHandler(task):
                add_steps(data, epochs)
    else:

        @dsl.pipeline(name='p')
        def pipeline(data: str = '/data', epochs: int = 3):
            add_steps(data, epochs)

    compiler.Compiler().compile(pipeline, str(path))
    return yaml.safe_load(path.read_text().replace(MADE_WITH, '').replace('exec-notify', 'notify_executor'))


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    return compile_with_kfp(tmp_path_factory.mktemp('plain') / 'plain.yaml', with_handler=False)


def test_the_document_is_what_kfp_compiles(compiled, tmp_path):
    assert add_exit_handler(compiled, IMAGE, WEBHOOK) == compile_with_kfp(tmp_path / 'kfp.yaml', with_handler=True)


def test_a_pipeline_without_parameters_gives_a_valid_document_too(compiled):
    spec = json.loads(json.dumps(compiled))
    del spec['root']['inputDefinitions']
    for task in spec['root']['dag']['tasks'].values():
        task.get('inputs', {}).pop('parameters', None)
    made = json_format.ParseDict(add_exit_handler(spec, IMAGE, WEBHOOK), pipeline_spec_pb2.PipelineSpec())
    assert [*made.root.input_definitions.parameters] == ['webhook']
    assert not made.root.dag.tasks['exit-handler-1'].inputs.parameters


def test_the_given_document_stays_as_it_is(compiled):
    before = json.dumps(compiled)
    add_exit_handler(compiled, IMAGE, WEBHOOK)
    assert json.dumps(compiled) == before


def test_names_that_are_taken_and_a_webhook_that_is_not_an_address_are_refused(compiled):
    with pytest.raises(UsageError, match='exit-handler-1, notify, notify_executor, webhook'):
        add_exit_handler(add_exit_handler(compiled, IMAGE, WEBHOOK), IMAGE, WEBHOOK)
    with pytest.raises(UsageError, match='hooks/x'):
        add_exit_handler(compiled, IMAGE, 'hooks/x')


@pytest.fixture
def webhook():
    """A local server that keeps the posted messages, and responds with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers['Content-Length']))
            self.server.messages.append((self.headers['Content-Type'], json.loads(body)))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.messages, server.status = [], 200
    server.url = f'http://127.0.0.1:{server.server_port}/hook'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def call_notify(spec: dict, url: str, status: str) -> subprocess.CompletedProcess:
    """Runs the command of the compiled document, with the values that the driver would fill in."""
    container = spec['deploymentSpec']['executors']['notify_executor']['container']
    values = {'webhook': url, 'run_name': 'p 2026-01-01', 'run_id': '1234', 'status': status}
    args = list(container['args'])
    for name, value in values.items():
        args[args.index(f"{{{{$.inputs.parameters['{name}']}}}}")] = value
    command = [sys.executable if word == 'python' else word for word in container['command']]
    return subprocess.run([*command, *args], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ('status', 'state', 'error'),
    [
        ({'state': 'COMPLETE', 'error': {}, 'pipelineJobResourceName': 'p-abc'}, 'SUCCEEDED', ''),
        ({'state': 'FAILED', 'error': {}, 'pipelineTaskName': 'x'}, 'FAILED', "the server's last state is FAILED"),
        # a pod that was killed, such as at its timeout, has not written that it failed
        ({'state': 'RUNNING', 'error': {}}, 'FAILED', "the server's last state is RUNNING"),
        # the format of the document allows these, but the driver does not send them
        ({'state': 'SUCCEEDED', 'error': {'code': 2}}, 'SUCCEEDED', ''),
        ({'state': 'FAILED', 'error': {'code': 4, 'message': 'no disk'}}, 'FAILED', 'no disk'),
        ({'state': 'FAILED', 'error': None}, 'FAILED', "the server's last state is FAILED"),
    ],
)
def test_the_webhook_gets_pipeline_run_state_and_error(compiled, webhook, status, state, error):
    result = call_notify(add_exit_handler(compiled, IMAGE, WEBHOOK), webhook.url, json.dumps(status))
    assert (result.returncode, result.stderr) == (0, '')
    expected = {'pipeline': 'p', 'run_name': 'p 2026-01-01', 'run_id': '1234', 'state': state, 'error': error}
    assert webhook.messages == [('application/json', expected)]


def test_a_failing_webhook_is_one_sentence_and_exit_code_1(compiled, webhook):
    spec = add_exit_handler(compiled, IMAGE, WEBHOOK)
    webhook.status = 500
    closed = call_notify(spec, 'http://127.0.0.1:9/hook', '{"state": "FAILED"}')
    refused = call_notify(spec, webhook.url, '{"state": "FAILED"}')
    no_address = call_notify(spec, 'nothing', '{"state": "FAILED"}')
    for result in (closed, refused, no_address):
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert 'did not take the outcome FAILED' in result.stderr


@pytest.mark.parametrize('status', ['', '[]', '{}', 'FAILED'])
def test_a_status_that_cannot_be_read_is_one_sentence_and_nothing_is_sent(compiled, webhook, status):
    result = call_notify(add_exit_handler(compiled, IMAGE, WEBHOOK), webhook.url, status)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert not webhook.messages
