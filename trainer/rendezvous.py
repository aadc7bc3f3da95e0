"""Reads TF_CONFIG, and waits until every worker that it lists has started, before TensorFlow waits for them.

TensorFlow waits for an hour, in C++, without saying for whom, and deaf to signals. So each worker first listens at its
own address and calls at those of the others, until all have answered. Nothing here imports TensorFlow.
"""

import dataclasses
import json
import os
import socket
import time

from components.errors import TrainingError, to_one_line
from components.progress import track

JOIN_TIMEOUT_S = 90.0  # how long workers wait for each other: long enough to start each by hand
POD_JOIN_TIMEOUT_S = 1800.0  # the same in a pod of Kubernetes, whose node may have to pull gigabytes of an image first
_POD_VARIABLE = 'KUBERNETES_SERVICE_HOST'  # Kubernetes sets it in every pod
_CALL_TIMEOUT_S = 1.0
_PAUSE_S = 0.5  # between two rounds of calls


@dataclasses.dataclass(frozen=True)
class Workers:
    """The workers that TF_CONFIG lists."""

    addresses: tuple[str, ...] = ()
    """HOST:PORT of each; the chief's, if there is one, comes first. Empty if there are fewer than two."""
    index: int = 0
    """Which of them this process is."""

    @property
    def count(self) -> int:
        """Number of workers; 1 without a cluster."""
        return len(self.addresses) or 1


def read_workers(tf_config: str) -> Workers:
    """Reads the text of the environment variable TF_CONFIG; '' if it is not set.

    Raises:
      TrainingError: TensorFlow would not accept the text, or it is not for a worker.
    """
    try:
        config = json.loads(tf_config or '{}')
        cluster, task = config.get('cluster', {}), config.get('task', {})
        chiefs = len(cluster.get('chief', []))
        addresses = (*cluster.get('chief', []), *cluster.get('worker', []))
        if len(addresses) < 2:
            return Workers()
        if task['type'] not in ('chief', 'worker'):
            raise ValueError(f'the task is a {task["type"]}, and only chief and worker train')
        index = int(task['index']) + (chiefs if task['type'] == 'worker' else 0)
        if not 0 <= index < len(addresses):
            raise ValueError(f'{task["type"]} {task["index"]} is not in the list')
        for address in addresses:
            _split_address(address)
        return Workers(addresses, index)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f'The environment variable TF_CONFIG does not describe a worker of a cluster ({to_one_line(error)}); see '
            'tf.distribute.MultiWorkerMirroredStrategy for its format, or unset it to train on one machine.'
        ) from error


def choose_join_timeout(wanted_s: float | None) -> float:
    """Resolves the setting `trainer.join_timeout_s`, in seconds."""
    if wanted_s is not None:
        return wanted_s
    return POD_JOIN_TIMEOUT_S if _POD_VARIABLE in os.environ else JOIN_TIMEOUT_S


def _split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(':')
    if not host or not port.isdigit():
        raise ValueError(f'{address!r} is not HOST:PORT')
    return host.strip('[]'), int(port)


def _listen(address: str, backlog: int) -> socket.socket:
    """Listens at this worker's port on all interfaces, as TensorFlow will."""
    port = _split_address(address)[1]
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
        return socket.create_server(('', port), backlog=backlog)
    except OSError as error:
        raise TrainingError(
            f'This worker cannot listen at {address}, its own address in TF_CONFIG ({to_one_line(error)}); end the '
            'process that uses the port, which may be an earlier worker, or give all workers a TF_CONFIG with another.'
        ) from error


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_split_address(address), _CALL_TIMEOUT_S).close()
    except OSError:  # also for a name that is not known yet, such as that of a pod
        return False
    return True


def meet_workers(workers: Workers, timeout_s: float) -> None:
    """Waits until every other worker has answered at its address, by this function or by TensorFlow's server.

    Nobody has to accept the calls: the system answers them as long as this process listens.

    Args:
      workers: At least two.
      timeout_s: How long to wait, in seconds.

    Raises:
      TrainingError: This worker's port is in use, or others did not answer in time.
    """
    begin = time.monotonic()
    missing = [address for number, address in enumerate(workers.addresses) if number != workers.index]
    with (
        _listen(workers.addresses[workers.index], backlog=workers.count),
        track('waiting for the other workers', len(missing), 'workers') as advance,
    ):
        while True:
            answered = {address for address in missing if _answers(address)}
            missing = [address for address in missing if address not in answered]
            advance(len(answered))
            if not missing:
                return
            if time.monotonic() - begin > timeout_s:
                break
            time.sleep(_PAUSE_S)
    raise TrainingError(
        f'{len(missing)} of the {workers.count} workers of TF_CONFIG did not answer within {timeout_s:g} s: '
        f'{", ".join(missing)}. Start all of them within that time, and check these addresses and that no firewall '
        'closes their ports; trainer.join_timeout_s sets how long to wait.'
    )
