"""The linter: finds what an open-source Kubeflow Pipelines server, 2.16 or 2.17, would refuse, drop or ignore.

`compile` refuses to write a package with errors, and `python -m pipeline lint` prints errors and warnings. Each rule
names its source: a file and function of kubeflow/pipelines, below backend/src unless it says otherwise, or of Argo,
which runs the steps.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from components.errors import UsageError, to_one_line
from kubeflow.lint.fields import check_fields
from kubeflow.lint.graph import ParsedPackage, check_graph
from kubeflow.lint.inputs import describe_type_clash
from kubeflow.lint.paths import check_paths
from kubeflow.lint.placeholders import check_placeholders
from kubeflow.lint.platform import check_pipeline_config, check_platform
from kubeflow.lint.problem import Problem
from kubeflow.lint.steps import check_steps
from kubeflow.mirrors import ROOT_FORM, is_pipeline_root

_NAME = re.compile(r'[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*')
_MAX_NAME = 128  # characters: apiserver/validation/length.go LengthSpecs, Pipeline.Name
_MAX_FILE = 32 << 20  # bytes: apiserver/common/const.go MaxFileLength
_MAX_WORKFLOW = 700_000  # bytes that Argo takes, according to apiserver/model/pipeline_version.go PipelineVersion


def lint_file(path: Path) -> list[Problem]:
    """Lints the package in a file.

    Args:
      path: of the YAML file.

    Returns:
      The problems, see `lint_package`.

    Raises:
      UsageError: the file cannot be read, or is not YAML.
    """
    try:
        return lint_package(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UsageError(f'{path} cannot be read ({error.strerror}).') from error
    except UnicodeDecodeError as error:
        raise UsageError(f'{path} cannot be read ({to_one_line(error)}).') from error


def lint_package(text: str) -> list[Problem]:
    """Finds what the server would refuse, drop or ignore in a compiled package.

    Args:
      text: YAML: the PipelineSpec, and optionally the kubernetes platform spec as a second document.

    Returns:
      The problems; empty when there are none. If the documents do not fit their schemas, only those problems: the other
      rules rely on the schemas.

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
    if problems:
        return problems
    try:
        package = _parse(document, platforms)
    except (json_format.Error, ValueError, TypeError) as error:
        what = f'The server cannot parse it: {to_one_line(error)}.'
        return [Problem('error', 'file', what, 'Give the field a value of the type it takes.')]
    rules = (_check_spec, check_graph, check_steps, check_platform, check_paths, check_placeholders)
    problems += check_pipeline_config(_find(platforms, 'platforms', 'kubernetes', 'pipelineConfig') or {})
    return problems + [problem for rule in rules for problem in rule(package)]


def _check_documents(documents: list[Any], size_bytes: int) -> Iterator[Problem]:
    """Checks number, order and size of the documents.

    Sources: template.go inferTemplateFormat; in kfp's client, kfp/dsl/structures.py load_documents_from_yaml.
    """
    if not documents or not all(isinstance(document, dict) for document in documents):
        what = 'Every document must be a mapping; kfp and the server cannot read this one.'
        yield Problem('error', 'file', what, 'Write the PipelineSpec first, the platform spec second.')
    elif len(documents) > 2:
        what = (
            f'There are {len(documents)} documents; kfp takes one or two, and the server drops those it does not know.'
        )
        yield Problem('error', 'file', what, 'Keep the PipelineSpec and one platform spec.')
    elif 'pipelineSpec' in documents[0]:
        what = "This is a PipelineJob, the form that Google's service takes; the server takes a bare PipelineSpec."
        yield Problem('error', 'document 1', what, 'Write what is below pipelineSpec as the document.')
    elif 'platforms' in documents[0]:
        what = 'The platform spec comes first; kfp reads the first document as the PipelineSpec.'
        yield Problem('error', 'document 1', what, 'Write the PipelineSpec first.')
    elif len(documents) == 2 and not isinstance(_find(documents[1], 'platforms', 'kubernetes'), dict):
        # v2_template.go NewV2SpecTemplate leaves out what IsPlatformSpecWithKubernetesConfig does not recognise
        what = 'It has no platforms.kubernetes; the server drops the whole document silently.'
        yield Problem('error', 'document 2', what, 'Put its settings under platforms.kubernetes.')
    elif size_bytes > _MAX_FILE:
        what = f'The file has {size_bytes:,} bytes; the server takes at most {_MAX_FILE:,}.'
        yield Problem('error', 'file', what, 'Shorten the longest parameter values.')


def _check_schemas(document: dict[str, Any], platforms: dict[str, Any]) -> Iterator[Problem]:
    """Checks each document, and what it holds in free form, against the schema that the server parses it with."""
    # template.go isPipelineSpec parses strictly, and takes a failure to mean that the file is not a pipeline at all
    yield from check_fields(
        document, pb.PipelineSpec.DESCRIPTOR, '', "the server answers 'unknown template format' and refuses the file"
    )
    # compiler/visitor.go GetDeploymentConfig discards unknown fields
    deployment = document.get('deploymentSpec') or {}
    yield from check_fields(
        deployment, pb.PipelineDeploymentConfig.DESCRIPTOR, 'deploymentSpec', 'the server drops it silently'
    )
    yield from check_fields(
        platforms, pb.PlatformSpec.DESCRIPTOR, '', 'servers 2.16 and 2.17 drop the whole platform document silently'
    )
    # v2/cmd/driver/main.go parseExecConfigJson discards unknown fields; later servers' spec_patch.go is strict
    for label, entry in _list_entries(platforms).items():
        where = f'platforms.kubernetes.deploymentSpec.executors.{label}'
        verdict = 'the server drops it silently, and servers after 2.17.0 refuse it'
        yield from check_fields(entry, kubernetes_pb.KubernetesExecutorConfig.DESCRIPTOR, where, verdict)


def _parse(document: dict[str, Any], platforms: dict[str, Any]) -> ParsedPackage:
    spec = json_format.ParseDict(document, pb.PipelineSpec())
    # MessageToDict raises for values that JSON does not have, such as NaN.
    deployment = json_format.MessageToDict(spec).get('deploymentSpec', {})
    # Unknown fields are named already; what is left are '@type' and the fields that only other servers know.
    config = json_format.ParseDict(deployment, pb.PipelineDeploymentConfig(), ignore_unknown_fields=True)
    platform = {
        label: json_format.ParseDict(entry, kubernetes_pb.KubernetesExecutorConfig(), ignore_unknown_fields=True)
        for label, entry in _list_entries(platforms).items()
    }
    for entry in platform.values():
        json_format.MessageToDict(entry)
    return ParsedPackage(spec, dict(config.executors), platform)


def _find(found: Any, *keys: str) -> Any:
    """Returns the value below nested keys; None if one of them is missing."""
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _list_entries(platforms: dict[str, Any]) -> dict[str, Any]:
    """Returns the entries of the kubernetes platform spec by executor label."""
    entries = _find(platforms, 'platforms', 'kubernetes', 'deploymentSpec', 'executors')
    return {label: entry or {} for label, entry in entries.items()} if isinstance(entries, dict) else {}


def _check_spec(package: ParsedPackage) -> Iterator[Problem]:
    """Checks schema version, name, root, size and parameters of the pipeline.

    Source: v2_template.go NewV2SpecTemplate. Its pattern for names is not anchored, but Kubernetes' is (generateName).
    """
    spec, name = package.spec, package.spec.pipeline_info.name
    if spec.schema_version != '2.1.0':
        what = f'The server takes only schema 2.1.0. Received: {spec.schema_version or "none"}.'
        yield Problem('error', 'schemaVersion', what, 'Compile with use_pipeline_spec_2_1=True.')
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        what = f'A pipeline name takes a-z, 0-9 and -, at most {_MAX_NAME} characters. Received: {name!r}.'
        yield Problem('error', 'pipelineInfo.name', what, 'Rename the pipeline.')
    if not spec.HasField('root'):
        yield Problem('error', 'root', 'There is no root component, so nothing to run.', 'Compile a pipeline.')
    yield from _check_pipeline_root(spec.default_pipeline_root)
    size_bytes = len(json.dumps(json_format.MessageToDict(spec)))
    if size_bytes > _MAX_WORKFLOW:
        what = f'The PipelineSpec has {size_bytes:,} bytes; Argo takes at most {_MAX_WORKFLOW:,}.'
        yield Problem('warning', 'file', what, 'Shorten the longest parameter values.')
    for key, parameter in spec.root.input_definitions.parameters.items():
        yield from _check_root_parameter(key, parameter)


def _check_pipeline_root(root: str) -> Iterator[Problem]:
    """Checks where artifacts go.

    Source: objectstore/config.go ParseBucketPathToConfig. The server itself takes a run's root from the request
    (root_dag.go), into which `submit` puts this one.
    """
    if not root:
        what = (
            "The package has no pipeline root, so artifacts go to the namespace's default, which is "
            'minio://mlpipeline/v2/artifacts unless it was changed.'
        )
        yield Problem('warning', 'defaultPipelineRoot', what, 'Give one: minio://BUCKET/FOLDER.')
    elif not is_pipeline_root(root):
        what = f'The server stores artifacts only at a URI with {ROOT_FORM}. Received: {root}.'
        yield Problem('error', 'defaultPipelineRoot', what, 'Give such a URI: minio://BUCKET/FOLDER.')


def _check_root_parameter(name: str, parameter: Any) -> Iterator[Problem]:
    """Checks the type and the default of a parameter of the pipeline.

    Sources: v2_template.go validatePipelineJobInputs; driver/resolve.go handleParamTypeValidationAndConversion.
    """
    where = f'root.inputDefinitions.parameters.{name}'
    if not parameter.parameter_type:
        yield Problem('error', where, 'It has no parameterType; the server refuses any value.', 'Give it one: STRING.')
    elif parameter.HasField('default_value'):
        if clash := describe_type_clash(parameter.default_value, parameter.parameter_type):
            what = f'The default {clash}; every step that reads it fails.'
            yield Problem('error', where, what, 'Correct the default.')
    elif not parameter.is_optional and parameter.parameter_type == pb.ParameterType.TASK_FINAL_STATUS:
        what = 'The server refuses every run: it wants a value, and takes none of the type TASK_FINAL_STATUS.'
        mend = 'Set isOptional, or remove the parameter: only the input of an exit task has this type.'
        yield Problem('error', where, what, mend)
    elif not parameter.is_optional:
        what = 'It has no default; the server refuses a run that does not give it.'
        yield Problem('warning', where, what, 'Add a default, or give the parameter with every run.')
