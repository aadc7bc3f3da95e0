"""`submit`: uploads a compiled package to a Kubeflow Pipelines server, runs it or schedules it, and watches the run.

All through kfp's client, which also reads ~/.config/kfp/context.json (namespace, authentication).
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import kfp_server_api
import urllib3
from kfp.client import Client

from components.errors import PipelineError, UsageError, to_one_line
from kubeflow.package import Package, parse_parameters, read_package

_POLL_S = 5.0
_MAX_LOST_POLLS = 24  # a broken connection; the run on the server does not notice
_GATED_TASK = 'Pusher'
_FAILED = ('FAILED', 'CANCELED')
_NAMESPACE = 'kubeflow'  # of the pods, where a server has no namespace for each user
_REFUSED_EXIT_CODE = 3


class Submission(NamedTuple):
    """What to do with a package.

    package: the YAML file that `compile` wrote.
    host: address of the server, http://... or https://...
    experiment: name of the group of runs it is shown in; made where there is none.
    cron: six fields, seconds first, of a recurring run; None runs once, now.
    assignments: KEY=VALUE of the pipeline's parameters.
    wait: whether to watch the run to its end.
    service_account: of the pods; None takes the server's own.
    """

    package: Path
    host: str
    experiment: str
    cron: str | None
    assignments: list[str]
    wait: bool
    service_account: str | None = None


def submit(submission: Submission, out: TextIO, poll_s: float = _POLL_S) -> int:
    """Uploads, starts and watches.

    Args:
      submission: what to do.
      out: gets a line for each thing done, and for each step whose state changed.
      poll_s: seconds between two questions about the run.

    Returns:
      The exit code: 0 where the run succeeded, was only started, or is recurring; 1 where it failed or was cancelled;
      3 where the server skipped the Pusher, as a condition on the gate makes it. Without such a condition the Pusher
      of a refused model succeeds, and the API does not have what tells it from another.

    Raises:
      UsageError: the package, a parameter, the schedule or the host is wrong.
      PipelineError: the server refused something, or was lost while the run went on.
    """
    host = _check(submission)
    package = read_package(submission.package)
    parameters = parse_parameters(package, submission.assignments)
    with _explain(host):
        client = Client(host=host)
        pipeline_id, version_id = _upload(client, submission.package, package, out)
        options = {
            'experiment_id': client.create_experiment(submission.experiment).experiment_id,
            'job_name': package.name,
            'pipeline_id': pipeline_id,
            'version_id': version_id,
            'params': parameters,
            'pipeline_root': package.pipeline_root,  # which neither client nor server takes from the package
            'service_account': submission.service_account,
        }
        if submission.cron is not None:
            _schedule(client, submission.cron, options, out)
            return 0
        run_id = client.run_pipeline(**options).run_id
    address = f'{host}/#/runs/details/{run_id}'
    print(f'run {run_id}: {address}', file=out)
    return _watch(client, run_id, address, package.list_steps(), out, poll_s) if submission.wait else 0


def _check(submission: Submission) -> str:
    """Refuses a schedule and an address that cannot be right; returns the address without a slash at its end."""
    if submission.cron is not None and len(submission.cron.split()) != 6:
        raise UsageError(
            '--recurring takes six fields, seconds first, such as "0 0 3 * * 1" for Mondays at 3. '
            f'Received: {submission.cron!r}'
        )
    if not submission.host.startswith(('http://', 'https://')):
        raise UsageError(f'--host takes an http or https address. Received: {submission.host!r}')
    return submission.host.rstrip('/')


@contextlib.contextmanager
def _explain(host: str) -> Iterator[None]:
    """Turns what the client raises into a sentence."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        answer = to_one_line(error.body or error.reason or error)
        raise PipelineError(f'{host} refused the request ({error.status}): {answer}') from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:  # the last where it says null
        raise UsageError(
            f'{host} does not answer as a Kubeflow Pipelines server ({to_one_line(error)}). Is the address right, and '
            'the port forwarded (kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80)?'
        ) from error


def _upload(client: Client, path: Path, package: Package, out: TextIO) -> tuple[str, str]:
    """Makes the pipeline and the version where the server lacks them; returns their ids.

    A version's name is the package's digest, so that the same package is uploaded once.
    """
    name = f'{package.name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}'
    namespace = client.get_user_namespace()
    # Not client.get_pipeline_id, which names no namespace: a server for many users then lists the shared ones alone.
    found = client.list_pipelines(namespace=namespace, filter=_make_filter(package.name)).pipelines
    if found:
        pipeline_id = found[0].pipeline_id
    else:
        body = kfp_server_api.V2beta1Pipeline(name=package.name, display_name=package.name, namespace=namespace)
        pipeline_id = client.pipelines.pipeline_service_create_pipeline(pipeline=body).pipeline_id
        print(f'pipeline {package.name} is new', file=out)
    found = client.list_pipeline_versions(pipeline_id, filter=_make_filter(name)).pipeline_versions
    if found:
        print(f'version {name} is there already', file=out)
        return pipeline_id, found[0].pipeline_version_id
    version = client.upload_pipeline_version(str(path), name, pipeline_id=pipeline_id)
    print(f'version {name} uploaded', file=out)
    return pipeline_id, version.pipeline_version_id


def _make_filter(name: str) -> str:
    return json.dumps({'predicates': [{'operation': 'EQUALS', 'key': 'display_name', 'stringValue': name}]})


def _schedule(client: Client, cron: str, options: dict, out: TextIO) -> None:
    """Makes the recurring run, then disables older ones of the same pipeline in the experiment, so that one is left."""
    listed = client.list_recurring_runs(experiment_id=options['experiment_id'], page_size=100).recurring_runs or []
    made = client.create_recurring_run(cron_expression=cron, no_catchup=True, **options)
    print(f'recurring run {made.recurring_run_id}: {cron}', file=out)
    for old in listed:
        if old.display_name == options['job_name'] and old.status == 'ENABLED':
            client.disable_recurring_run(old.recurring_run_id)
            print(f'recurring run {old.recurring_run_id}, which was before it, is disabled', file=out)


def _watch(client: Client, run_id: str, address: str, tasks: set[str], out: TextIO, poll_s: float) -> int:
    """Prints a line for each step whose state changed, until the run has ended; returns the exit code."""
    shown: dict[str, str] = {}
    try:
        while True:
            run = _get_run(client, run_id, address, poll_s)
            details = (run.run_details and run.run_details.task_details) or []
            details = [task for task in details if task.display_name]
            _show_changes([task for task in details if task.display_name in tasks], shown, out)
            if run.state in ('SUCCEEDED', 'SKIPPED', *_FAILED):
                break
            time.sleep(poll_s)
    except KeyboardInterrupt:
        raise PipelineError(f'The watching was stopped; the run goes on: {address}') from None
    if run.state in _FAILED:
        _show_failures(details, tasks, out)
        namespace = client.get_user_namespace() or _NAMESPACE
        print(
            f'the run {run.state.lower()}; its logs: kubectl get pods -n {namespace} -l pipeline/runid={run_id} '
            f'--field-selector status.phase=Failed -o name | xargs -n 1 kubectl logs -n {namespace} -c main '
            '--prefix --tail 20',
            file=out,
        )
        return 1
    if shown.get(_GATED_TASK) == 'SKIPPED':
        print('the model gate refused the model: nothing was pushed', file=out)
        return _REFUSED_EXIT_CODE
    print(
        'the run succeeded; whether the gate let its model be pushed, the API does not say: `versions` does', file=out
    )
    return 0


def _get_run(client: Client, run_id: str, address: str, poll_s: float) -> kfp_server_api.V2beta1Run:
    """Asks again where the connection broke: a forwarded port does so every few hours."""
    for attempt in range(_MAX_LOST_POLLS):
        try:
            return client.get_run(run_id)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            if attempt + 1 == _MAX_LOST_POLLS:
                raise PipelineError(
                    f'The server was lost ({to_one_line(error)}); the run goes on: {address}'
                ) from error
            time.sleep(poll_s)


def _show_changes(details: list, shown: dict[str, str], out: TextIO) -> None:
    """A line for each task whose state is not the one in `shown`, which is updated."""
    for task in details:
        if task.state and shown.get(task.display_name) != task.state:
            shown[task.display_name] = task.state
            has_ended = task.start_time and task.end_time and task.state not in ('PENDING', 'RUNNING')
            seconds = f'{(task.end_time - task.start_time).total_seconds():.0f} s' if has_ended else ''
            print(f'{task.display_name:<18} {task.state:<10} {seconds}'.rstrip(), file=out)


def _show_failures(details: list, tasks: set[str], out: TextIO) -> None:
    """A line for each task that failed, or whose driver did, which prepares its inputs.

    Why it did is in its pod's log alone: the server (toApiPipelineTaskDetail) sets no error of a step, and its
    `child_tasks` are nodes of the workflow, not pods.
    """
    for task in details:
        if task.state == 'FAILED' and task.display_name.removesuffix('-driver') in tasks:
            print(f'{task.display_name} failed', file=out)
