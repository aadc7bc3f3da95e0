"""The backbones that can be trained: one table with one line each. To add a backbone, add a line.

The configuration reads the table and must not import Keras, so that `--help` answers at once. The table therefore
names what belongs to a backbone in Keras, and the functions below look it up when it is needed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

STRIDE = 32  # every backbone's output has a value for so many pixels in height and width


class Backbone(NamedTuple):
    """A network of `keras.applications` that has ImageNet weights, and the numbers that describe it."""

    builder: str
    """Name of the function in `keras.applications` that builds the network."""
    module: str
    """Name of the module in `keras.applications` whose `preprocess_input` belongs to the network."""
    image_size: int
    """Height and width in pixels of the images that the ImageNet weights were trained on."""
    smallest_size: int
    """Smallest height and width in pixels that the network can be built for."""
    train_from: str
    """The meaning of `trainer.train_from=auto`: the prefix of the names of the layers in the last stage."""
    channels: int
    """Channels of the output without top, which has the shape [N, S / STRIDE, S / STRIDE, channels]."""
    parameters: int
    """Number of parameters without top."""


# The key is the value of `trainer.backbone`. Keras' weights files are named after it too.
BACKBONES: dict[str, Backbone] = {
    'resnet50': Backbone('ResNet50', 'resnet50', 224, 32, 'conv5', 2048, 23_587_712),
    'resnet101': Backbone('ResNet101', 'resnet', 224, 32, 'conv5', 2048, 42_658_176),
    'vgg16': Backbone('VGG16', 'vgg16', 224, 32, 'block5', 512, 14_714_688),
    # What comes after the output of mixed8 is the last two blocks, mixed9 and mixed10.
    'inception_v3': Backbone('InceptionV3', 'inception_v3', 299, 75, 'mixed8', 2048, 21_802_784),
    'densenet121': Backbone('DenseNet121', 'densenet', 224, 32, 'conv5', 1024, 7_037_504),
}


def get_builder(name: str) -> Callable[..., Any]:
    """Returns Keras' function that builds a backbone: (include_top, weights, input_shape) -> keras.Model."""
    import keras

    builder: Callable[..., Any] = getattr(keras.applications, BACKBONES[name].builder)
    return builder


def get_preprocess_input(name: str) -> Callable[..., Any]:
    """Returns Keras' preprocessing for a backbone.

    It takes float RGB images [N, S, S, 3] with values from 0 to 255, and returns what the ImageNet weights expect:
    'caffe' mode (BGR, minus the ImageNet means), 'tf' mode (-1 to 1) or 'torch' mode (0 to 1, then standardized),
    depending on the backbone.
    """
    import keras

    preprocess_input: Callable[..., Any] = getattr(keras.applications, BACKBONES[name].module).preprocess_input
    return preprocess_input


def get_weights_file(name: str) -> str:
    """Returns the name of the official file of ImageNet weights without top."""
    return f'{name}_weights_tf_dim_ordering_tf_kernels_notop.h5'
