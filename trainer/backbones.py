"""What a backbone is: one table, a line each. Adding one is adding a line.

Read by the config (which may not import Keras, so that `--help` answers at once), by preprocessing, and by the
network, whose Keras parts are looked up by name where they are used.
"""

from typing import NamedTuple


class Backbone(NamedTuple):
    """One of Keras' networks with ImageNet weights, and what it takes."""

    builder: str
    """Function of `keras.applications` that builds it."""
    module: str
    """Module of `keras.applications` whose `preprocess_input` it was trained with."""
    image_size: int
    """Height and width in pixels that its ImageNet weights were trained at."""
    smallest_size: int
    """Smallest height and width in pixels that it can be built for."""
    train_from: str
    """What `trainer.train_from=auto` stands for: the beginning of the name of its last stage's layers."""
    channels: int
    """Of its output without top: [N, S/32, S/32, channels]."""
    parameters: int
    """Weights without top, in numbers, not bytes."""


# The key is `trainer.backbone`, and what Keras' weights files are named after.
BACKBONES: dict[str, Backbone] = {
    'resnet50': Backbone('ResNet50', 'resnet50', 224, 32, 'conv5', 2048, 23_587_712),
    'resnet101': Backbone('ResNet101', 'resnet', 224, 32, 'conv5', 2048, 42_658_176),
    'vgg16': Backbone('VGG16', 'vgg16', 224, 32, 'block5', 512, 14_714_688),
    # From the output of mixed8 on, which is its last two blocks, mixed9 and mixed10.
    'inception_v3': Backbone('InceptionV3', 'inception_v3', 299, 75, 'mixed8', 2048, 21_802_784),
    'densenet121': Backbone('DenseNet121', 'densenet', 224, 32, 'conv5', 1024, 7_037_504),
}


def get_builder(name: str):
    """Keras' function that builds a backbone: include_top, weights, input_shape -> keras.Model."""
    import keras

    return getattr(keras.applications, BACKBONES[name].builder)


def get_preprocess_input(name: str):
    """Keras' preprocessing of a backbone: images [N, S, S, 3] in RGB, 0-255, float -> what its weights expect.

    By backbone 'caffe' (BGR, minus the ImageNet means), 'tf' (-1 to 1) or 'torch' (0 to 1, then standardised).
    """
    import keras

    return getattr(keras.applications, BACKBONES[name].module).preprocess_input


def get_weights_file(name: str) -> str:
    """Name of the official file of ImageNet weights without top."""
    return f'{name}_weights_tf_dim_ordering_tf_kernels_notop.h5'
