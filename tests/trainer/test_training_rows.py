"""Training on the trunk's cached outputs gives the same model as training the whole network."""

import keras
import numpy as np
import pytest

from components import progress
from tests.conftest import IMAGE_SIZE
from trainer import cache_plan, training_rows
from trainer.cluster import Share
from trainer.config import TrainerConfig
from trainer.dataset import EpochOrder, make_batches, read_split
from trainer.device import Device
from trainer.model import build_backbone, build_model, compile_model
from trainer.training_rows import prepare_rows

CPU = Device('CPU', 'float32', False)


def make_config(**settings) -> TrainerConfig:
    # Small steps of SGD: at the learning rates that train a real network, random weights amplify rounding errors
    # tenfold with every step. And RMSprop's first steps are the signs of the gradients, which rounding decides where a
    # gradient is near zero.
    head = {'head_units': (16,), 'batchnorm_momentum': 0.8, 'batch_size': 16, 'optimizer': 'sgd', 'learning_rate': 1e-5}
    return TrainerConfig(image_size=IMAGE_SIZE, weights='none', **{**head, **settings})


def train_steps(config, sample_data, transform_output, folder, device=CPU, epochs=2):
    """Trains, and returns the loss of every step, where the trunk's outputs were cached, and the trained model."""
    keras.utils.set_random_seed(0)
    model = build_model(config, build_backbone(config), 10)
    train = read_split([str(sample_data / 'train' / '*')], transform_output, config.augmentation, config.seed)
    val = read_split([str(sample_data / 'val' / '*')], transform_output)
    losses = []
    with prepare_rows(model, config, device, train, val, str(folder), epochs=epochs) as rows:
        compile_model(rows.model, config)
        order = EpochOrder(train.count, config.seed)
        batches = make_batches(rows.train, order, config.batch_size)
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
    sample_data, transform_output, tmp_path, cache, settings
):
    config = make_config(cache='off', **settings)
    expected, kind, model = train_steps(config, sample_data, transform_output, tmp_path)
    assert kind == 'off'
    assert len(set(expected)) == len(expected) == 12
    config = make_config(cache=cache, **settings)
    losses, kind, cached_model = train_steps(config, sample_data, transform_output, tmp_path)
    assert kind == cache
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    keras.utils.set_random_seed(0)
    untrained = build_model(config, build_backbone(config), 10).get_weights()
    changes = [
        np.concatenate([(after - before).ravel() for after, before in zip(weights, untrained, strict=True)])
        for weights in (cached_model.get_weights(), model.get_weights())
    ]
    assert np.linalg.norm(changes[0] - changes[1]) < 1e-2 * np.linalg.norm(changes[1])


@pytest.mark.slow
def test_training_on_cached_views_equals_training_with_the_augmentation(sample_data, transform_output, tmp_path):
    settings = {'augmentation': 'flip_crop', 'cached_views': 2}
    config = make_config(cache='off', **settings)
    uncached, kind, _ = train_steps(config, sample_data, transform_output, tmp_path)
    assert kind == 'off'
    cached, kind, _ = train_steps(make_config(**settings), sample_data, transform_output, tmp_path)
    assert kind == 'memory'
    np.testing.assert_allclose(cached, uncached, rtol=1e-3)


def test_augmentation_without_cached_views_trains_on_images(sample_data, transform_output, tmp_path):
    _, kind, _ = train_steps(make_config(augmentation='flip'), sample_data, transform_output, tmp_path, epochs=0)
    assert kind == 'off'


def test_mixed_images_are_not_cached(sample_data, transform_output, tmp_path, caplog):
    with caplog.at_level('INFO', 'trainer'):
        config = make_config(mix='cutmix', cache='memory')
        _, kind, _ = train_steps(config, sample_data, transform_output, tmp_path, epochs=0)
    assert kind == 'off'
    assert 'cache off: trainer.mix=cutmix makes new images in every step' in caplog.text


def test_without_frozen_layers_there_is_no_cache(sample_data, transform_output, tmp_path):
    _, kind, _ = train_steps(make_config(train_from='all'), sample_data, transform_output, tmp_path, epochs=0)
    assert kind == 'off'


@pytest.fixture
def prepare(sample_data, transform_output, tmp_path):
    """Prepares the rows of the sample for two epochs, and returns the context."""
    train, val = (read_split([str(sample_data / name / '*')], transform_output) for name in ('train', 'val'))

    def make(share=None, epochs=2, **settings):
        config = make_config(**settings)
        model = build_model(config, build_backbone(config), 10)
        return prepare_rows(model, config, CPU, train, val, str(tmp_path), share, epochs=epochs)

    return make


def test_the_rows_of_feature_extraction_with_pooling_are_the_pooled_vectors(prepare):
    with prepare(train_from='none', pooling='average') as rows:
        assert rows.cache == 'memory'
        assert rows.model.input_shape == (None, 2048)


def test_a_view_that_no_epoch_reads_is_not_computed(prepare):
    reports = []
    with prepare(augmentation='flip', cached_views=5, epochs=1) as rows, progress.listen(reports.append):
        rows.fill()
    count = rows.train.count + rows.val.count
    assert [(report.what, report.total) for report in reports[:1]] == [('frozen layers', count)]
    assert (reports[-1].done, reports[-1].is_finished) == (count, True)


@pytest.mark.parametrize(('read_s', 'kind'), [(1000, 'off'), (0, 'disk')])
def test_without_memory_the_measured_disk_decides(prepare, monkeypatch, caplog, read_s, kind):
    monkeypatch.setattr(cache_plan, 'measure_free_memory', lambda: 0)
    monkeypatch.setattr(training_rows, 'measure_disk_reading', lambda *arguments: read_s)
    caplog.set_level('INFO', 'trainer')
    with prepare() as rows:
        assert rows.cache == kind
        rows.fill()
    assert f'cache {"off" if kind == "off" else "on disk"}: ' in caplog.text
    assert f'reading their outputs from disk {1000 * read_s:.2f} ms' in caplog.text


def test_workers_of_one_training_do_not_measure_because_they_have_to_decide_alike(prepare, monkeypatch):
    monkeypatch.setattr(cache_plan, 'measure_free_memory', lambda: 0)
    monkeypatch.setattr(training_rows, 'measure_disk_reading', lambda *arguments: 1000)
    with prepare(share=Share(workers=2, worker=1, replicas=2)) as rows:
        assert rows.cache == 'disk'


@pytest.mark.slow
def test_training_on_a_bfloat16_trunk_is_nearly_that_on_a_float32_trunk(sample_data, transform_output, tmp_path):
    exact, _, _ = train_steps(make_config(), sample_data, transform_output, tmp_path, epochs=1)
    device = Device('CPU', 'onednn_bfloat16', False)
    rough, _, _ = train_steps(make_config(), sample_data, transform_output, tmp_path, device=device, epochs=1)
    np.testing.assert_allclose(rough, exact, rtol=0.15)
    assert rough != exact
