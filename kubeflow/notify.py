"""Tells a webhook how a run ended: the command of the exit handler's container. It uses only the standard library.

Kubeflow's driver passes the status of the graph that `kubeflow.exit_handler` made, as JSON of PipelineTaskFinalStatus:
state, pipelineJobResourceName, pipelineTaskName, error. Up to server 2.17 the state is the one in ML Metadata, and
`error` is empty. The launcher of a step writes the state after the step's command has ended, so the state stays RUNNING
if a pod was killed or a driver failed. After a success it is COMPLETE, because the last step, the Pusher, is never
cached.
"""

import argparse
import json
import sys
import urllib.request
from typing import Any

_TIMEOUT_S = 30.0
_SUCCEEDED = ('SUCCEEDED', 'COMPLETE', 'CACHED')


class NotifyError(Exception):
    """The status cannot be read, or the webhook did not take the message; one sentence says which."""


def make_message(pipeline: str, run_name: str, run_id: str, status: str) -> dict[str, Any]:
    """Makes the message for the webhook.

    Args:
      pipeline: name of the pipeline.
      run_name: name of the run, as the server shows it.
      run_id: the server's id of the run.
      status: JSON of PipelineTaskFinalStatus, as the launcher passes it.

    Returns:
      pipeline, run_name, run_id, state (SUCCEEDED or FAILED) and error ('' after a success; otherwise the server's
      message, or the last state that the server knows).

    Raises:
      NotifyError: the status is not a JSON object with a state.
    """
    try:
        fields = json.loads(status)
        state, error = fields['state'], fields.get('error') or {}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise NotifyError(f'the status of the run is not a JSON object with a state. Received: {status!r}') from problem
    message = {'pipeline': pipeline, 'run_name': run_name, 'run_id': run_id}
    if state in _SUCCEEDED:
        return {**message, 'state': 'SUCCEEDED', 'error': ''}
    return {**message, 'state': 'FAILED', 'error': error.get('message') or f"the server's last state is {state}"}


def post_message(webhook: str, message: dict[str, Any], timeout_s: float = _TIMEOUT_S) -> None:
    """Posts the message as JSON.

    Args:
      webhook: http or https address.
      message: from `make_message`.
      timeout_s: seconds to wait for a response.

    Raises:
      NotifyError: the address is not one, nothing responded in time, or the response was an error.
    """
    try:
        request = urllib.request.Request(
            webhook, data=json.dumps(message).encode(), headers={'Content-Type': 'application/json'}
        )
        urllib.request.urlopen(request, timeout=timeout_s).close()
    except (OSError, ValueError) as problem:  # HTTPError and URLError are OSErrors
        raise NotifyError(f'the webhook did not take the outcome {message["state"]} ({problem})') from problem


def main(argv: list[str] | None = None) -> int:
    """Sends one message; returns the exit code: 0 if the webhook took it, otherwise 1."""
    parser = argparse.ArgumentParser(prog='python -m kubeflow.notify', description='Tells a webhook how a run ended.')
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
