"""The exit handler's container command: tells a webhook how a run ended. Standard library only.

Kubeflow's driver hands over the status of the sub-graph that `kubeflow.exit_handler` made, as JSON of
PipelineTaskFinalStatus: state, pipelineJobResourceName, pipelineTaskName, error. In 2.17 and before the state is ML
Metadata's, and `error` is empty. A step's launcher writes that state after its command, so it stays RUNNING where a pod
was killed or its driver failed. After a success it is COMPLETE: the Pusher is last, and never cached.
"""

import argparse
import json
import sys
import urllib.request

_TIMEOUT_S = 30.0
_SUCCEEDED = ('SUCCEEDED', 'COMPLETE', 'CACHED')


class NotifyError(Exception):
    """A status that cannot be read, or a webhook that did not take it, in one sentence."""


def make_message(pipeline: str, run_name: str, run_id: str, status: str) -> dict:
    """What the webhook gets.

    Args:
      pipeline: its name.
      run_name: as shown by the server.
      run_id: the server's.
      status: JSON of PipelineTaskFinalStatus, as the launcher passes it.

    Returns:
      pipeline, run_name, run_id, state (SUCCEEDED or FAILED: the run has ended) and error ('' for a success; else the
      server's message, or the state it knows).

    Raises:
      NotifyError: the status is no JSON object with a state.
    """
    try:
        fields = json.loads(status)
        state, error = fields['state'], fields.get('error') or {}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise NotifyError(f'the status of the run is no JSON object with a state. Received: {status!r}') from problem
    message = {'pipeline': pipeline, 'run_name': run_name, 'run_id': run_id}
    if state in _SUCCEEDED:
        return {**message, 'state': 'SUCCEEDED', 'error': ''}
    return {**message, 'state': 'FAILED', 'error': error.get('message') or f"the server's last state is {state}"}


def post_message(webhook: str, message: dict, timeout_s: float = _TIMEOUT_S) -> None:
    """POSTs the message as JSON.

    Raises:
      NotifyError: the address is none, nothing answered in time, or the answer was an error.
    """
    try:
        request = urllib.request.Request(
            webhook, data=json.dumps(message).encode(), headers={'Content-Type': 'application/json'}
        )
        urllib.request.urlopen(request, timeout=timeout_s).close()
    except (OSError, ValueError) as problem:  # HTTPError and URLError are OSErrors
        raise NotifyError(f'the webhook did not take the outcome {message["state"]} ({problem})') from problem


def main(argv: list[str] | None = None) -> int:
    """Sends one message; returns the exit code: 0 taken, 1 not."""
    parser = argparse.ArgumentParser(prog='python -m kubeflow.notify', description=__doc__.splitlines()[0])
    for name in ('webhook', 'pipeline', 'run-name', 'run-id', 'status'):
        parser.add_argument(f'--{name}', required=True)
    arguments = parser.parse_args(argv)
    try:
        message = make_message(arguments.pipeline, arguments.run_name, arguments.run_id, arguments.status)
        post_message(arguments.webhook, message)
    except NotifyError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'the webhook took the outcome {message["state"]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
