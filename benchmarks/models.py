"""Models, images and Transform graphs for the benchmarks and the tests: real architectures with random weights."""

import os
import tempfile

import apache_beam as beam
import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_transform.tf_metadata import dataset_metadata

from components import features
from components.contract import DataContract
from components.contract_schema import make_schema
from components.data import cifar10, sample
from pipeline.config import BeamConfig
from trainer.config import TrainerConfig
from trainer.model import build_backbone, build_model
from trainer.preprocessing import preprocessing_fn


def build_random_model(config: TrainerConfig) -> keras.Model:
    """Builds the whole network with random weights, and with BatchNorm statistics and biases as after training.

    With those of a new model (mean 0, variance 1, bias 0), TensorFlow would remove operations that a trained model
    needs.
    """
    keras.utils.set_random_seed(config.seed)
    model = build_model(config, build_backbone(config), cifar10.CONTRACT.num_classes)
    random = np.random.default_rng(config.seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            near_one = [random.uniform(0.8, 1.2, shape) for _ in range(2)]
            near_zero = [random.normal(0, 0.1, shape) for _ in range(2)]
            layer.set_weights([near_one[0], near_zero[0], near_zero[1], near_one[1]])
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.Dense) and layer.use_bias:
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
    return model


def draw_pngs(count: int, seed: int = 0) -> list[bytes]:
    """Draws sample images as PNG bytes; image i is of class i modulo the number of classes."""
    random = np.random.default_rng(seed)
    images = (sample.draw_image(index % cifar10.CONTRACT.num_classes, random) for index in range(count))
    return [tf.io.encode_png(image).numpy() for image in images]


def make_example(png: bytes, label: int) -> bytes:
    """Serializes an image and its class label as a tf.Example."""
    feature = {
        features.IMAGE_KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
        features.LABEL_KEY: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example: bytes = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    return example


def write_transform_graph(
    out: str,
    image_size: int,
    *,
    backbone: str = 'resnet50',
    resize: str = 'bilinear',
    contract: DataContract = cifar10.CONTRACT,
) -> tft.TFTransformOutput:
    """Writes the graph of `preprocessing_fn` to the folder `out`, as the Transform component does.

    The graph needs no statistics of the data, so one empty record is enough to make it.

    Args:
      out: Folder to write to.
      image_size, backbone, resize: The settings of `trainer.preprocessing.preprocess_images`.
      contract: Of the raw images.
    """
    settings = {'backbone': backbone, 'image_size': image_size, 'resize': resize, 'contract': contract.to_dict()}
    metadata = dataset_metadata.DatasetMetadata(make_schema(contract))
    rows = [{features.IMAGE_KEY: b'', features.LABEL_KEY: 0, features.ID_KEY: [b'']}]
    with (
        tempfile.TemporaryDirectory() as folder,
        beam.Pipeline(options=PipelineOptions(BeamConfig().options)) as pipeline,
        tft_beam.Context(temp_dir=folder),
    ):
        transform_fn = (pipeline | beam.Create(rows), metadata) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, settings)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(out)
        _ = metadata | tft_beam.WriteMetadata(os.path.join(out, 'metadata'), pipeline)
    return tft.TFTransformOutput(out)
