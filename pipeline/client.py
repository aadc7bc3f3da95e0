"""The client of TensorFlow Serving, and of any server with its REST or gRPC interface, such as pipeline.server.

    with connect('localhost:8500', grpc=True, label='stable') as client:
        for answer in client.classify([Path('cat.png').read_bytes()]):
            print(answer)

It does not import TensorFlow, so a program that uses it starts at once.
"""

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from components.errors import PipelineError, UsageError
from components.serving.models_config import MODEL_NAME
from pipeline.classifier import Classifier, Model

REST_PORT, GRPC_PORT = 8501, 8500  # TensorFlow Serving's own
DEADLINE_S = 60.0

# How often and how soon a request is made again that the server could not take. Together about 7 seconds, in which a
# server on the same machine can be replaced. gRPC makes no more than five attempts, whatever it is told.
ATTEMPTS = 5
FIRST_BACKOFF_S = 0.5  # doubles from attempt to attempt
LAST_BACKOFF_S = 4.0


class Target(NamedTuple):
    """Which model of which server is asked."""

    host: str
    """A name or an IP address; an IPv6 address without brackets."""
    port: int
    """Of the protocol that is spoken."""
    is_tls: bool
    """Whether the connection is encrypted; the certificate is checked then."""
    model: str
    """The model's name on the server."""
    label: str | None
    """The version label to ask for; None leaves it to the server, which takes the newest version."""
    version: int | None
    """The version to ask for; not together with a label."""

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine; then no proxy is asked, whatever the environment says."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == 'localhost'


class ServerError(PipelineError):
    """A server cannot be reached, does not answer in time, or refuses every request."""


def explain_silence(target: Target, reason: str) -> ServerError:
    """Makes the error for a server that cannot be reached, after all attempts."""
    return ServerError(
        f'{target.address} does not answer ({reason}); check that the server runs, and the port: it is usually '
        f'{REST_PORT} for REST, and {GRPC_PORT} for gRPC.'
    )


def explain_delay(target: Target, deadline_s: float) -> ServerError:
    """Makes the error for a server that has not answered in time."""
    return ServerError(
        f'{target.address} had no answer after {deadline_s:g} s and was not asked again; it may be overloaded.'
    )


def _parse_address(server: str, *, grpc: bool) -> tuple[str, int, bool]:
    """Returns host, port, and whether to use TLS, of HOST[:PORT] with or without http:// or https://."""
    wanted = f'A server is HOST:PORT, or http:// or https:// and HOST:PORT. Received: {server}'
    try:
        parts = urlsplit(server if '://' in server else f'http://{server}')
        port = parts.port
    except ValueError as error:
        raise UsageError(wanted) from error
    if parts.scheme not in ('http', 'https') or not parts.hostname or parts.path.strip('/') or parts.query:
        raise UsageError(wanted)
    return parts.hostname, port or (GRPC_PORT if grpc else REST_PORT), parts.scheme == 'https'


def connect(
    server: str,
    *,
    grpc: bool = False,
    label: str | None = None,
    version: int | None = None,
    model: str = MODEL_NAME,
    deadline_s: float = DEADLINE_S,
) -> Classifier:
    """Makes a client. Connections are opened by the first request, and kept.

    A request that the server could not take is made again, up to ATTEMPTS times, with exponential back-off and jitter:
    after gRPC's UNAVAILABLE, HTTP's 503, and a connection that was refused, as it is while a server starts. Other
    errors are not repeated.

    Args:
      server: HOST:PORT, http://HOST:PORT, or https://HOST:PORT for TLS. A missing port is TensorFlow Serving's own.
      grpc: whether to speak gRPC, and not REST.
      label: the version label to ask for, such as 'stable'.
      version: the version to ask for.
      model: the model's name on the server.
      deadline_s: seconds that a request may take. For gRPC they hold for all attempts together; for REST for each.

    Raises:
      UsageError: `server` is not an address, or both a label and a version are given.
    """
    if label is not None and version is not None:
        raise UsageError(f'A server is asked for a version label or for a version. Received: {label} and {version}')
    host, port, is_tls = _parse_address(server, grpc=grpc)
    target = Target(host, port, is_tls, model, label, version)
    transport: Model
    if grpc:
        from pipeline.client_grpc import GrpcModel

        transport = GrpcModel(target, deadline_s)
    else:
        from pipeline.client_rest import RestModel

        transport = RestModel(target, deadline_s)
    return Classifier(transport)
