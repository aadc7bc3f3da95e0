"""Training on the frozen layers' outputs is the training of the whole network."""

import keras
import numpy as np
import pytest

from tests.conftest import IMAGE_SIZE
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, make_batches, make_image_rows, read_records
from trainer.device import Device
from trainer.model import build_backbone, build_model, compile_model
from trainer.training_rows import Split, prepare_rows

CPU = Device('CPU', 'float32', False)


@pytest.fixture(scope='module')
def records(sample_data, transform_output):
    return [read_records([str(sample_data / split / '*')], transform_output) for split in ('train', 'val')]


def make_config(**settings) -> TrainerConfig:
    # Small steps of SGD: random weights amplify rounding tenfold a step at the rates that train a real network, and
    # RMSprop's first steps are the signs of gradients, which rounding decides where they are near zero.
    head = {'head_units': (16,), 'batchnorm_momentum': 0.8, 'batch_size': 16, 'optimizer': 'sgd', 'learning_rate': 1e-5}
    return TrainerConfig(image_size=IMAGE_SIZE, weights='none', **{**head, **settings})


def train_steps(config, records, transform_output, folder, device=CPU, epochs=2):
    """Every step's loss, where the frozen outputs were kept, and the trained model."""
    keras.utils.set_random_seed(0)
    model = build_model(config, build_backbone(config))
    augmentations = (config.augmentation, 'none')
    splits = [
        Split(make_image_rows(split, transform_output, augmentation, config.seed), len(split.labels))
        for split, augmentation in zip(records, augmentations, strict=True)
    ]
    losses = []
    with prepare_rows(model, config, device, *splits, str(folder)) as rows:
        compile_model(rows.model, config)
        order = EpochOrder(splits[0].count, config.seed)
        batches = make_batches(rows.train, records[0].labels, order, config.batch_size)
        rows.fill()
        for order.epoch in range(epochs):
            losses += [float(rows.model.train_on_batch(x, y, return_dict=True)['loss']) for x, y in batches]
            rows.model.reset_metrics()
        cache = rows.cache
    return losses, cache, model


@pytest.mark.slow
@pytest.mark.parametrize(
    ('cache', 'settings'), [('disk', {}), ('memory', {'train_from': 'none', 'pooling': 'average'})]
)
def test_cached_and_uncached_training_give_the_same_losses_step_for_step(
    records, transform_output, tmp_path, cache, settings
):
    config = make_config(cache='off', **settings)
    expected, kind, model = train_steps(config, records, transform_output, tmp_path)
    assert kind == 'off'
    assert len(set(expected)) == len(expected) == 12
    config = make_config(cache=cache, **settings)
    losses, kind, cached_model = train_steps(config, records, transform_output, tmp_path)
    assert kind == cache
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    keras.utils.set_random_seed(0)
    untrained = build_model(config, build_backbone(config)).get_weights()
    changes = [
        np.concatenate([(after - before).ravel() for after, before in zip(weights, untrained, strict=True)])
        for weights in (cached_model.get_weights(), model.get_weights())
    ]
    assert np.linalg.norm(changes[0] - changes[1]) < 1e-2 * np.linalg.norm(changes[1])


@pytest.mark.slow
def test_kept_views_train_as_the_augmentation_they_are_of(records, transform_output, tmp_path):
    settings = {'augmentation': 'flip_crop', 'cached_views': 2}
    uncached, kind, _ = train_steps(make_config(cache='off', **settings), records, transform_output, tmp_path, epochs=2)
    assert kind == 'off'
    cached, kind, _ = train_steps(make_config(**settings), records, transform_output, tmp_path, epochs=2)
    assert kind == 'memory'
    np.testing.assert_allclose(cached, uncached, rtol=1e-3)


def test_augmentation_without_kept_views_trains_on_images(records, transform_output, tmp_path):
    _, kind, _ = train_steps(make_config(augmentation='flip'), records, transform_output, tmp_path, epochs=0)
    assert kind == 'off'


def test_with_nothing_frozen_there_is_nothing_to_keep(records, transform_output, tmp_path):
    _, kind, _ = train_steps(make_config(train_from='all'), records, transform_output, tmp_path, epochs=0)
    assert kind == 'off'


@pytest.mark.slow
def test_bfloat16_frozen_layers_train_nearly_as_float32_ones(records, transform_output, tmp_path):
    exact, _, _ = train_steps(make_config(), records, transform_output, tmp_path, epochs=1)
    device = Device('CPU', 'onednn_bfloat16', False)
    rough, _, _ = train_steps(make_config(), records, transform_output, tmp_path, device=device, epochs=1)
    np.testing.assert_allclose(rough, exact, rtol=0.15)
    assert rough != exact
