"""The linter that knows the open-source Kubeflow Pipelines server, 2.16 and 2.17.

`compile` refuses what it names as errors, and `python -m pipeline lint` prints it. Each rule names its source: a file
and function of kubeflow/pipelines, below backend/src where nothing else is said, or of Argo, which runs the steps.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from components.errors import UsageError, to_one_line
from kubeflow.lint.fields import KUBERNETES_EXECUTOR, Problem, check_fields
from kubeflow.lint.graph import ParsedPackage, check_graph
from kubeflow.lint.inputs import describe_type_clash
from kubeflow.lint.paths import check_paths
from kubeflow.lint.platform import PLATFORM_SPEC, check_pipeline_config, check_platform
from kubeflow.lint.steps import check_steps
from kubeflow.mirrors import ROOT_FORM, is_pipeline_root

_NAME = re.compile(r'[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*')
_MAX_NAME = 128  # characters: apiserver/validation/length.go LengthSpecs, Pipeline.Name
_MAX_FILE = 32 << 20  # bytes: apiserver/common/const.go MaxFileLength
_MAX_WORKFLOW = 700_000  # bytes: what Argo takes, says apiserver/model/pipeline_version.go PipelineVersion


def lint_file(path: Path) -> list[Problem]:
    """Lints a file. Raises UsageError if it cannot be read or is not YAML."""
    try:
        return lint_package(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'Cannot read {path}: {to_one_line(error)}.') from error


def lint_package(text: str) -> list[Problem]:
    """Names what the server would refuse, drop or ignore in a compiled package.

    Args:
      text: YAML; the PipelineSpec, and optionally the kubernetes platform spec as second document.

    Returns:
      The problems; empty when there are none. Where a document does not fit its schema, those of the schema alone.

    Raises:
      UsageError: the text is not YAML.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise UsageError(f'The package is not YAML: {to_one_line(error)}.') from error
    problems = list(_check_documents(documents, len(text.encode())))
    if problems:
        return problems
    document, platforms = documents[0], documents[1] if len(documents) > 1 else {}
    problems += _check_schemas(document, platforms)
    if problems:  # the other rules take the schema for granted
        return problems
    try:
        package = _parse(document, platforms)
    except (json_format.Error, ValueError, TypeError) as error:
        what = f'The server cannot parse it: {to_one_line(error)}.'
        return [Problem('error', 'pipeline spec', what, 'Give the field a value of the type it takes.')]
    rules = (_check_spec, check_graph, check_steps, check_platform, check_paths)
    problems += check_pipeline_config(_find(platforms, 'platforms', 'kubernetes', 'pipelineConfig') or {})
    return problems + [problem for rule in rules for problem in rule(package)]


def _check_documents(documents: list, size_bytes: int) -> Iterator[Problem]:
    """template.go inferTemplateFormat; in the client, kfp/dsl/structures.py load_documents_from_yaml."""
    if not documents or not all(isinstance(document, dict) for document in documents):
        what = 'Every document must be a mapping; kfp and the server cannot read this one.'
        yield Problem('error', 'file', what, 'Write the PipelineSpec first, the platform spec second.')
    elif len(documents) > 2:
        what = (
            f'There are {len(documents)} documents; kfp takes one or two, and the server drops those it does not know.'
        )
        yield Problem('error', 'file', what, 'Keep the PipelineSpec and one platform spec.')
    elif 'pipelineSpec' in documents[0]:
        what = "This is a PipelineJob, the form of Google's service; the server takes a bare PipelineSpec."
        yield Problem('error', 'document 1', what, 'Write what is below pipelineSpec as the document.')
    elif 'platforms' in documents[0]:
        what = 'The platform spec comes first; kfp reads the first document as the PipelineSpec.'
        yield Problem('error', 'document 1', what, 'Write the PipelineSpec first.')
    elif len(documents) == 2 and not isinstance(_find(documents[1], 'platforms', 'kubernetes'), dict):
        # v2_template.go NewV2SpecTemplate leaves out what IsPlatformSpecWithKubernetesConfig does not recognise
        what = 'It has no platforms.kubernetes; the server drops the whole document silently.'
        yield Problem('error', 'document 2', what, 'Put its settings under platforms.kubernetes.')
    elif size_bytes > _MAX_FILE:
        what = f'It has {size_bytes:,} bytes; the server takes {_MAX_FILE:,}.'
        yield Problem('error', 'file', what, 'Shorten the longest parameter values.')


def _check_schemas(document: dict, platforms: dict) -> Iterator[Problem]:
    # template.go isPipelineSpec parses strictly, and takes a failure to mean that this is no pipeline at all
    yield from check_fields(
        document, pb.PipelineSpec.DESCRIPTOR, '', "the server answers 'unknown template format' and refuses the file"
    )
    # compiler/visitor.go GetDeploymentConfig discards unknown fields
    deployment = document.get('deploymentSpec') or {}
    yield from check_fields(
        deployment, pb.PipelineDeploymentConfig.DESCRIPTOR, 'deploymentSpec', 'the server drops it silently'
    )
    yield from check_fields(
        platforms, PLATFORM_SPEC, '', 'servers 2.16 and 2.17 drop the whole platform document silently'
    )
    # v2/cmd/driver/main.go parseExecConfigJson discards unknown fields; later servers' spec_patch.go is strict
    for label, entry in _list_entries(platforms).items():
        where = f'platforms.kubernetes.deploymentSpec.executors.{label}'
        yield from check_fields(
            entry, KUBERNETES_EXECUTOR, where, 'the server drops it silently, and after 2.17.0 refuses it'
        )


def _parse(document: dict, platforms: dict) -> ParsedPackage:
    spec = json_format.ParseDict(document, pb.PipelineSpec())
    deployment = json_format.MessageToDict(spec).get('deploymentSpec', {})  # raises on what JSON has not, such as NaN
    config = json_format.ParseDict(deployment, pb.PipelineDeploymentConfig(), ignore_unknown_fields=True)  # '@type'
    return ParsedPackage(spec, dict(config.executors), _list_entries(platforms))


def _find(found: Any, *keys: str) -> Any:
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _list_entries(platforms: dict) -> dict[str, dict]:
    entries = _find(platforms, 'platforms', 'kubernetes', 'deploymentSpec', 'executors')
    return {label: entry or {} for label, entry in entries.items()} if isinstance(entries, dict) else {}


def _check_spec(package: ParsedPackage) -> Iterator[Problem]:
    """v2_template.go NewV2SpecTemplate, whose pattern for names is not anchored; Kubernetes' is (generateName)."""
    spec, name = package.spec, package.spec.pipeline_info.name
    if spec.schema_version != '2.1.0':
        what = f'The server takes schema 2.1.0 alone. Received: {spec.schema_version or "none"}.'
        yield Problem('error', 'schemaVersion', what, 'Compile with use_pipeline_spec_2_1=True.')
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        what = f'A pipeline is named with a-z, 0-9 and -, at most {_MAX_NAME} characters. Received: {name!r}.'
        yield Problem('error', 'pipelineInfo.name', what, 'Rename the pipeline.')
    if not spec.HasField('root'):
        yield Problem('error', 'root', 'There is no root component, so nothing to run.', 'Compile a pipeline.')
    yield from _check_pipeline_root(spec.default_pipeline_root)
    size_bytes = len(json.dumps(json_format.MessageToDict(spec)))
    if size_bytes > _MAX_WORKFLOW:
        what = f'The specification has {size_bytes:,} bytes; Argo takes {_MAX_WORKFLOW:,}.'
        yield Problem('warning', 'file', what, 'Shorten the longest parameter values.')
    for key, parameter in spec.root.input_definitions.parameters.items():
        yield from _check_root_parameter(key, parameter)


def _check_pipeline_root(root: str) -> Iterator[Problem]:
    """objectstore/config.go ParseBucketPathToConfig. The server takes a run's root from the request (root_dag.go)."""
    if not root:
        what = "No root is named, so artifacts go to the namespace's own, minio://mlpipeline/v2/artifacts unless set."
        yield Problem('warning', 'defaultPipelineRoot', what, 'Name one: minio://BUCKET/FOLDER.')
    elif not is_pipeline_root(root):
        what = f'The server stores artifacts at a URI with {ROOT_FORM} alone. Received: {root}.'
        yield Problem('error', 'defaultPipelineRoot', what, 'Name one of those: minio://BUCKET/FOLDER.')


def _check_root_parameter(name: str, parameter: Any) -> Iterator[Problem]:
    """v2_template.go validatePipelineJobInputs; driver/resolve.go handleParamTypeValidationAndConversion."""
    where = f'root.inputDefinitions.parameters.{name}'
    if not parameter.parameter_type:
        yield Problem('error', where, 'It has no parameterType; the server refuses any value.', 'Give it one: STRING.')
    elif parameter.HasField('default_value'):
        if clash := describe_type_clash(parameter.default_value, parameter.parameter_type):
            yield Problem('error', where, f'The default {clash}; every step that reads it fails.', 'Mend the default.')
    elif not parameter.is_optional:
        what = 'It has no default; the server refuses a run that does not give it.'
        yield Problem('warning', where, what, 'Give it a default, or name it with every run.')
