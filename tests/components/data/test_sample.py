"""The embedded sample: equal seeds give equal bytes, and its classes can be told apart."""

import numpy as np

from components.data import cifar10, sample


def test_the_sample_is_the_same_for_the_same_seed_and_differs_for_a_different_one(tmp_path):
    written = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        (tmp_path / name).mkdir()
        files = sample.write_sample(tmp_path / name, train=50, test=10, seed=seed)
        written.append([file.path.read_bytes() for file in files])
    same, again, other = written
    assert same == again
    assert same != other


def test_the_sample_is_six_valid_batch_files(tmp_path):
    files = sample.write_sample(tmp_path, train=52, test=10, seed=0)
    assert [file.path.name for file in files] == list(cifar10.BATCHES)
    assert [file.records for file in files] == [11, 11, 10, 10, 10, 10]
    for file in files:
        assert cifar10.check_batch(file.path.name, file.path.read_bytes()) == file.records


def test_the_sample_has_every_class_in_every_batch(tmp_path):
    for file in sample.write_sample(tmp_path, train=50, test=10, seed=0):
        assert set(cifar10.read_records(file.path, 0, file.records).labels) == set(range(10))


def test_sample_classes_differ_in_colour():
    random = np.random.default_rng(0)
    means = []
    for label in range(10):
        drawn = np.stack([sample.draw_image(label, random) for _ in range(20)]).astype(float)
        saturated = np.ptp(drawn, axis=-1) > 60
        means.append(drawn[saturated].mean(axis=0))
    distances = [np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]]
    assert min(distances) > 20
