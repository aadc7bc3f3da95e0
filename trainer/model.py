"""Builds the network, a partly frozen backbone and a head, and its loss and optimizer.

Everything here is pure Keras 3 and runs on any backend.
"""

from typing import NamedTuple, TypeAlias

import keras

from components import features
from trainer.backbones import get_builder
from trainer.config import TrainerConfig

_SUFFIX = '_classifier'  # of the network's name, after its backbone's
_BATCHNORM_MOMENTUM = 0.99  # Keras' default
_BATCHNORM_START_WEIGHT = 0.01  # of the statistics from before the training, after the first epoch

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def build_backbone(config: TrainerConfig) -> keras.Model:
    """Builds the backbone without its top, with random weights: float [N, S, S, 3] -> [N, S/32, S/32, channels].

    ResNet50 has 175 layers and 23,587,712 parameters. The numbers of the others are in trainer/backbones.py, and tests
    hold them.
    """
    size = config.get_image_size()
    return get_builder(config.backbone)(include_top=False, weights=None, input_shape=(size, size, 3))


def _is_named_by_keras(layer: keras.Layer) -> bool:
    """Returns whether Keras chose the layer's name, such as conv2d_93 in InceptionV3.

    Keras numbers these names through all models that the process has built, so the same name may belong to a different
    layer the next time.
    """
    name: str = layer.name
    return name.replace('_', '').startswith(type(layer).__name__.lower())


def _list_inputs(layer: keras.Layer) -> list[int]:
    """Returns the ids of a layer's input tensors; Keras compares the tensors themselves element by element."""
    return [] if isinstance(layer, keras.layers.InputLayer) else [id(x) for x in keras.tree.flatten(layer.input)]


def freeze_below(backbone: keras.Model, train_from: str) -> None:
    """Freezes the layers of a backbone that come before `train_from`.

    Trained are the layers whose names begin with `train_from`, and all layers that depend on their outputs. This
    follows the graph and not the list of layers, in which the branches of an Inception block are mixed.

    Keras runs a frozen BatchNorm in inference mode, so frozen layers give the same output for an image in every batch.
    Call this before `compile`, because Keras silently ignores a change that comes later.

    Args:
      backbone: The backbone from `build_backbone`; changed in place.
      train_from: A prefix of layer names; 'none' freezes all layers, 'all' freezes none.

    Raises:
      ValueError: No layer's name begins with `train_from`.
    """
    named = [layer.name for layer in backbone.layers if not _is_named_by_keras(layer)]
    first = {name for name in named if name.startswith(train_from)}
    if train_from not in ('none', 'all') and not first:
        stages = dict.fromkeys(name.split('_')[0] for name in named)
        raise ValueError(
            f'trainer.train_from must be "auto", "none", "all" or the beginning of the name of a layer of '
            f'{backbone.name}, such as {", ".join(stages)}. Received: {train_from!r}'
        )
    trained: set[int] = set()
    for layer in backbone.layers:
        layer.trainable = train_from == 'all' or layer.name in first or not trained.isdisjoint(_list_inputs(layer))
        if layer.trainable:
            trained.add(id(layer.output))


def add_head(outputs: keras.KerasTensor, config: TrainerConfig, num_classes: int) -> keras.KerasTensor:
    """Adds the head: pooling and BatchNorm; then Dense (relu), Dropout and BatchNorm for each of `head_units`; softmax.

    The softmax computes in float32 under mixed precision too, because half precision would lose small probabilities.

    Args:
      outputs: The backbone's output, [N, H, W, channels].
      config: The settings of the head.
      num_classes: Number of classes.

    Returns:
      The probabilities, float32 [N, num_classes].
    """

    def normalize(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return keras.layers.BatchNormalization(name=name)(x) if config.head_batchnorm else x

    if config.pooling == 'average':
        x = keras.layers.GlobalAveragePooling2D(name='head_average')(outputs)
    else:
        x = keras.layers.Flatten(name='head_flatten')(outputs)
    x = normalize(x, 'head_input_bn')
    for number, units in enumerate(config.head_units, start=1):
        x = keras.layers.Dense(units, activation='relu', name=f'head_{number}_dense')(x)
        x = keras.layers.Dropout(config.dropout, seed=config.seed + number, name=f'head_{number}_dropout')(x)
        x = normalize(x, f'head_{number}_bn')
    return keras.layers.Dense(num_classes, activation='softmax', dtype='float32', name=features.OUTPUT_PROBABILITIES)(x)


def build_model(config: TrainerConfig, backbone: keras.Model, num_classes: int) -> keras.Model:
    """Builds the whole network: preprocessed images, float [N, S, S, 3] -> probabilities, float32 [N, num_classes].

    Args:
      config: The layers to freeze, and the settings of the head.
      backbone: A backbone from `build_backbone`, with the weights to start from. The network shares its layers.
      num_classes: Number of classes.

    Raises:
      ValueError: The backbone has no layer whose name begins with `train_from`.
    """
    freeze_below(backbone, config.get_train_from())
    outputs = add_head(backbone.output, config, num_classes)
    return keras.Model(backbone.input, outputs, name=f'{config.backbone}{_SUFFIX}')


def choose_batchnorm_momentum(config: TrainerConfig, steps: int) -> float:
    """Chooses the momentum of the BatchNorms: the configured one, or one that fits the number of steps.

    After an epoch of n steps, the statistics from before the training weigh momentum ** n.

    Args:
      config: Its `batchnorm_momentum` is used if it is set.
      steps: Number of steps in an epoch.
    """
    if config.batchnorm_momentum is not None:
        return config.batchnorm_momentum
    return min(_BATCHNORM_MOMENTUM, float(_BATCHNORM_START_WEIGHT ** (1 / steps)))


def list_trained_batchnorms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Lists the BatchNorms that are trained, whose moving statistics change."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]


def set_batchnorm_momentum(model: keras.Model, momentum: float) -> None:
    """Sets the momentum of every BatchNorm that is trained. Call it before the model's first training step."""
    for norm in list_trained_batchnorms(model):
        norm.momentum = momentum


def describe_network(model: keras.Model) -> dict[str, str | int | bool | tuple[int, ...]]:
    """Reads from a model of `build_model` the settings that its weights depend on, by the names they have there.

    The image size is one of them only where the head flattens what the backbone sees.
    """
    names = [layer.name for layer in model.layers]
    is_average = 'head_average' in names
    return {
        'backbone': model.name.removesuffix(_SUFFIX),
        'pooling': 'average' if is_average else 'flatten',
        **({} if is_average else {'image_size': model.input_shape[1]}),
        'head_units': tuple(
            layer.units
            for layer in model.layers
            if isinstance(layer, keras.layers.Dense) and layer.name.startswith('head_')
        ),
        'head_batchnorm': 'head_input_bn' in names,
    }


class StageSize(NamedTuple):
    """How many parameters a stage of the network has."""

    name: str
    """What the names of its layers begin with, such as 'conv4'; 'head'; or 'backbone' for layers that Keras named."""
    layers: int
    """Its layers that have parameters."""
    parameters: int
    """Its parameters, those of the BatchNorms' statistics included."""
    trained: int
    """Those that training changed; the BatchNorms' statistics are not counted."""


def measure_stages(model: keras.Model) -> list[StageSize]:
    """Counts the parameters of each stage of a model from `build_model`, from the images to the probabilities."""
    stages: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            is_head = layer.name.startswith('head_') or layer is model.layers[-1]
            name = 'head' if is_head else 'backbone' if _is_named_by_keras(layer) else layer.name.split('_')[0]
            stages.setdefault(name, []).append(layer)

    def count(weights: list[keras.Variable]) -> int:
        return sum(int(keras.ops.size(weight)) for weight in weights)

    return [
        StageSize(
            name,
            len(layers),
            sum(count(layer.weights) for layer in layers),
            sum(count(layer.trainable_weights) for layer in layers),
        )
        for name, layers in stages.items()
    ]


def split_at_border(model: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Cuts a model below its first trained weights into trunk and top: `model(x)` is `top(trunk(x))`.

    All of the trunk's layers are frozen, so its output for an image never changes and can be computed once. Layers
    without weights at the border, such as pooling, go to the trunk if a single tensor still crosses the border then,
    and to the top otherwise.

    Args:
      model: A model from `build_model`. Both parts share its layers, so training `top` trains `model`.

    Returns:
      The trunk, from the images to the one tensor that crosses the border, and the top, from that tensor to the
      probabilities, not compiled. (None, model) if there are no frozen weights below the border.

    Raises:
      ValueError: More than one tensor crosses the border.
    """
    makers = {id(layer.output): layer for layer in model.layers}
    order = {tensor: index for index, tensor in enumerate(makers)}
    above: set[int] = set()  # tensors that depend on trained weights
    crossing: set[int] = set()  # tensors that do not, and enter a layer whose output does
    for tensor, layer in makers.items():
        inputs = _list_inputs(layer)
        if layer.trainable_weights or not above.isdisjoint(inputs):
            above.add(tensor)
            crossing.update(set(inputs) - above)
    while len(crossing) > 1:  # move the border down, as long as only layers without weights go to the top
        last = max(crossing, key=order.__getitem__)
        if makers[last].weights:
            names = ', '.join(makers[tensor].name for tensor in sorted(crossing, key=order.__getitem__))
            raise ValueError(
                f'The frozen layers cannot be cut off: the outputs of {names} all enter the trained layers; '
                'set trainer.train_from to the name of a whole stage.'
            )
        crossing.remove(last)
        crossing.update(_list_inputs(makers[last]))
    border = makers[crossing.pop()].output
    trunk = keras.Model(model.input, border, name=f'{model.name}_trunk')
    if not trunk.weights:
        return None, model
    return trunk, keras.Model(border, model.output, name=f'{model.name}_top')


def make_optimizer(
    config: TrainerConfig, learning_rate: LearningRate, ema_momentum: float | None = None
) -> keras.optimizers.Optimizer:
    """Makes the optimizer that the configuration names; with `ema_momentum` it keeps an average of the weights."""
    average = {} if ema_momentum is None else {'use_ema': True, 'ema_momentum': ema_momentum}
    if config.optimizer == 'sgd':
        return keras.optimizers.SGD(learning_rate, momentum=config.momentum, **average)
    if config.optimizer == 'adamw':
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=config.weight_decay, **average)
        optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
        return optimizer
    make = {'rmsprop': keras.optimizers.RMSprop, 'adam': keras.optimizers.Adam}[config.optimizer]
    return make(learning_rate, **average)


def compile_model(
    model: keras.Model,
    config: TrainerConfig,
    learning_rate: LearningRate | None = None,
    ema_momentum: float | None = None,
) -> None:
    """Compiles a model with a loss on probabilities, which are the head's output, and the configured optimizer.

    The labels are int64 [N], or float32 [N, classes], the share of each class, if `config.has_soft_labels()`. The loss
    and the metric are Keras' own, so that the .keras file loads where this module is not installed.

    Args:
      model: The whole network, or its top; changed in place.
      config: The settings of the optimizer and of the labels.
      learning_rate: A number or a schedule; None means the configuration's learning rate.
      ema_momentum: Momentum of an exponential moving average of the weights, which the optimizer keeps; None for none.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=False)
    metric = keras.metrics.SparseCategoricalAccuracy(name='accuracy')
    if config.has_soft_labels():
        loss = keras.losses.CategoricalCrossentropy(from_logits=False, label_smoothing=config.label_smoothing)
        metric = keras.metrics.CategoricalAccuracy(name='accuracy')  # of a mixed label it takes the larger share
    model.compile(
        optimizer=make_optimizer(
            config, config.learning_rate if learning_rate is None else learning_rate, ema_momentum
        ),
        loss=loss,
        metrics=[metric],
    )
