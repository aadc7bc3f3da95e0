"""Exports the trained model as a SavedModel, if its precision agrees with float32 well enough."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components.contract import CONTRACT_FILE, DataContract
from components.errors import ExportError
from components.progress import track
from trainer.classifier_graph import ClassifierGraph
from trainer.config import EXPORT_FILE, ExportConfig, ExportReport
from trainer.inference_graph import InferenceGraph
from trainer.served_model import ServedModel

EXTRA_FOLDER = 'assets.extra'  # in the SavedModel; TensorFlow ignores it

Classify = Callable[[tf.Tensor], tf.Tensor]


def measure_agreement(ours: Classify, reference: Classify, dataset: tf.data.Dataset) -> tuple[float, int]:
    """Measures for how many images two models predict the same class.

    Args:
      ours, reference: The models, images -> probabilities [N, classes].
      dataset: Batches of (image_xf, label); the labels are not used.

    Returns:
      The share of images with the same prediction, 0-1 (0 when there are no images), and the number of images.
    """
    agreed = count = 0
    batches = int(dataset.cardinality())  # negative if it is unknown
    with track('comparison with float32', batches if batches > 0 else None, 'batches') as advance:
        for images, _ in dataset:
            same = tf.equal(tf.argmax(ours(images), axis=-1), tf.argmax(reference(images), axis=-1))
            agreed += int(tf.math.count_nonzero(same))
            count += int(tf.size(same))
            advance(1)
    return agreed / max(count, 1), count


def make_served_graph(
    model: keras.Model, config: ExportConfig, val: tf.data.Dataset
) -> tuple[ClassifierGraph, ExportReport]:
    """Builds the graph to serve, and measures how well bfloat16 agrees with float32.

    Raises:
      ExportError: The bfloat16 model predicts a different class than float32 for too many val images.
    """
    # bfloat16 weights are constants, which halves the time for a single image. float32 weights are variables: as
    # constants they would be no faster in a model server, and would take ten times the memory and the time to load.
    graph = ClassifierGraph(model, config.precision, as_constants=config.precision == 'bfloat16')
    if config.precision == 'float32':
        return graph, ExportReport(precision=config.precision, agreement=None, count=0)
    agreement, count = measure_agreement(graph, InferenceGraph(model, 'float32'), val)
    if agreement < config.min_agreement:
        raise ExportError(
            f'The {config.precision} model predicts the same class as the float32 model for only {agreement:.2%} of '
            f'{count:,} val images, and export.min_agreement is {config.min_agreement:.2%}; '
            f'set export.precision=float32.'
        )
    return graph, ExportReport(precision=config.precision, agreement=agreement, count=count)


def export_model(
    model: keras.Model,
    transform_output: tft.TFTransformOutput,
    out: str,
    config: ExportConfig,
    val: tf.data.Dataset,
    contract: DataContract,
) -> ExportReport:
    """Writes `model` as a SavedModel that TensorFlow Serving, TFMA and plain TensorFlow load without our code.

    The signatures, where N is the batch size and may be 0:
      serving_default: image, string [N], the bytes of image files of any size.
      serving_default_safe: The same, and it returns error, string [N], too: a sentence for an image that cannot be
        decoded, whose label is -1, class_name '' and probabilities 0; '' for all others.
      serving_raw: image, uint8 [N, image_size, image_size, 3], RGB, of the contract's image_size.
      examples: examples, string [N], serialized tf.Examples with an `image`.
      explain: image, as serving_default has it, and label, int64 [N], the classes to explain, -1 for the predicted one.
        It returns seen, uint8 [N, S, S, 3], the network's inputs as RGB, and heat_map, float32 [N, h, w], too: see
        `trainer.classifier_graph.ClassifierGraph.explain`.
      transform_features: examples, string [N] -> image_xf, float32 [N, S, S, 3].
      class_names: label, int64 [N] -> class_name, string [N]: '' for a label that is no class.
    All but the last two return label, int64 [N], the predicted class; class_name, string [N]; and probabilities,
    float32 [N, classes]. They process MICRO_BATCH images at a time, and share one graph and its weights. All but the
    safe one fail with INVALID_ARGUMENT and the number of the image, from 0 on, if one cannot be decoded.

    Args:
      model: A functional model, preprocessed images -> probabilities, float32.
      transform_output: Holds the Transform graph that made the training images.
      out: Folder to write to; a local path or a URI that TensorFlow can open.
      config: The precision, and how well a lower precision must agree with float32.
      val: Batches of (image_xf, label), on which the agreement is measured.
      contract: The class names and the image size; CONTRACT_FILE in the SavedModel holds them too.

    Returns:
      What was exported; EXPORT_FILE in the SavedModel holds the same.

    Raises:
      ExportError: See `make_served_graph`. Nothing is written then.
    """
    graph, report = make_served_graph(model, config, val)
    with track('saving the model'), tempfile.TemporaryDirectory() as folder:
        served = ServedModel(graph, transform_output, Path(folder), contract)
        tf.saved_model.save(served, out, served.get_signatures())
    extra = os.path.join(out, EXTRA_FOLDER)
    tf.io.gfile.makedirs(extra)
    with tf.io.gfile.GFile(os.path.join(extra, EXPORT_FILE), 'w') as file:
        json.dump(report._asdict(), file, indent=2)
    with tf.io.gfile.GFile(os.path.join(out, CONTRACT_FILE), 'w') as file:
        file.write(contract.to_json())
    return report
