"""`submit`: uploads a compiled package to a Kubeflow Pipelines server, runs it or schedules it.

All through kfp's client, which also reads ~/.config/kfp/context.json (namespace, authentication).
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import kfp_server_api
import urllib3
from kfp.client import Client

from components.errors import PipelineError, UsageError, to_one_line
from kubeflow.package import Package, parse_parameters, read_package
from kubeflow.watch import watch_run

_POLL_S = 5.0


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
    return watch_run(client, run_id, address, package.list_steps(), out, poll_s) if submission.wait else 0


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
