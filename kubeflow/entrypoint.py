"""The command of every step's container: TFX's executor entry point, on the local copies of the object store.

    python -m kubeflow.entrypoint --executor_class_path CLASS --json_serialized_invocation_args JSON ...

Kubeflow gives artifacts as minio://, s3:// or gs:// URIs, of which TensorFlow opens gs:// at most. So TFX is given the
launcher's local copies instead, and what it says of its outputs is turned back into URIs, which the launcher records.
And Kubeflow forgets the types of inputs, which TFX cannot do without (GetOutputArtifactsByExecutionId in
backend/src/v2/metadata/client.go of kubeflow/pipelines); the component's definition still has them.
A step that fails ends with its sentence as the last line, and with the exit code that the command line would have.
"""

import argparse
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from components.errors import PipelineError, to_one_line
from kubeflow.mirrors import LOGS_KEY, ROOT_VARIABLE, map_strings, to_path, to_uri
from kubeflow.parameters import apply_parameters


def map_invocation(invocation: dict[str, Any], definitions: dict[str, Any], root: str) -> dict[str, Any]:
    """An ExecutorInput whose artifacts are local and have types, and whose parameters are execution properties.

    Args:
      invocation: what the launcher puts in place of {{$}}.
      definitions: of the component's inputs.
      root: see `kubeflow.mirrors`.
    """
    sides = {}
    for side in ('inputs', 'outputs'):
        content = invocation.get(side, {})
        artifacts = map_strings(content.get('artifacts', {}), lambda uri: to_path(uri, root))
        sides[side] = {**content, 'artifacts': artifacts}
    for name, entry in sides['inputs']['artifacts'].items():
        for artifact in entry.get('artifacts', []):
            if not any(artifact.get('type', {}).values()):
                artifact['type'] = definitions['artifacts'][name]['artifactType']
    values = sides['inputs'].get('parameterValues', {})
    sides['inputs']['parameterValues'] = apply_parameters(values, definitions.get('parameters', {}))
    return {**invocation, **sides}


def map_output(file: Path, root: str) -> None:
    """Turns the paths in an ExecutorOutput file back into URIs."""
    output = json.loads(file.read_text())
    file.write_text(json.dumps(map_strings(output, lambda path: to_uri(path, root)), indent=2))


def run_step(argv: list[str]) -> None:
    """Runs one step.

    Args:
      argv: what `kubeflow_v2_run_executor` takes.
    """
    root = os.environ.get(ROOT_VARIABLE, '')
    parser = argparse.ArgumentParser(prog='python -m kubeflow.entrypoint', allow_abbrev=False)
    parser.add_argument('--executor_class_path', required=True)
    parser.add_argument('--json_serialized_invocation_args', required=True)
    parser.add_argument('--json_serialized_inputs_spec_args', required=True)
    arguments, beam_arguments = parser.parse_known_args(argv)
    definitions = json.loads(arguments.json_serialized_inputs_spec_args)
    invocation = map_invocation(json.loads(arguments.json_serialized_invocation_args), definitions, root)
    invocation['outputs']['artifacts'].pop(LOGS_KEY, None)  # the launcher's own, and no artifact that TFX knows
    arguments.json_serialized_invocation_args = json.dumps(invocation)
    for entry in invocation['outputs']['artifacts'].values():  # TFX's own launcher makes them, Kubeflow's does not
        for artifact in entry['artifacts']:
            Path(artifact['uri']).mkdir(parents=True, exist_ok=True)

    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor.main((arguments, beam_arguments))
    map_output(Path(invocation['outputs']['outputFile']), root)


def main(argv: list[str]) -> int:
    """Runs one step; returns the exit code, see `pipeline.__main__.main`."""
    try:
        run_step(argv)
    except Exception as error:
        traceback.print_exc()
        sys.stdout.flush()
        print(f'error: {to_one_line(error, limit=2000)}', file=sys.stderr)
        return error.exit_code if isinstance(error, PipelineError) else 1
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
