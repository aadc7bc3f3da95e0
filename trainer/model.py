"""The network: a partly frozen ResNet50 and a BatchNorm/Dropout head. Pure Keras 3, any backend."""

import keras

from components import features
from trainer.config import TrainerConfig


def build_backbone(image_size: int) -> keras.Model:
    """ResNet50 without its top, random weights: [N, S, S, 3] -> [N, S/32, S/32, 2048].

    175 layers and 23,587,712 parameters (pinned in a test).
    """
    return keras.applications.ResNet50(include_top=False, weights=None, input_shape=(image_size, image_size, 3))


def freeze_below(backbone: keras.Model, train_from: str) -> None:
    """Freezes every layer below the first whose name starts with `train_from`; 'none' freezes all.

    Keras runs a frozen BatchNorm in inference mode, so the frozen part gives the same features whatever the batch.
    Must come before `compile`: Keras ignores a later change silently.

    Raises:
      ValueError: no layer's name starts so.
    """
    names = [layer.name for layer in backbone.layers]
    first = next((index for index, name in enumerate(names) if name.startswith(train_from)), None)
    if train_from == 'none':
        first = len(names)
    elif first is None:
        stages = sorted({name.split('_')[0] for name in names})
        raise ValueError(
            f'trainer.train_from must be "none" or the beginning of a layer name, such as {", ".join(stages)}. '
            f'Received: {train_from!r}'
        )
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= first


def add_head(outputs, config: TrainerConfig):
    """Flatten, BatchNorm, then Dense (relu), Dropout, BatchNorm for each of `head_units`, then the softmax.

    The softmax is float32 under mixed precision too, where half precision would lose small probabilities.
    """
    x = keras.layers.Flatten(name='head_flatten')(outputs)
    x = keras.layers.BatchNormalization(name='head_input_bn')(x)
    for number, units in enumerate(config.head_units, start=1):
        x = keras.layers.Dense(units, activation='relu', name=f'head_{number}_dense')(x)
        x = keras.layers.Dropout(config.dropout, seed=config.seed + number, name=f'head_{number}_dropout')(x)
        x = keras.layers.BatchNormalization(name=f'head_{number}_bn')(x)
    return keras.layers.Dense(
        features.NUM_CLASSES, activation='softmax', dtype='float32', name=features.OUTPUT_PROBABILITIES
    )(x)


def build_model(config: TrainerConfig, backbone: keras.Model) -> keras.Model:
    """The whole network, not compiled: float [N, S, S, 3], preprocessed -> probabilities float32 [N, 10].

    Args:
      config: what to freeze, and the head.
      backbone: from `build_backbone`, with the weights to start from; its layers become the model's.
    """
    freeze_below(backbone, config.train_from)
    model = keras.Model(backbone.input, add_head(backbone.output, config), name='cifar10_resnet50')
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            layer.momentum = config.batchnorm_momentum
    return model


def compile_model(model: keras.Model, config: TrainerConfig) -> None:
    """Compiles with the recipe's loss and optimizer; the loss is on probabilities, which is what the head gives."""
    model.compile(
        optimizer=keras.optimizers.RMSprop(config.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=False),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name='accuracy')],
    )
