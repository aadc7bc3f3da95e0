"""Mixup and CutMix: what becomes of images and labels, and that nothing but seed, epoch and batch decides it."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.cluster import Share
from trainer.dataset import EpochOrder, Split, make_batches
from trainer.mixing import ALPHA, Mixer

COUNT, SIZE = 40, 8
LABELS = np.arange(COUNT) % 10


def make_split() -> Split:
    """A split of images, [SIZE, SIZE, 3], whose pixels are all the row's number; row 0 is 0, row 1 is 1 ..."""

    def read(indices, epoch):
        return tf.ones([1, SIZE, SIZE, 3]) * tf.cast(indices, tf.float32)[:, None, None, None]

    return Split(encoded=None, labels=LABELS, read_rows=read)


def read_epoch(kind, epoch=0, seed=5, share=None, **options):
    """The batches of an epoch as arrays; with several replicas, the parts of the first epoch."""
    order = EpochOrder(COUNT, seed, share.workers if share else 1)
    order.epoch = epoch
    batches = make_batches(make_split(), order, 16, share, num_classes=10, mixer=Mixer(kind, seed), **options)
    parts = 3 * (len(share.replicas_here) if share else 1)
    return [tuple(tensor.numpy() for tensor in batch) for batch in batches.take(parts)]


def test_mixup_averages_each_image_and_its_label_with_those_of_its_partner():
    rows = EpochOrder(COUNT, 5).list_rows(2)[16:32]
    pairing = Mixer('mixup', 5).draw_pairing(2, 16, 16)
    shares, others = pairing.shares, rows[pairing.partners]
    _, (images, labels), _ = read_epoch('mixup', epoch=2)
    np.testing.assert_allclose(images[:, 3, 4, 1], shares * rows + (1 - shares) * others, rtol=1e-5)
    one_hot = np.eye(10)
    expected = shares[:, None] * one_hot[rows % 10] + (1 - shares[:, None]) * one_hot[others % 10]
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    assert sorted(pairing.partners) == list(range(16))
    assert (np.abs(shares - 0.5) < 0.49).any()


def test_the_labels_of_cutmix_hold_the_share_of_the_pixels_of_each_class():
    mixed = 0
    for images, labels in read_epoch('cutmix'):
        for image, label in zip(images, labels, strict=True):
            rows, counts = np.unique(image[..., 0], return_counts=True)
            expected = np.zeros(10)
            np.add.at(expected, rows.astype(int) % 10, counts / SIZE**2)
            np.testing.assert_allclose(label, expected, atol=1e-6)
            mixed += len(rows) > 1
    assert mixed > COUNT / 2


def test_cutmix_pastes_a_rectangle_around_the_drawn_centre_and_reports_the_share_that_is_left():
    zeros, ones = tf.zeros([3, SIZE, SIZE, 3]), tf.ones([3, SIZE, SIZE, 3])
    shares, centers = tf.constant([0.75, 0.75, 1.0]), tf.constant([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])
    images, kept = Mixer('cutmix', 0).mix(zeros, ones, shares, centers)
    expected = np.zeros((3, SIZE, SIZE))
    expected[0, 2:6, 2:6] = 1  # a quarter of the image
    expected[1, :2, 6:] = 1  # the same, cut off at a corner
    np.testing.assert_array_equal(images[..., 0], expected)
    np.testing.assert_allclose(kept, [0.75, 1 - 4 / 64, 1])


@pytest.mark.parametrize('kind', ALPHA)
def test_seed_epoch_and_batch_decide_the_mixture_and_nothing_else(kind):
    first, again, later = (read_epoch(kind, epoch) for epoch in (3, 3, 4))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    mixer = Mixer(kind, 5)
    draws = [mixer.draw_pairing(*place, 16).shares for place in ((3, 0), (4, 0), (3, 16), (0, 0))]
    draws.append(Mixer(kind, 6).draw_pairing(3, 0, 16).shares)
    assert len({shares.tobytes() for shares in draws}) == len(draws)
    assert not np.array_equal(first[0][1], later[0][1])


@pytest.mark.parametrize('share', [(1, 0, 2), (2, 0, 2)], ids=['two_devices', 'two_workers'])
def test_several_replicas_together_get_the_mixture_of_one(share):
    expected = [dict(zip(images[:, 0, 0, 0], labels, strict=True)) for images, labels in read_epoch('mixup')]
    workers = [Share(share[0], worker, share[2]) for worker in range(share[0])]
    got = [part for each in workers for part in read_epoch('mixup', share=each)]
    merged = {
        pixel: label for images, labels, _ in got for pixel, label in zip(images[:, 0, 0, 0], labels, strict=True)
    }
    assert len(merged) == COUNT
    for batch in expected:
        for pixel, label in batch.items():
            np.testing.assert_array_equal(merged[pixel], label)


def test_class_weights_weigh_each_share_of_a_mixed_label():
    class_weights = np.arange(1, 11, dtype=np.float32)
    plain = read_epoch('cutmix')
    for (_, labels), (_, weighted, weights) in zip(
        plain, read_epoch('cutmix', class_weights=class_weights), strict=True
    ):
        np.testing.assert_allclose(weighted * weights[:, None], labels * class_weights, rtol=1e-5)
        np.testing.assert_allclose(weighted.sum(axis=1), 1, rtol=1e-5)


def test_without_mixing_one_hot_labels_are_the_classes():
    (_, labels), *_ = make_batches(make_split(), EpochOrder(COUNT, None), 16, num_classes=10)
    np.testing.assert_array_equal(labels, np.eye(10)[LABELS[:16]])
