"""The command of every step's container: runs TFX's executor on the launcher's local copies of artifacts.

    python -m kubeflow.entrypoint --executor_class_path CLASS --json_serialized_invocation_args JSON ...

Kubeflow names artifacts by minio://, s3:// or gs:// URIs, and TensorFlow opens at most gs://. So TFX gets the paths of
the launcher's local copies, and the paths in its output file are turned back into URIs, which the launcher records.
Kubeflow also loses the types of input artifacts, which TFX needs (GetOutputArtifactsByExecutionId in
backend/src/v2/metadata/client.go of kubeflow/pipelines), or gives types of its own such as system.Model, so they are
always taken from the component's definition.
A step that fails prints its error message as the last line, and ends with the exit code of the command line. The
process then ends without Python's own clean-up, in which a destructor in TFX's C++ libraries can abort a step whose
outputs are written ("pure virtual method called").
"""

import argparse
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from components.environment import choose_variables
from components.errors import PipelineError, to_one_line
from kubeflow.mirrors import LOGS_KEY, ROOT_VARIABLE, map_strings, to_path, to_uri
from kubeflow.pages import fill_pages, take_pages
from kubeflow.parameters import apply_parameters
from kubeflow.steps import GPU_VARIABLE


def map_invocation(invocation: dict[str, Any], definitions: dict[str, Any], root: str) -> dict[str, Any]:
    """Makes an ExecutorInput that TFX can use: local artifacts with types, and parameters as execution properties.

    Args:
      invocation: the ExecutorInput that the launcher puts in place of {{$}}.
      definitions: `inputDefinitions` of the component.
      root: see `kubeflow.mirrors.to_path`.

    Returns:
      A changed copy.
    """
    sides = {}
    for side in ('inputs', 'outputs'):
        content = invocation.get(side, {})
        artifacts = map_strings(content.get('artifacts', {}), lambda uri: to_path(uri, root))
        sides[side] = {**content, 'artifacts': artifacts}
    for name, entry in sides['inputs']['artifacts'].items():
        for artifact in entry.get('artifacts', []):
            artifact['type'] = definitions['artifacts'][name]['artifactType']
    values = sides['inputs'].get('parameterValues', {})
    sides['inputs']['parameterValues'] = apply_parameters(values, definitions.get('parameters', {}))
    return {**invocation, **sides}


def map_output(file: Path, root: str) -> None:
    """Turns the paths in an ExecutorOutput file back into URIs.

    Args:
      file: that TFX has written; it is written again.
      root: see `kubeflow.mirrors.to_path`.
    """
    output = json.loads(file.read_text())
    file.write_text(json.dumps(map_strings(output, lambda path: to_uri(path, root)), indent=2))


STORE_VARIABLES = {'AWS_RETRY_MODE': 'standard', 'AWS_MAX_ATTEMPTS': '12'}
"""How boto3 retries a request, unless the step's environment says otherwise. A server may not retry a step that failed,
so a store that is away for a minute or two must not fail it. Google's client retries that long by itself."""


def check_gpus() -> None:
    """Checks that a step for which the package asks for GPUs has one, before it reads any data.

    A server that does not know the fields of the accelerator, or a pod without them, runs the step on the CPU. The
    number is not compared: of several parts of a partitioned GPU (MIG) a process sees only one.

    Raises:
      PipelineError: there is no GPU.
    """
    promised = os.environ.get(GPU_VARIABLE)
    if promised is None:
        return
    import tensorflow as tf

    if not tf.config.list_physical_devices('GPU'):
        raise PipelineError(
            f'The package asks for {promised} GPU for this step, and TensorFlow finds none. Check that the pod has '
            "the GPU in its limits (kubectl describe pod), that the node has the GPU vendor's device plugin and "
            "driver, and that the step's image is the GPU image; or compile with kubeflow.steps.STEP.gpu=0."
        )


def run_step(argv: list[str]) -> None:
    """Runs one step.

    Args:
      argv: the arguments of TFX's `kubeflow_v2_run_executor`.

    Raises:
      PipelineError: the package asks for a GPU that is not there; or what the step itself raises.
    """
    check_gpus()
    root = os.environ.get(ROOT_VARIABLE, '')
    parser = argparse.ArgumentParser(prog='python -m kubeflow.entrypoint', allow_abbrev=False)
    parser.add_argument('--executor_class_path', required=True)
    parser.add_argument('--json_serialized_invocation_args', required=True)
    parser.add_argument('--json_serialized_inputs_spec_args', required=True)
    arguments, beam_arguments = parser.parse_known_args(argv)
    definitions = json.loads(arguments.json_serialized_inputs_spec_args)
    invocation = map_invocation(json.loads(arguments.json_serialized_invocation_args), definitions, root)
    invocation['outputs']['artifacts'].pop(LOGS_KEY, None)  # the launcher writes it, and TFX does not know its type
    pages = take_pages(invocation['outputs'])  # TFX does not know them either
    arguments.json_serialized_invocation_args = json.dumps(invocation)
    # TFX's own launcher makes these folders before the executor runs; Kubeflow's does not.
    for entry in invocation['outputs']['artifacts'].values():
        for artifact in entry['artifacts']:
            Path(artifact['uri']).mkdir(parents=True, exist_ok=True)

    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor.main((arguments, beam_arguments))
    fill_pages(pages, invocation)
    map_output(Path(invocation['outputs']['outputFile']), root)


def main(argv: list[str]) -> int:
    """Runs one step; returns the exit code, as `pipeline.__main__.main` does."""
    os.environ.update({**STORE_VARIABLES, **os.environ, **choose_variables()})
    logging.basicConfig()
    for package in ('components', 'trainer'):  # TFX raises only the level of its own log
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        run_step(argv)
    except Exception as error:
        traceback.print_exc()
        sys.stdout.flush()
        print(f'error: {to_one_line(error, limit=2000)}', file=sys.stderr)
        return error.exit_code if isinstance(error, PipelineError) else 1
    return 0


if __name__ == '__main__':
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
