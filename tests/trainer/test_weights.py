"""Loading weights: from files, from Keras' download, and what is said when they cannot be loaded."""

import hashlib
from typing import NamedTuple

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import resnet, vgg16
from keras.src.backend import config as backend_config
from keras.src.legacy.saving import legacy_h5_format

from components.errors import WeightsError
from tests.conftest import IMAGE_SIZE, FileServer
from trainer.backbones import BACKBONES
from trainer.config import TrainerConfig
from trainer.model import build_backbone
from trainer.weights import load_weights


def make_config(weights, backbone: str = 'resnet50') -> TrainerConfig:
    return TrainerConfig(backbone=backbone, image_size=IMAGE_SIZE, weights=str(weights))


def load(weights, backbone: str = 'resnet50') -> keras.Model:
    """Builds a backbone and loads the given weights."""
    config = make_config(weights, backbone)
    network = build_backbone(config)
    load_weights(network, config)
    return network


def build_other(backbone: str) -> keras.Model:
    keras.utils.set_random_seed(99)
    return build_backbone(make_config('none', backbone))


def are_equal(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.fixture(params=['vgg16', pytest.param('resnet50', marks=pytest.mark.slow)])
def other(request) -> tuple[str, keras.Model]:
    """The name of a backbone, and a backbone with random weights that no newly built one has."""
    return request.param, build_other(request.param)


def test_weights_come_from_a_file(other, tmp_path):
    backbone, network = other
    network.save_weights(tmp_path / 'other.weights.h5')
    assert not are_equal(load('none', backbone), network)
    assert are_equal(load(tmp_path / 'other.weights.h5', backbone), network)


@pytest.mark.slow
@pytest.mark.parametrize('backbone', ['inception_v3', 'densenet121', 'resnet101'])
def test_weights_of_the_larger_backbones_come_from_a_file_in_the_official_format(backbone, tmp_path):
    """Keras numbers the layers of InceptionV3, so they have different names in every newly built network."""
    size = BACKBONES[backbone].smallest_size
    config = TrainerConfig(backbone=backbone, image_size=size, weights=str(tmp_path / 'notop.h5'))
    network, loaded = build_backbone(config), build_backbone(config)
    save_legacy_hdf5(network, tmp_path / 'notop.h5')
    assert not are_equal(network, loaded)
    load_weights(loaded, config)
    assert are_equal(network, loaded)


def test_none_keeps_the_random_weights():
    backbone = build_other('vgg16')
    before = backbone.get_weights()
    load_weights(backbone, make_config('none', 'vgg16'))
    assert all(np.array_equal(a, b) for a, b in zip(before, backbone.get_weights(), strict=True))


@pytest.mark.parametrize(('backbone', 'name'), [('resnet50', 'ResNet50'), ('vgg16', 'VGG16')])
def test_the_error_for_a_missing_file_names_the_choices(backbone, name, tmp_path):
    file = f'{backbone}_weights_tf_dim_ordering_tf_kernels_notop'
    with pytest.raises(WeightsError, match=rf'no\.h5 cannot be read.*"imagenet".* {name} .*{file}\.h5.*"none"'):
        load(tmp_path / 'no.h5', backbone)


def test_a_file_for_a_different_network_is_refused(tmp_path):
    path = tmp_path / 'vgg.weights.h5'
    build_other('vgg16').save_weights(path)
    with pytest.raises(WeightsError, match=r'vgg\.weights\.h5 does not fit ResNet50 without top'):
        load(path)


def test_the_error_for_weights_of_a_different_shape_names_the_shape(tmp_path):
    wider = keras.applications.VGG16(include_top=False, weights=None, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 4))
    path = tmp_path / 'four_channels.weights.h5'
    wider.save_weights(path)
    with pytest.raises(WeightsError, match=r'does not fit VGG16 .*\(3, 3, 3, 64\)'):
        load(path, 'vgg16')


def test_a_file_that_is_not_hdf5_is_refused(tmp_path):
    path = tmp_path / 'bad.weights.h5'
    path.write_bytes(b'not a weights file')
    with pytest.raises(WeightsError, match=r'bad\.weights\.h5 does not fit'):
        load(path, 'vgg16')


def save_legacy_hdf5(model, path) -> None:
    """Writes the format of the official files. Keras 3 recognizes it by the file name, and can no longer write it."""
    with h5py.File(path, 'w') as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_weights_come_from_a_file_in_the_official_format(other, tmp_path):
    backbone, network = other
    save_legacy_hdf5(network, tmp_path / 'notop.h5')
    assert are_equal(load(tmp_path / 'notop.h5', backbone), network)


class FakeImagenet(NamedTuple):
    backbone: str
    network: keras.Model
    server: FileServer


@pytest.fixture
def fake_imagenet(serve_file, tmp_path, monkeypatch, other) -> FakeImagenet:
    """Makes Keras' own loader download a file of ours from a local server instead of the official one."""
    backbone, network = other
    path = tmp_path / 'source.h5'
    save_legacy_hdf5(network, path)
    content = path.read_bytes()
    server = serve_file(content)
    monkeypatch.setattr(resnet, 'BASE_WEIGHTS_PATH', server.base_url)
    monkeypatch.setitem(resnet.WEIGHTS_HASHES, 'resnet50', ('', hashlib.md5(content).hexdigest()))
    # The checksum of VGG16's file is written into Keras' code, so its downloader has to be given ours instead.
    monkeypatch.setattr(vgg16, 'WEIGHTS_PATH_NO_TOP', server.base_url)
    get_file = vgg16.file_utils.get_file

    def get_file_with_our_checksum(*arguments, file_hash, **options):
        return get_file(*arguments, file_hash=resnet.WEIGHTS_HASHES['resnet50'][1], **options)

    monkeypatch.setattr(vgg16.file_utils, 'get_file', get_file_with_our_checksum)
    monkeypatch.setattr(backend_config, 'keras_home', lambda: str(tmp_path / 'keras'))
    return FakeImagenet(backbone, network, server)


def test_imagenet_weights_are_downloaded_by_keras(fake_imagenet):
    assert are_equal(load('imagenet', fake_imagenet.backbone), fake_imagenet.network)
    assert len(fake_imagenet.server.ranges) == 1


def test_the_error_for_a_wrong_checksum_names_the_choices(fake_imagenet, monkeypatch):
    monkeypatch.setitem(resnet.WEIGHTS_HASHES, 'resnet50', ('', '0' * 32))
    with pytest.raises(WeightsError, match=r'ImageNet weights could not be loaded.*"none"'):
        load('imagenet', fake_imagenet.backbone)


def test_the_error_for_a_failed_download_names_the_choices(fake_imagenet):
    fake_imagenet.server.statuses = [500] * 5
    name = BACKBONES[fake_imagenet.backbone].builder
    with pytest.raises(
        WeightsError, match=rf"{name}'s ImageNet weights could not be loaded.*trainer\.weights.*\"none\""
    ):
        load('imagenet', fake_imagenet.backbone)
