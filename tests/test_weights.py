import hashlib

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications import resnet
from keras.src.backend import config as backend_config
from keras.src.legacy.saving import legacy_h5_format

from components.errors import WeightsError
from tests.conftest import IMAGE_SIZE
from trainer.model import build_backbone
from trainer.weights import load_weights


@pytest.fixture
def other_backbone():
    keras.utils.set_random_seed(99)
    return build_backbone(IMAGE_SIZE)


@pytest.fixture
def weights_file(other_backbone, tmp_path):
    path = tmp_path / 'other.weights.h5'
    other_backbone.save_weights(path)
    return path


def are_equal(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


def test_weights_come_from_a_file(other_backbone, weights_file):
    backbone = build_backbone(IMAGE_SIZE)
    assert not are_equal(backbone, other_backbone)
    load_weights(backbone, str(weights_file))
    assert are_equal(backbone, other_backbone)


def test_none_keeps_the_random_weights():
    backbone = build_backbone(IMAGE_SIZE)
    before = backbone.get_weights()
    load_weights(backbone, 'none')
    assert all(np.array_equal(a, b) for a, b in zip(before, backbone.get_weights(), strict=True))


def test_a_missing_file_names_the_choices(tmp_path):
    with pytest.raises(WeightsError, match=r'nothing\.h5 cannot be read.*"imagenet".*"none"'):
        load_weights(build_backbone(IMAGE_SIZE), str(tmp_path / 'nothing.h5'))


def test_a_file_of_another_network_names_the_mismatch(tmp_path):
    path = tmp_path / 'vgg.weights.h5'
    keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(path)
    with pytest.raises(WeightsError, match=r'vgg\.weights\.h5 does not fit ResNet50 without top'):
        load_weights(build_backbone(IMAGE_SIZE), str(path))


def test_a_shape_mismatch_is_named(tmp_path):
    keras.utils.set_random_seed(0)
    wider = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 4))
    path = tmp_path / 'four_channels.weights.h5'
    wider.save_weights(path)
    with pytest.raises(WeightsError, match=r'does not fit.*\(7, 7, 3, 64\)'):
        load_weights(build_backbone(IMAGE_SIZE), str(path))


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    path = tmp_path / 'bad.weights.h5'
    path.write_bytes(b'not a weights file')
    with pytest.raises(WeightsError, match=r'bad\.weights\.h5 does not fit'):
        load_weights(build_backbone(IMAGE_SIZE), str(path))


def save_legacy_hdf5(model, path) -> None:
    """The format of the official files, which Keras 3 reads by the name's ending and no longer offers to write."""
    with h5py.File(path, 'w') as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.fixture
def fake_imagenet(serve_file, tmp_path, monkeypatch, other_backbone):
    """Keras' own loader, pointed at a local server with a file of ours in the official one's place."""
    path = tmp_path / 'source.h5'
    save_legacy_hdf5(other_backbone, path)
    content = path.read_bytes()
    server = serve_file(content)
    monkeypatch.setattr(resnet, 'BASE_WEIGHTS_PATH', server.base_url)
    monkeypatch.setitem(resnet.WEIGHTS_HASHES, 'resnet50', ('', hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(backend_config, 'keras_home', lambda: str(tmp_path / 'keras'))
    return server


def test_weights_come_from_a_file_in_the_official_format(other_backbone, tmp_path):
    path = tmp_path / 'resnet50_notop.h5'
    save_legacy_hdf5(other_backbone, path)
    backbone = build_backbone(IMAGE_SIZE)
    load_weights(backbone, str(path))
    assert are_equal(backbone, other_backbone)


def test_imagenet_weights_are_downloaded_by_keras(fake_imagenet, other_backbone):
    backbone = build_backbone(IMAGE_SIZE)
    load_weights(backbone, 'imagenet')
    assert are_equal(backbone, other_backbone)
    assert len(fake_imagenet.ranges) == 1


def test_a_wrong_checksum_stops_and_names_the_choices(fake_imagenet, monkeypatch):
    monkeypatch.setitem(resnet.WEIGHTS_HASHES, 'resnet50', ('', '0' * 32))
    with pytest.raises(WeightsError, match=r'ImageNet weights could not be had.*"none"'):
        load_weights(build_backbone(IMAGE_SIZE), 'imagenet')


def test_a_failed_download_stops_and_names_the_choices(fake_imagenet):
    fake_imagenet.statuses = [500] * 5
    with pytest.raises(WeightsError, match=r'ImageNet weights could not be had.*trainer\.weights.*"none"'):
        load_weights(build_backbone(IMAGE_SIZE), 'imagenet')
