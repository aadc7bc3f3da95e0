"""The network: a partly frozen backbone and a head, its loss and optimizer. Pure Keras 3, any backend."""

import keras

from components import features
from trainer.backbones import get_builder
from trainer.config import TrainerConfig


def build_backbone(config: TrainerConfig) -> keras.Model:
    """The backbone without its top, random weights: float [N, S, S, 3] -> [N, S/32, S/32, channels].

    ResNet50 has 175 layers and 23,587,712 parameters; trainer/backbones.py has the others' (pinned in tests).
    """
    size = config.get_image_size()
    return get_builder(config.backbone)(include_top=False, weights=None, input_shape=(size, size, 3))


def _is_named_by_keras(layer: keras.Layer) -> bool:
    """Whether the name is Keras' own, such as InceptionV3's conv2d_93.

    Such a name counts what the process has built before, so that it means another layer the next time.
    """
    return layer.name.replace('_', '').startswith(type(layer).__name__.lower())


def _list_inputs(layer: keras.Layer) -> list[int]:
    """Identities of the tensors that a layer takes; Keras tensors compare element by element, so not themselves."""
    return [] if isinstance(layer, keras.layers.InputLayer) else [id(x) for x in keras.tree.flatten(layer.input)]


def freeze_below(backbone: keras.Model, train_from: str) -> None:
    """Trains the layers whose names begin with `train_from` and all that depend on them; freezes the others.

    It follows the graph and not the order of the layers, in which the branches of an Inception block are mixed.
    Keras runs a frozen BatchNorm in inference mode, so the frozen part gives the same features whatever the batch.
    Must come before `compile`: Keras ignores a later change silently.

    Args:
      backbone: from `build_backbone`; changed in place.
      train_from: the beginning of layer names, 'none' or 'all'.

    Raises:
      ValueError: no layer's name starts so.
    """
    named = [layer.name for layer in backbone.layers if not _is_named_by_keras(layer)]
    first = {name for name in named if name.startswith(train_from)}
    if train_from not in ('none', 'all') and not first:
        stages = dict.fromkeys(name.split('_')[0] for name in named)
        raise ValueError(
            f'trainer.train_from must be "auto", "none", "all" or the beginning of a name of the layers of '
            f'{backbone.name}, such as {", ".join(stages)}. Received: {train_from!r}'
        )
    trained = set()
    for layer in backbone.layers:
        layer.trainable = train_from == 'all' or layer.name in first or not trained.isdisjoint(_list_inputs(layer))
        if layer.trainable:
            trained.add(id(layer.output))


def add_head(outputs, config: TrainerConfig):
    """Pooling, BatchNorm, then Dense (relu), Dropout, BatchNorm for each of `head_units`, then the softmax.

    The softmax is float32 under mixed precision too, where half precision would lose small probabilities.
    """

    def normalize(x, name):
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
    return keras.layers.Dense(
        features.NUM_CLASSES, activation='softmax', dtype='float32', name=features.OUTPUT_PROBABILITIES
    )(x)


def build_model(config: TrainerConfig, backbone: keras.Model) -> keras.Model:
    """The whole network, not compiled: float [N, S, S, 3], preprocessed -> probabilities float32 [N, 10].

    Args:
      config: what to freeze, and the head.
      backbone: from `build_backbone`, with the weights to start from; its layers become the model's.

    Raises:
      ValueError: the backbone has no layer that `train_from` names.
    """
    freeze_below(backbone, config.get_train_from())
    model = keras.Model(backbone.input, add_head(backbone.output, config), name=f'cifar10_{config.backbone}')
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            layer.momentum = config.batchnorm_momentum
    return model


def split_at_border(model: keras.Model) -> tuple[keras.Model | None, keras.Model]:
    """Cuts a model where its first trained weights are: `model(x)` is `top(trunk(x))`.

    What the trunk gives never changes while training, so it can be computed once. Layers without weights at the
    border, such as pooling, are the trunk's where one tensor still crosses, else the top's.

    Args:
      model: from `build_model`, whose layers both parts share: training `top` trains `model`.

    Returns:
      trunk, [N, S, S, 3] -> the one tensor that crosses the border, and top, from there to the probabilities,
      not compiled. (None, model) when no weights are frozen below the border.

    Raises:
      ValueError: more than one tensor crosses.
    """
    makers = {id(layer.output): layer for layer in model.layers}
    order = {tensor: index for index, tensor in enumerate(makers)}
    above, crossing = set(), set()
    for tensor, layer in makers.items():
        inputs = _list_inputs(layer)
        if layer.trainable_weights or not above.isdisjoint(inputs):
            above.add(tensor)
            crossing.update(set(inputs) - above)
    while len(crossing) > 1:
        last = max(crossing, key=order.get)
        if makers[last].weights:
            names = ', '.join(makers[tensor].name for tensor in sorted(crossing, key=order.get))
            raise ValueError(
                f'The frozen part cannot be cut off: the outputs of {names} all enter the trained part; '
                'let trainer.train_from name a whole stage.'
            )
        crossing.remove(last)
        crossing.update(_list_inputs(makers[last]))
    border = makers[crossing.pop()].output
    trunk = keras.Model(model.input, border, name=f'{model.name}_trunk')
    if not trunk.weights:
        return None, model
    return trunk, keras.Model(border, model.output, name=f'{model.name}_top')


@keras.saving.register_keras_serializable(package='cifar10')
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of integer labels [N] with probabilities [N, C], the labels smoothed.

    Keras smooths one-hot labels alone; the datasets and the metrics keep integers.
    """

    def __init__(self, label_smoothing: float, name: str = 'smoothed_crossentropy', **options):
        super().__init__(name=name, **options)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        one_hot = keras.ops.one_hot(keras.ops.cast(y_true, 'int32'), y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(one_hot, y_pred, label_smoothing=self.label_smoothing)

    def get_config(self):
        return {**super().get_config(), 'label_smoothing': self.label_smoothing}


def make_optimizer(config: TrainerConfig, learning_rate) -> keras.optimizers.Optimizer:
    """The optimizer that the config names; `learning_rate` is a number or a schedule of Keras'."""
    if config.optimizer == 'sgd':
        return keras.optimizers.SGD(learning_rate, momentum=config.momentum)
    if config.optimizer == 'adamw':
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=config.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=['bias', 'gamma', 'beta'])
        return optimizer
    return {'rmsprop': keras.optimizers.RMSprop, 'adam': keras.optimizers.Adam}[config.optimizer](learning_rate)


def compile_model(model: keras.Model, config: TrainerConfig, learning_rate=None) -> None:
    """Compiles with the config's loss and optimizer; the loss is on probabilities, which is what the head gives.

    Args:
      model: changed in place; the whole network, or the top of a split one.
      config: the optimizer and the label smoothing.
      learning_rate: a number or a keras.optimizers.schedules.LearningRateSchedule; None is the config's.
    """
    # Without smoothing it is Keras' own loss, so that the .keras file loads where this module is not installed.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=False)
    if config.label_smoothing:
        loss = SmoothedCrossentropy(config.label_smoothing)
    model.compile(
        optimizer=make_optimizer(config, config.learning_rate if learning_rate is None else learning_rate),
        loss=loss,
        metrics=[keras.metrics.SparseCategoricalAccuracy(name='accuracy')],
    )
