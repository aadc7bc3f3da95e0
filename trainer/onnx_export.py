"""Writes the trained network as an ONNX model into the SavedModel, if both agree well enough.

The packages that it needs are not installed everywhere, so they are imported only inside the functions.
"""

import contextlib
import gc
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components import features
from components.contract import DataContract
from components.errors import ExportError, to_one_line
from components.onnx_model import ONNX_FILE, ONNX_REPORT_FILE, OnnxReport
from components.progress import track
from trainer.config import ExportConfig, TrainerConfig
from trainer.decoding import decode_image
from trainer.inference_graph import InferenceGraph, Precision
from trainer.preprocessing import preprocess_images

OPSET = 18  # the newest that tf2onnx 1.17 is tested with
BATCH_SIZE = 32  # images that both models are asked at a time for the comparison
_CATCH_ERRORS = 'TF2ONNX_CATCH_ERRORS'  # an environment variable of tf2onnx
CLASS_NAMES_KEY = 'class_names'  # in the ONNX model's metadata: a JSON list, in the order of the labels

# Largest difference of a probability, by the precision of the SavedModel; the ONNX model computes in float32.
MAX_DIFFERENCE: dict[Precision, float] = {'float32': 1e-3, 'bfloat16': 0.25}

Predict = Callable[[tf.Tensor], tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
"""Encoded images, string [N] -> labels, int64 [N], and probabilities, float32 [N, classes]."""


def preprocess_for_onnx(images: tf.Tensor, config: TrainerConfig) -> tf.Tensor:
    """Does what `trainer.preprocessing.preprocess_images` does, with operations that ONNX has.

    Args:
      images: RGB images, uint8 [N, size, size, 3].
      config: The settings of the training.

    Returns:
      float32 [N, S, S, 3], S being the network's image size.
    """
    size, wanted = images.shape[1], config.get_image_size()
    inputs = preprocess_images(images, max(size, wanted), backbone=config.backbone, resize=config.resize)
    if wanted >= size:
        return inputs
    # To make images smaller TensorFlow has an operation of its own. It is linear, and the same for rows and columns.
    with tf.init_scope():  # a constant of the graph
        weights = tf.image.resize(tf.eye(size)[..., tf.newaxis], [wanted, size], antialias=True)[..., 0].numpy()
    return tf.einsum('ar,nrcd,bc->nabd', weights, inputs, weights)


@contextlib.contextmanager
def _optimize_in_place() -> Iterator[None]:
    """Keeps tf2onnx from copying the whole graph before each of its two dozen optimizers, in case one of them fails.

    For ResNet50 the copies took 20 GB until Python collected them. tf2onnx only looks whether the variable is there.
    """
    before = os.environ.get(_CATCH_ERRORS)
    os.environ[_CATCH_ERRORS] = 'FALSE'
    try:
        yield
    finally:
        gc.collect()  # tf2onnx's graphs refer to each other in circles, and hold gigabytes
        os.environ.pop(_CATCH_ERRORS)
        if before is not None:
            os.environ[_CATCH_ERRORS] = before


def convert_model(model: keras.Model, config: TrainerConfig, contract: DataContract) -> Any:
    """Converts a network to ONNX.

    The ONNX model has the input image, uint8 [N, size, size, 3], RGB, of the contract's image size, and the outputs
    label, int64 [N], and probabilities, float32 [N, classes]. N may be any number. Its metadata has CLASS_NAMES_KEY.

    Args:
      model: A functional model, preprocessed images -> probabilities, float32.
      config: The settings of the training, which say how images become the network's input.
      contract: The class names and the image size.

    Returns:
      An onnx.ModelProto, which ONNX's own checker has passed.

    Raises:
      ExportError: The network has an operation that ONNX has not.
    """
    import onnx
    import tf2onnx

    graph = InferenceGraph(model, 'float32')
    spec = tf.TensorSpec([None, *contract.image_shape], tf.uint8, name=features.IMAGE_KEY)

    @tf.function(input_signature=[spec], autograph=False)
    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = graph(preprocess_for_onnx(image, config))
        return {features.OUTPUT_LABEL: tf.argmax(probabilities, axis=-1), features.OUTPUT_PROBABILITIES: probabilities}

    try:
        with _optimize_in_place():
            converted, _ = tf2onnx.convert.from_function(classify, input_signature=[spec], opset=OPSET)
        onnx.helper.set_model_props(converted, {CLASS_NAMES_KEY: json.dumps(contract.class_names, ensure_ascii=False)})
        onnx.checker.check_model(converted)
    except Exception as error:  # tf2onnx and the checker raise errors of many kinds
        raise ExportError(
            f'The model cannot be converted to ONNX ({to_one_line(error)}); set export.onnx=false.'
        ) from error
    return converted


def _read_onnx(serialized: bytes, config: TrainerConfig, contract: DataContract) -> Predict:
    """Loads an ONNX model into ONNX Runtime, and decodes images for it as the Transform graph does.

    Raises:
      ExportError: ONNX Runtime refuses the model.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(serialized, providers=['CPUExecutionProvider'])
    except Exception as error:  # its errors have no class of their own
        raise ExportError(
            f'ONNX Runtime cannot load the ONNX model ({to_one_line(error)}); set export.onnx=false.'
        ) from error
    is_stretched = config.resize == 'stretch'

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda image: decode_image(image, contract.image_size, is_stretched=is_stretched),
            encoded,
            fn_output_signature=tf.TensorSpec(contract.image_shape, tf.uint8),
        )

    def predict(encoded: tf.Tensor) -> Any:
        outputs = [features.OUTPUT_LABEL, features.OUTPUT_PROBABILITIES]
        return session.run(outputs, {features.IMAGE_KEY: decode(encoded).numpy()})

    return predict


def _read_saved_model(folder: str) -> Predict:
    signature = tf.saved_model.load(folder).signatures[features.SIGNATURE_SERVING_DEFAULT]

    def predict(encoded: tf.Tensor) -> Any:
        outputs = signature(image=encoded)
        return outputs[features.OUTPUT_LABEL].numpy(), outputs[features.OUTPUT_PROBABILITIES].numpy()

    return predict


def compare_models(ours: Predict, reference: Predict, encoded: tf.Tensor) -> OnnxReport:
    """Measures how well an ONNX model agrees with a SavedModel.

    Args:
      ours, reference: The ONNX model and the SavedModel.
      encoded: The bytes of image files, string [N].
    """
    total, agreed, largest = len(encoded), 0, 0.0
    with track('comparison with ONNX', total, 'images') as advance:
        for start in range(0, total, BATCH_SIZE):
            batch = encoded[start : start + BATCH_SIZE]
            (label, probabilities), (expected_label, expected) = ours(batch), reference(batch)
            agreed += int(np.sum(label == expected_label))
            # A probability that is not a number must not pass for a small difference.
            largest = max(largest, float(np.nan_to_num(np.abs(probabilities - expected), nan=1.0).max()))
            advance(len(batch))
    return OnnxReport(opset=OPSET, agreement=agreed / max(total, 1), largest_difference=largest, images=total)


def export_onnx(
    model: keras.Model,
    config: TrainerConfig,
    export_config: ExportConfig,
    contract: DataContract,
    encoded: tf.Tensor,
    saved_model: str,
) -> OnnxReport:
    """Writes the ONNX model of `convert_model` and its report into a SavedModel.

    Args:
      model: The network that `trainer.export.export_model` has exported.
      config: The settings of the training.
      export_config: The precision of the SavedModel, and how well both must agree.
      contract: The class names and the image size.
      encoded: The val images, bytes of image files, string [N], on which the agreement is measured.
      saved_model: Folder of the SavedModel; a local path or a URI that TensorFlow can open.

    Raises:
      ExportError: The model cannot be converted, or it disagrees with the SavedModel. Nothing is written then.
    """
    with track('conversion to ONNX'):
        serialized = convert_model(model, config, contract).SerializeToString()
    report = compare_models(_read_onnx(serialized, config, contract), _read_saved_model(saved_model), encoded)
    bound = MAX_DIFFERENCE[export_config.precision]
    if report.agreement < export_config.min_agreement or report.largest_difference > bound:
        raise ExportError(
            f'The ONNX model has the same label as the SavedModel for {report.agreement:.2%} of {report.images:,} val '
            f'images, and probabilities that differ by up to {report.largest_difference:.2g}; at least '
            f'{export_config.min_agreement:.2%} (export.min_agreement) and at most {bound:g} are asked for. '
            f'Set export.onnx=false.'
        )
    with tf.io.gfile.GFile(os.path.join(saved_model, ONNX_FILE), 'wb') as file:
        file.write(serialized)
    with tf.io.gfile.GFile(os.path.join(saved_model, ONNX_REPORT_FILE), 'w') as file:
        json.dump(report._asdict(), file, indent=2)
    return report
