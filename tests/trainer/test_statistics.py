"""After training, a BatchNorm's moving statistics are those of the data, in every precision and for every backbone.

Under Grappler's oneDNN pass they once were up to a factor of two away: the pass computed the moving averages in
bfloat16, which loses increments of less than 1/256.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow_transform as tft

from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, make_batches, read_split
from trainer.device import has_cpu_bfloat16, use_device
from trainer.model import (
    build_backbone,
    build_model,
    compile_model,
    list_trained_batchnorms,
    set_batchnorm_momentum,
)
from trainer.training_rows import prepare_rows

TOLERANCE = 0.05  # of the data's variance; of a standard deviation for the mean
# All in one batch, so that every step has the same statistics and the averages have no noise to hide a fault in.
IMAGES = 16

needs_bfloat16 = pytest.mark.skipif(
    not has_cpu_bfloat16(), reason='Grappler rewrites nothing on a CPU without bfloat16 units'
)


def measure_statistics(model: keras.Model, batches) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mean and the variance of what enters each trained BatchNorm, averaged over the batches, in float32.

    Without momentum, the moving statistics after a batch are those of the batch. Nothing here goes through Grappler.
    """
    norms = list_trained_batchnorms(model)
    seen = []
    for norm in norms:
        norm.momentum = 0.0
    for inputs, *_ in batches:
        model(inputs, training=True)
        seen.append([(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms])
    return [tuple(np.mean(pairs, axis=0)) for pairs in zip(*seen, strict=True)]


def compare_statistics(config: TrainerConfig, sample_data, graph, folder, steps: int) -> list[tuple[float, float]]:
    """Trains for some steps, and compares the moving statistics of every trained BatchNorm with the data's.

    Returns:
      For each BatchNorm, from the medians over its channels: the relative error of the variance, and the error of the
      mean in standard deviations.
    """
    with use_device(config.precision) as device:
        keras.utils.set_random_seed(0)
        model = build_model(config, build_backbone(config), 10)
        transform_output = tft.TFTransformOutput(str(graph))
        train, val = (read_split([str(sample_data / split / '*')], transform_output) for split in ('train', 'val'))
        train = dataclasses.replace(train, encoded=train.encoded[:IMAGES], labels=train.labels[:IMAGES])
        with prepare_rows(model, config, device, train, val, str(folder), epochs=steps) as rows:
            set_batchnorm_momentum(rows.model, config.batchnorm_momentum)
            compile_model(rows.model, config)
            rows.fill()
            order = EpochOrder(train.count, config.seed)
            batches = make_batches(rows.train, order, config.batch_size)
            # `fit`, because the graph that it trains with is the one in which Grappler moved the averages to bfloat16.
            rows.model.fit(batches.repeat(steps), verbose=0)
            norms = list_trained_batchnorms(rows.model)
            moving = [(norm.moving_mean.numpy(), norm.moving_variance.numpy()) for norm in norms]
            measured = measure_statistics(rows.model, batches)
    errors = []
    for (mean, variance), (true_mean, true_variance) in zip(moving, measured, strict=True):
        alive = true_variance > 0.01 * np.median(true_variance)  # a ReLU may give zero for every image
        errors.append(
            (
                abs(float(np.median(variance[alive] / true_variance[alive])) - 1),
                float(np.median(np.abs(mean - true_mean)[alive] / np.sqrt(true_variance[alive]))),
            )
        )
    return errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ('precision', 'cache'),
    [
        ('float32', 'memory'),
        ('float32', 'off'),
        ('mixed_bfloat16', 'memory'),
        pytest.param('onednn_bfloat16', 'memory', marks=needs_bfloat16),
        pytest.param('onednn_bfloat16', 'off', marks=needs_bfloat16),
    ],
)
def test_moving_statistics_are_the_datas_in_every_precision(sample_data, transform_graph, tmp_path, precision, cache):
    # Averages in bfloat16 stop where an increment is below 1/256 of the value, which takes a momentum of 0.99. In
    # float32 a smaller one shows the same in fewer steps.
    momentum, steps = (0.97, 200) if precision == 'float32' else (0.99, 600)
    config = TrainerConfig(
        image_size=32,
        weights='none',
        train_from='none',
        pooling='average',
        head_units=(16,),
        dropout=0.0,
        batchnorm_momentum=momentum,
        optimizer='sgd',
        learning_rate=1e-5,
        batch_size=IMAGES,
        precision=precision,
        cache=cache,
    )
    errors = compare_statistics(config, sample_data, transform_graph, tmp_path, steps=steps)
    assert len(errors) == 2  # before and after the head's Dense layer
    assert np.max(errors) < TOLERANCE, errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ('backbone', 'image_size'), [('resnet50', 64), ('resnet101', 64), ('inception_v3', 75), ('densenet121', 64)]
)
def test_moving_statistics_are_the_datas_for_every_backbone(
    sample_data, make_transform_graph, tmp_path, backbone, image_size
):
    """In the precision that training chooses on this machine. VGG16 has no BatchNorm."""
    config = TrainerConfig(
        backbone=backbone,
        image_size=image_size,
        weights='none',
        pooling='average',
        head_units=(),
        batchnorm_momentum=0.75,
        optimizer='sgd',
        learning_rate=1e-6,
        batch_size=IMAGES,
    )
    graph = make_transform_graph(backbone, image_size)
    errors = compare_statistics(config, sample_data, graph, tmp_path, steps=30)
    assert len(errors) > 2
    assert np.max(np.median(errors, axis=0)) < TOLERANCE, errors
