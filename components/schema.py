"""CuratedSchemaGen: writes the curated schema, with the data contract of the records that were imported.

TFX's ImportSchemaGen takes the path of a schema, which has two faults: the cache key holds the path and not the
content, so that results of the old schema would be reused after an edit, and a path of the machine that compiles a
pipeline does not exist in a container. This component takes a digest of the curated part instead, and finds the file
where it runs.
"""

import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import json_utils

from components import features
from components.artifacts import Artifacts, Properties
from components.contract import DataContract
from components.contract_schema import SCHEMA_NAME, TEMPLATE_FILE, make_schema
from components.data import cifar10
from components.data.manifest import read_contract, read_manifest
from components.errors import DataError, UsageError

_DIGEST_KEY, _CLASS_NAMES_KEY = 'schema_digest', 'class_names'
_EXAMPLES_KEY, _SCHEMA_KEY = standard_component_specs.EXAMPLES_KEY, standard_component_specs.SCHEMA_KEY
_PROBED = 1000  # records of the train split that are looked at where nothing says what they are
_USUAL_SIZE = 256  # of images of many sizes


def compute_schema_digest() -> str:
    """Computes the SHA-256 of the curated schema's text: lower-case hex."""
    return hashlib.sha256(TEMPLATE_FILE.read_bytes()).hexdigest()


def _probe_records(split: str) -> tuple[Counter[tuple[int, int]], Counter[int]]:
    """Counts the sizes (height, width) and the labels of the first records of a split; unreadable ones are left out."""
    sizes, labels = Counter[tuple[int, int]](), Counter[int]()
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(f'{split}/*'), 'GZIP').take(_PROBED):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        with contextlib.suppress(OSError, ValueError):  # DataCheck names what is wrong with it
            (image,) = feature[features.IMAGE_KEY].bytes_list.value
            (label,) = feature[features.LABEL_KEY].int64_list.value
            width, height = Image.open(io.BytesIO(image)).size
            sizes[height, width] += 1
            labels[label] += 1
    return sizes, labels


def find_contract(examples: str, class_names: Sequence[str]) -> DataContract:
    """Finds the contract of records: their manifest's, or else what the records themselves and `class_names` say.

    Args:
      examples: the folder of an Examples artifact, with the manifest that ImportExampleGen kept, if there is one.
      class_names: the class names that the run was given; empty for none.

    Raises:
      UsageError: nothing says what the classes are, or the class names differ from the manifest's.
    """
    manifest = read_manifest(Path(examples))
    if manifest is not None:
        contract = read_contract(manifest)
        if class_names and tuple(class_names) != contract.class_names:
            raise UsageError(
                f'The class names of --classes ({DataContract(tuple(class_names), 0, False).list_names()}) are not '
                f"those of the data's manifest ({contract.list_names()}); leave --classes out, because the manifest "
                'says what the classes are.'
            )
        return contract
    sizes, labels = _probe_records(f'{examples}/Split-{features.TRAIN_SPLIT}')
    size, usual = cifar10.CONTRACT.image_size, sizes.most_common(1)
    is_cifar10 = bool(usual) and usual[0][0] == (size, size)
    if class_names:
        shorter = {min(shape) for shape in sizes}
        if is_cifar10:
            return DataContract(tuple(class_names), size, True)
        is_square = all(height == width for height, width in sizes)
        only = shorter.pop() if len(shorter) == 1 else None
        return DataContract(tuple(class_names), only or _USUAL_SIZE, is_square and only is not None)
    usual_label = labels.most_common(1)
    if not usual or (is_cifar10 and 0 <= usual_label[0][0] < cifar10.CONTRACT.num_classes):
        return cifar10.CONTRACT
    height, width = usual[0][0]
    raise UsageError(
        f'The data has no manifest.json that names its classes, and its images ({width}x{height}) and labels '
        f'({min(labels)} to {max(labels)}) are not those of CIFAR-10; give --classes FILE, with the name of one class '
        'on each line in the order of the labels, or write the data with `python -m pipeline data --images`.'
    )


class _Spec(types.ComponentSpec):
    PARAMETERS: ClassVar[dict[str, Any]] = {
        _DIGEST_KEY: ExecutionParameter(type=str),
        _CLASS_NAMES_KEY: ExecutionParameter(type=str, optional=True),
    }
    INPUTS: ClassVar[dict[str, Any]] = {_EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS: ClassVar[dict[str, Any]] = {_SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema)}


class Executor(base_executor.BaseExecutor):
    """Writes the curated schema with the contract of the records."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: Properties) -> None:
        """Writes 'schema'.

        Args:
          input_dict: 'examples'.
          output_dict: 'schema'.
          exec_properties: 'schema_digest', from `compute_schema_digest`; and 'class_names' as a JSON array, for records
            without a manifest.

        Raises:
          DataError: the schema on this machine is not the one that the pipeline was compiled with.
          UsageError: see `find_contract`.
        """
        if exec_properties[_DIGEST_KEY] != compute_schema_digest():
            name = TEMPLATE_FILE
            raise DataError(f'{name} is not the schema that this pipeline was compiled with; compile it again.')
        class_names = json_utils.loads(exec_properties.get(_CLASS_NAMES_KEY) or '[]')
        contract = find_contract(artifact_utils.get_single_uri(input_dict[_EXAMPLES_KEY]), class_names)
        schema = text_format.MessageToString(make_schema(contract), as_utf8=True)
        Path(artifact_utils.get_single_uri(output_dict[_SCHEMA_KEY]), SCHEMA_NAME).write_text(schema, encoding='utf-8')


class CuratedSchemaGen(base_component.BaseComponent):
    """Provides the curated schema.

    Args:
      examples: ImportExampleGen's.
      class_names: names of the classes in the order of the labels, for records without a manifest; empty for none.

    Component `outputs` contains:
      - `schema`: Channel of type `standard_artifacts.Schema`.
    """

    SPEC_CLASS = _Spec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: types.BaseChannel, class_names: Sequence[str] = ()):
        super().__init__(
            _Spec(
                examples=examples,
                schema_digest=compute_schema_digest(),
                class_names=json_utils.dumps(list(class_names)) if class_names else None,
                schema=types.Channel(type=standard_artifacts.Schema),
            )
        )
