"""A small server of pushed models: TensorFlow Serving's REST and gRPC interfaces, for laptops, demos, tests and CI.

    python -m pipeline.server --port=8500 --rest_api_port=8501 --model_name=cifar10 --model_base_path=DIR

It takes the flags of `tensorflow_model_server`, so that either can be started with the same command. It is not
TensorFlow Serving: see docs/server.md.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from components.environment import choose_variables
from components.errors import PipelineError, UsageError
from pipeline.console import divert_chatter

_KEEP_ALIVE_S = 60  # for the next request on a connection
_STOP_S = 8  # for requests that are being answered

_FLAGS: tuple[tuple[str, type | None, Any, str], ...] = (
    ('port', int, 8500, 'port of gRPC; 0 for none'),
    ('rest_api_port', int, 0, 'port of REST and of the page; 0 for none'),
    ('host', str, '127.0.0.1', 'address to listen on; 0.0.0.0 for all. TensorFlow Serving always listens on all'),
    ('model_name', str, 'default', 'name of the model'),
    ('model_base_path', str, '', 'folder of versions; the newest is served'),
    ('model_config_file', str, '', 'models.config, in place of the two above'),
    ('model_config_file_poll_wait_seconds', float, 0, 'seconds between two readings of it; 0 reads it once'),
    ('file_system_poll_wait_seconds', float, 1, 'seconds between two looks for versions'),
    ('allow_version_labels_for_unavailable_models', None, False, 'let a new label come before its version is loaded'),
    ('enable_batching', None, False, 'put requests that come at the same time into one batch'),
    ('batching_parameters_file', str, '', 'batching.config'),
    ('monitoring_config_file', str, '', 'monitoring.config'),
    ('rest_api_timeout_in_ms', int, 30_000, 'milliseconds in which a REST request must be answered'),
    ('enable_model_warmup', None, True, 'run the warm-up requests of a version before it is available'),
)


# Flags of TensorFlow Serving 2.20's main.cc that this server does not have.
_OTHERS = """
enable_grpc_healthcheck_service enable_per_model_batching_parameters enable_profiler
enable_serialization_as_tensor_content enable_signature_method_name_check flush_filesystem_caches
grpc_channel_arguments grpc_max_threads grpc_socket_path load_retry_interval_micros max_num_load_retries
mixed_precision num_load_threads num_request_iterations_for_warmup num_tflite_interpreters_per_pool
num_tflite_pools num_unload_threads per_process_gpu_memory_fraction platform_config_file prefer_tflite_model
remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support rest_api_num_threads saved_model_tags
skip_initialize_tpu ssl_config_file tensorflow_inter_op_parallelism tensorflow_intra_op_parallelism
tensorflow_session_config_file tensorflow_session_parallelism thread_pool_factory_config_file
use_alts_credentials version xla_cpu_compilation_enabled xla_gpu_compilation_enabled
"""


def _read_bool(text: str) -> bool:
    if text.lower() not in ('true', 'false', '1', '0'):
        raise argparse.ArgumentTypeError(f'takes true or false. Received: {text!r}')
    return text.lower() in ('true', '1')


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the flags."""
    parser = argparse.ArgumentParser(
        prog='python -m pipeline.server',
        description='A small server with the REST and gRPC interfaces of TensorFlow Serving, which it is not.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    for name, kind, default, text in _FLAGS:
        if kind is None:
            parser.add_argument(f'--{name}', type=_read_bool, nargs='?', const=True, default=default, help=text)
        else:
            parser.add_argument(f'--{name}', type=kind, default=default, help=text)
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f'{line}\n')
    sys.stdout.flush()


def _listen(flag: str, host: str, port: int) -> socket.socket:
    """Takes a port.

    Raises:
      UsageError: somebody listens there.
    """
    # asyncio sends small answers at once, without waiting for the client's acknowledgement (40 ms), only where the
    # socket names its protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(f'{flag}: {host}:{port} cannot be listened on ({error}); choose a different port.') from error
    return listener


class _Server:
    """The whole server: the versions, what runs them, and both interfaces.

    Args:
      flags: the command line.

    Raises:
      UsageError: a flag or a file that it names is wrong, or a port is in use.
    """

    def __init__(self, flags: argparse.Namespace):
        # What can be wrong is looked at before the imports, which take seconds.
        if flags.batching_parameters_file and not flags.enable_batching:
            raise UsageError('--batching_parameters_file needs --enable_batching.')
        if not flags.model_config_file and not Path(flags.model_base_path or '/dev/null').is_dir():
            raise UsageError(f'--model_base_path takes the folder of versions. Received: {flags.model_base_path!r}')
        if flags.port:
            _listen('--port', flags.host, flags.port).close()  # gRPC takes it later
        rest_port = flags.rest_api_port
        self._listener = _listen('--rest_api_port', flags.host, rest_port) if rest_port else None

        _import_tensorflow()
        import uvicorn

        from pipeline.server import config_files, grpc_service, rest
        from pipeline.server.batching import Batcher, Direct
        from pipeline.server.http_protocol import Protocol
        from pipeline.server.metrics import Metrics
        from pipeline.server.models import ModelStore
        from pipeline.server.service import Service

        self._flags = flags
        self._stopped, self._changed = threading.Event(), threading.Event()
        self._fault = ''
        self._is_answering = False
        metrics_file = flags.monitoring_config_file
        metrics_path = config_files.read_metrics_path(Path(metrics_file)) if metrics_file else None
        batching_file = flags.batching_parameters_file
        batching = config_files.read_batching(Path(batching_file)) if batching_file else config_files.Batching()
        models, metrics = self._read_models(), Metrics()
        self._store = ModelStore(
            models,
            _say,
            metrics,
            warm_up=flags.enable_model_warmup,
            allow_unavailable_labels=flags.allow_version_labels_for_unavailable_models,
        )
        self._runner = Batcher(batching, metrics) if flags.enable_batching else Direct()
        service = Service(self._store, self._runner, metrics)
        self._grpc = grpc_service.make_server(service, f'{flags.host}:{flags.port}') if flags.port else None
        app = rest.make_app(service, flags.rest_api_timeout_in_ms / 1000, metrics_path)
        config = uvicorn.Config(
            app,
            http=Protocol,
            log_level='critical',
            access_log=False,
            lifespan='off',
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_S,
        )
        self._rest = uvicorn.Server(config)

    def _read_models(self) -> list[Any]:
        from tensorflow_serving.config import model_server_config_pb2

        from pipeline.server import config_files
        from pipeline.server.models import check_config

        if self._flags.model_config_file:
            return check_config(config_files.read_models(Path(self._flags.model_config_file)))
        base = Path(self._flags.model_base_path)
        config = model_server_config_pb2.ModelServerConfig()
        config.model_config_list.config.add(name=self._flags.model_name, base_path=str(base.absolute()))
        return check_config(config)

    def run(self) -> None:
        """Loads the versions, answers until `stop` is called, and then answers what has come until then."""
        self._store.follow()
        threads = [threading.Thread(target=work, daemon=True) for work in (self._follow, self._watch)]
        if self._listener:
            self._listener.listen()  # so that nobody is refused while uvicorn starts
            rest = threading.Thread(target=self._rest.run, args=([self._listener],), name='rest', daemon=True)
            threads.append(rest)
        if self._grpc:
            self._grpc.start()
        for thread in threads:
            thread.start()
        while self._listener and not self._rest.started and rest.is_alive():
            time.sleep(0.01)
        self._is_answering = True
        _say('ready')
        self._stopped.wait()
        ended = self._grpc.stop(_STOP_S) if self._grpc else None
        self._rest.should_exit = True
        if self._listener:
            rest.join(_STOP_S + 1)
        if ended:
            ended.wait()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Makes `run` return; a handler of signals. While the first versions are being loaded, it ends the process."""
        if not self._is_answering:
            os._exit(0)
        self._stopped.set()

    def _follow(self) -> None:
        """Loads and unloads versions, again and again: when models.config has changed, and every few seconds."""
        poll_s = self._flags.file_system_poll_wait_seconds
        while True:
            self._changed.wait(poll_s or None)
            self._changed.clear()
            self._store.follow()

    def _watch(self) -> None:
        """Reads models.config again and again; a label is moved at once, also while a version is being loaded."""
        poll_s = self._flags.model_config_file_poll_wait_seconds
        while poll_s and self._flags.model_config_file:
            time.sleep(poll_s)
            self._reread()

    def _reread(self) -> None:
        try:
            self._store.configure(self._read_models())
        except UsageError as error:  # the configuration stays as it was, as in TensorFlow Serving
            if str(error) != self._fault:
                _say(f'{self._flags.model_config_file} is not taken: {error}')
            self._fault = str(error)
        else:
            self._fault = ''
            self._changed.set()


def _import_tensorflow() -> None:
    """Imports TensorFlow and looks for its devices, without what it prints: none of that is about this server."""
    with divert_chatter(verbose=False):
        import tensorflow as tf

        tf.config.list_physical_devices()


def _serve(flags: argparse.Namespace) -> None:
    server = _Server(flags)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.stop)
    parts = []
    if flags.rest_api_port:
        parts.append(f'REST and the page http://{flags.host}:{flags.rest_api_port}')
    if flags.port:
        parts.append(f'gRPC {flags.host}:{flags.port}')
    _say(f'a small model server of this project, which is not TensorFlow Serving: {", ".join(parts)}')
    server.run()
    _say('stopped')


def _check_known(unknown: list[str]) -> None:
    """Refuses arguments that the parser does not know.

    Raises:
      UsageError: there is one.
    """
    for argument in unknown:
        name = argument.lstrip('-').partition('=')[0]
        if argument.startswith('--') and name in _OTHERS.split():
            raise UsageError(f'--{name} is a flag of TensorFlow Serving that this small server does not have.')
        raise UsageError(f'There is no flag {argument}; `python -m pipeline.server --help` lists them.')


def main(argv: list[str] | None = None) -> NoReturn:
    """Runs the server until SIGTERM or SIGINT, and then ends the process.

    The exit code is 0, or 2 if a flag, a file that it names, or a port cannot be used.
    """
    os.environ.update(choose_variables())
    flags, unknown = build_parser().parse_known_args(argv)
    sys.modules['keras'] = None  # type: ignore[assignment]  # a server needs TensorFlow alone, which then starts faster
    try:
        _check_known(unknown)
        _serve(flags)
        code = 0
    except PipelineError as error:
        sys.stderr.write(f'error: {error}\n')
        code = error.exit_code
    sys.stderr.flush()
    os._exit(code)  # TensorFlow's threads are not waited for


if __name__ == '__main__':
    main()
