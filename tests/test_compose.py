"""compose.yaml: the server is started as `serve` starts it, and Prometheus reads the server's metrics."""

import yaml
from google.protobuf import text_format

from components.serving.model_servers import BINARY, IMAGE
from components.serving.models_config import CONFIG_FILE, MODEL_NAME
from components.serving.server_files import (
    BATCHING_FILE,
    MONITORING_FILE,
    choose_batching,
    make_batching,
    make_message,
    make_monitoring,
    write_files,
)
from tests.conftest import PROJECT

COMPOSE = yaml.safe_load((PROJECT / 'compose.yaml').read_text())
SERVER, PROMETHEUS = COMPOSE['services']['tensorflow-serving'], COMPOSE['services']['prometheus']
FIELDS = {
    *('image', 'entrypoint', 'command', 'init', 'restart', 'ports', 'volumes', 'configs'),
}
"""Of a service in the Compose specification, those that the file uses."""


def read_configs(service: dict) -> dict[str, str]:
    """Returns the text of each file that a service sees, by its path there."""
    return {each['target']: COMPOSE['configs'][each['source']]['content'] for each in service['configs']}


def test_the_file_has_only_fields_that_compose_knows():
    assert COMPOSE.keys() == {'name', 'services', 'volumes', 'configs'}
    for service in COMPOSE['services'].values():
        assert service.keys() <= FIELDS
        for mount in service['volumes']:
            assert isinstance(mount, str) or mount.keys() == {'type', 'source', 'target', 'read_only'}
    assert all(config.keys() == {'content'} for config in COMPOSE['configs'].values())
    used = [each['source'] for service in COMPOSE['services'].values() for each in service['configs']]
    assert sorted(used) == sorted(COMPOSE['configs'])


def test_the_images_are_pinned_and_the_ports_are_open_to_this_machine_only():
    assert SERVER['image'] == IMAGE
    assert '@sha256:' in PROMETHEUS['image']
    ports = [port for service in COMPOSE['services'].values() for port in service['ports']]
    assert [port.rpartition(':')[0] for port in ports] == ['127.0.0.1:8500', '127.0.0.1:8501', '127.0.0.1:9090']


def test_the_server_is_started_as_serve_starts_it(tmp_path):
    def name_flags(flags: list[str]) -> set[str]:
        return {flag.partition('=')[0] for flag in flags}

    flags = write_files(tmp_path, tmp_path, choose_batching({}, cores=1))
    assert SERVER['entrypoint'] == [BINARY]
    assert name_flags(SERVER['command']) == name_flags([*flags, '--port=8500', '--rest_api_port=8501'])
    files = {flag.partition('=')[2] for flag in SERVER['command'] if '_file=' in flag}
    assert files == {f'${{SERVING}}/{CONFIG_FILE}', *read_configs(SERVER)}


def test_the_server_sees_the_folder_under_the_path_that_models_config_names():
    [mount] = SERVER['volumes']
    assert (mount['target'], mount['read_only']) == ('${SERVING}', True)
    assert mount['source'].startswith('${SERVING:?')
    documents = (PROJECT / 'docs' / 'serving.md').read_text()
    assert 'SERVING=$PWD/runs/sample/serving docker compose up\n' in documents
    assert f'/v1/models/{MODEL_NAME}:predict' in documents


def test_the_configs_are_those_of_serve_for_a_version_without_measured_latencies():
    texts = read_configs(SERVER)
    batching = text_format.Parse(texts[f'/config/{BATCHING_FILE}'], make_message('BatchingParameters'))
    expected = make_batching(choose_batching({}, cores=1))
    expected.ClearField('num_batch_threads')  # the server takes as many as there are cores
    assert batching == expected
    monitoring = text_format.Parse(texts[f'/config/{MONITORING_FILE}'], make_message('MonitoringConfig'))
    assert monitoring == make_monitoring()


def test_prometheus_reads_the_path_that_the_server_offers():
    config = yaml.safe_load(read_configs(PROMETHEUS)['/etc/prometheus/prometheus.yml'])
    [job] = config['scrape_configs']
    assert job['metrics_path'] == make_monitoring().prometheus_config.path
    assert job['static_configs'] == [{'targets': ['tensorflow-serving:8501']}]
