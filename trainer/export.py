"""Exports the trained model as a SavedModel with four signatures.

Every signature runs the Transform graph that training ran, so that serving cannot preprocess images differently.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_transform as tft

from components import features
from components.errors import ExportError
from components.progress import track
from trainer.config import EXPORT_FILE, ExportConfig, ExportReport
from trainer.inference_graph import InferenceGraph

LABELS_FILE = 'labels.txt'  # in the SavedModel's assets, one class name on each line
EXTRA_FOLDER = 'assets.extra'  # in the SavedModel; TensorFlow ignores it

# Number of images that a signature decodes, resizes and classifies at a time. It bounds the memory for any request:
# TFMA sends up to 1,000 images, whose activations take gigabytes at 224 pixels. Larger batches are no faster on a CPU.
MICRO_BATCH = 32

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


def make_served_graph(model: keras.Model, config: ExportConfig, val: tf.data.Dataset) -> tuple[Classify, ExportReport]:
    """Builds the graph to serve, and measures how well bfloat16 agrees with float32.

    Raises:
      ExportError: The bfloat16 model predicts a different class than float32 for too many val images.
    """
    # bfloat16 weights are constants, which halves the time for a single image. float32 weights are variables: as
    # constants they would be no faster in a model server, and would take ten times the memory and the time to load.
    graph = InferenceGraph(model, config.precision, as_constants=config.precision == 'bfloat16')
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


def map_micro_batches(function: Classify, inputs: tf.Tensor) -> tf.Tensor:
    """Applies `function` to MICRO_BATCH rows at a time, so that memory does not grow with the number of rows.

    Args:
      function: [n] -> float32 [n, NUM_CLASSES].
      inputs: [N]; N may be 0.

    Returns:
      float32 [N, NUM_CLASSES].
    """
    count = tf.shape(inputs)[0]
    steps = (count + MICRO_BATCH - 1) // MICRO_BATCH
    # The elements may differ in shape, because the last micro-batch may be shorter.
    outputs = tf.TensorArray(tf.float32, size=steps, infer_shape=False, element_shape=[None, features.NUM_CLASSES])

    def run_step(step: tf.Tensor, outputs: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = inputs[step * MICRO_BATCH : (step + 1) * MICRO_BATCH]
        return step + 1, outputs.write(step, function(rows))

    _, outputs = tf.while_loop(lambda step, _: step < steps, run_step, (0, outputs), parallel_iterations=1)
    return tf.ensure_shape(outputs.concat(), [None, features.NUM_CLASSES])


class ServedModel(tf.Module):
    """The module that is saved: the Transform graph, the model's graph, the class names, and the signatures.

    Args:
      graph: The model's graph, preprocessed images -> probabilities.
      transform_output: Holds the Transform graph that made the training images.
      folder: A folder for the file of class names; saving copies the file into the SavedModel.
    """

    def __init__(self, graph: Classify, transform_output: tft.TFTransformOutput, folder: Path):
        super().__init__()
        self._graph = graph
        # tf.saved_model.save saves the variables, tables and assets that are attributes of the module.
        self._transform = transform_output.transform_features_layer()
        self._image_spec = {features.IMAGE_KEY: transform_output.raw_feature_spec()[features.IMAGE_KEY]}
        labels = folder / LABELS_FILE
        labels.write_text('\n'.join(features.CLASS_NAMES) + '\n')
        index, line = tf.lookup.TextFileIndex.LINE_NUMBER, tf.lookup.TextFileIndex.WHOLE_LINE
        initializer = tf.lookup.TextFileInitializer(str(labels), tf.int64, index, tf.string, line)
        self._class_names = tf.lookup.StaticHashTable(initializer, default_value='')

    def _transform_images(self, encoded: tf.Tensor) -> tf.Tensor:
        return self._transform({features.IMAGE_KEY: encoded})[features.IMAGE_XF_KEY]

    def _parse(self, examples: tf.Tensor) -> tf.Tensor:
        return tf.io.parse_example(examples, self._image_spec)[features.IMAGE_KEY]

    def _classify(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = map_micro_batches(lambda rows: self._graph(self._transform_images(rows)), encoded)
        label = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
        return {
            features.OUTPUT_LABEL: label,
            features.OUTPUT_CLASS_NAME: self._class_names.lookup(label),
            features.OUTPUT_PROBABILITIES: probabilities,
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=features.IMAGE_KEY)])
    def serve_bytes(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classify(image)

    @tf.function(input_signature=[tf.TensorSpec([None, *features.IMAGE_SHAPE], tf.uint8, name=features.IMAGE_KEY)])
    def serve_raw(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        # The Transform graph takes encoded images. PNG is lossless, so encoding the pixels first changes nothing.
        return self._classify(tf.map_fn(tf.io.encode_png, image, fn_output_signature=tf.string))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classify(self._parse(examples))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='examples')])
    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {features.IMAGE_XF_KEY: self._transform_images(self._parse(examples))}


def export_model(
    model: keras.Model, transform_output: tft.TFTransformOutput, out: str, config: ExportConfig, val: tf.data.Dataset
) -> ExportReport:
    """Writes `model` as a SavedModel that TensorFlow Serving, TFMA and plain TensorFlow load without our code.

    The signatures, where N is the batch size and may be 0:
      serving_default: image, string [N], PNG or JPEG bytes of any size.
      serving_raw: image, uint8 [N, 32, 32, 3], RGB.
      examples: examples, string [N], serialized tf.Examples with an `image`.
      transform_features: examples, string [N] -> image_xf, float32 [N, S, S, 3].
    The first three return label, int64 [N]; class_name, string [N]; and probabilities, float32 [N, 10]. They process
    MICRO_BATCH images at a time, and share one graph and its weights.

    Args:
      model: A functional model, preprocessed images -> probabilities, float32.
      transform_output: Holds the Transform graph that made the training images.
      out: Folder to write to; a local path or a URI that TensorFlow can open.
      config: The precision, and how well a lower precision must agree with float32.
      val: Batches of (image_xf, label), on which the agreement is measured.

    Returns:
      What was exported; EXPORT_FILE in the SavedModel holds the same.

    Raises:
      ExportError: See `make_served_graph`. Nothing is written then.
    """
    graph, report = make_served_graph(model, config, val)
    with track('saving the model'), tempfile.TemporaryDirectory() as folder:
        served = ServedModel(graph, transform_output, Path(folder))
        signatures = {
            features.SIGNATURE_SERVING_DEFAULT: served.serve_bytes,
            features.SIGNATURE_RAW: served.serve_raw,
            features.SIGNATURE_EXAMPLES: served.serve_examples,
            features.SIGNATURE_TRANSFORM: served.transform_features,
        }
        tf.saved_model.save(served, out, signatures)
    extra = os.path.join(out, EXTRA_FOLDER)
    tf.io.gfile.makedirs(extra)
    with tf.io.gfile.GFile(os.path.join(extra, EXPORT_FILE), 'w') as file:
        json.dump(report._asdict(), file, indent=2)
    return report
