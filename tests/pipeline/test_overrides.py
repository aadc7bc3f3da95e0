import re
from dataclasses import FrozenInstanceError, replace

import pytest

from components.errors import UsageError
from components.settings import describe_values, find_schema, make_schema
from pipeline.config import PRESETS, PipelineConfig
from pipeline.overrides import apply_overrides, list_fields
from trainer.config import TrainerConfig


@pytest.fixture
def config() -> PipelineConfig:
    return PRESETS['cifar10']('/root-folder')


@pytest.mark.parametrize(
    ('assignment', 'section', 'name', 'value'),
    [
        ('trainer.batch_size=64', 'trainer', 'batch_size', 64),
        ('trainer.learning_rate=1e-3', 'trainer', 'learning_rate', 1e-3),
        ('trainer.head_units=128,64', 'trainer', 'head_units', (128, 64)),
        ('trainer.head_units=[128, 64]', 'trainer', 'head_units', (128, 64)),
        ('trainer.head_units=', 'trainer', 'head_units', ()),
        ('trainer.precision=float32', 'trainer', 'precision', 'float32'),
        ('trainer.weights=/a=b.h5', 'trainer', 'weights', '/a=b.h5'),
        ('gate.accuracy=0.94', 'gate', 'accuracy', 0.94),
        ('gate.recall_by_class=cat=0.9,dog=0.5', 'gate', 'recall_by_class', ('cat=0.9', 'dog=0.5')),
        ('gate.recall_by_class=["a, b=0.9"]', 'gate', 'recall_by_class', ('a, b=0.9',)),
        ('export.precision=bfloat16', 'export', 'precision', 'bfloat16'),
        ('beam.args=--a=1,--b=2', 'beam', 'args', ('--a=1', '--b=2')),
    ],
)
def test_any_field_can_be_set(config, assignment, section, name, value):
    changed = apply_overrides(config, [assignment])
    assert getattr(getattr(changed, section), name) == value
    assert changed != config


def test_an_optional_field_takes_a_value_or_none(config):
    assert apply_overrides(config, ['data=/d']).data == '/d'
    assert apply_overrides(config, ['data=/d', 'data=none']).data is None


def test_one_step_of_kubeflow_can_be_set(config):
    changed = apply_overrides(config, ['kubeflow.steps.Trainer.gpu=1', 'kubeflow.default.env=["A=1,2", "B=3"]'])
    assert changed.kubeflow.steps['Trainer'] == replace(config.kubeflow.steps['Trainer'], gpu=1)
    assert changed.kubeflow.steps['Pusher'] == config.kubeflow.steps['Pusher']
    assert changed.kubeflow.get_step('Pusher').env == ('A=1,2', 'B=3')


@pytest.mark.parametrize(
    ('assignment', 'sentence'),
    [
        ('trainer.batchsize=3', r'no such setting; did you mean trainer\.batch_size\?'),
        ('trainer.batch=3', r'did you mean trainer\.batch_size\?'),
        ('batch_size=3', r'did you mean trainer\.batch_size\?'),
        ('acuracy=1', r'did you mean gate\.accuracy\?'),
        ('trainer=3', r'--set trainer: this is a group of settings; name one of them, such as trainer\.backbone\.'),
        ('trainer.batch_size', 'takes KEY=VALUE'),
        ('trainer.batch_size=many', r"trainer\.batch_size must be a whole number, at least 1\. Received: 'many'"),
        ('trainer.batch_size=1.5', r"must be a whole number, at least 1\. Received: '1\.5'"),
        ('trainer.learning_rate=fast', r"trainer\.learning_rate must be a number, over 0\. Received: 'fast'"),
        ('trainer.dropout=nan', r"must be a number, 0 to below 1\. Received: 'nan'"),
        ('trainer.head_units=a,b', r"Each value of trainer\.head_units must be a whole number, .*\. Received: 'a'"),
        ('trainer.head_units=[1', r"must be values with commas between them, or a JSON list; .* Received: '\[1'"),
        ('trainer.head_units=64,0', r'Each value of trainer\.head_units must be at least 1\. Received: 0'),
        ('trainer.head_batchnorm=maybe', r"must be true or false\. Received: 'maybe'"),
        ('trainer.precision=float8', r'trainer\.precision must be one of auto, float32'),
        ('trainer.batch_size=0', r'trainer\.batch_size must be at least 1\. Received: 0'),
        ('trainer.image_size=16', r"must be at least 32, resnet50's smallest\. Received: 16"),
        ('trainer.dropout=1', r'trainer\.dropout must be 0 to below 1\. Received: 1'),
        ('gate.accuracy=94', r'gate\.accuracy must be 0 to 1\. Received: 94'),
        *(
            (
                f'gate.recall_by_class={floor}',
                r'Each value of gate\.recall_by_class must be CLASS=SHARE with a share of 0 to 1, such as rose=0\.9\. '
                rf"Received: '{floor}'",
            )
            for floor in ('cat', 'cat=', '=0.9', 'cat=90', 'cat=nan')
        ),
        ('export.precision=float16', r'export\.precision must be one of float32, bfloat16\.'),
        ('export.min_agreement=99.5', r'export\.min_agreement must be 0 to 1\. Received: 99\.5'),
        ('kubeflow.steps.Trainr.gpu=1', r'did you mean kubeflow\.steps\.Trainer\.gpu\?'),
        (
            'kubeflow.default.memory=4 GB',
            r"kubeflow\.default\.memory must be a Kubernetes quantity, such as 4Gi\. Received: '4 GB'",
        ),
        ('kubeflow.default.retries=-1', r'kubeflow\.default\.retries must be at least 0\. Received: -1'),
        (
            'kubeflow.steps.Pusher.pvcs=models',
            r"Each value of kubeflow\.steps\.Pusher\.pvcs must be CLAIM:/PATH\. Received: 'models'",
        ),
        ('kubeflow.steps.DataCheck.cache=true', r'^kubeflow\.steps\.DataCheck\.cache must be false'),
        ('sample.train=5', r'sample\.train must be at least 50\. Received: 5'),
    ],
)
def test_what_cannot_be_set_is_said_in_one_sentence(config, assignment, sentence):
    with pytest.raises(UsageError, match=sentence) as refusal:
        apply_overrides(config, [assignment])
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize('key', ['foo', 'lr', 'zzz', 'trainer.foo'])
def test_nothing_is_suggested_for_a_key_that_resembles_none_and_the_help_is_named(config, key):
    with pytest.raises(UsageError) as refusal:
        apply_overrides(config, [f'{key}=1'])
    assert re.fullmatch(
        rf'--set {key}: there is no such setting\. There are name, root, data, class_names, serving, '
        r'serving_classes, bulk_input, trainer\.\*, .*; '
        r'`python -m pipeline run --help-all` lists them\.',
        str(refusal.value),
    )


def test_the_cifar10_preset_is_the_published_recipe(config):
    """Values of the published walk-through."""
    assert config.trainer == TrainerConfig(
        backbone='resnet50',
        image_size=None,
        resize='bilinear',
        weights='imagenet',
        train_from='auto',
        pooling='flatten',
        head_units=(256, 128, 64),
        head_batchnorm=True,
        dropout=0.5,
        batchnorm_momentum=0.99,
        label_smoothing=0,
        optimizer='rmsprop',
        learning_rate=2e-5,
        batch_size=32,
        epochs=10,
    )
    assert config.trainer.get_image_size() == 224
    assert config.trainer.get_train_from() == 'conv5'


def test_settings_that_are_valid_only_together_can_come_in_any_order(config):
    assignments = ['trainer.backbone=inception_v3', 'trainer.resize=upsampling', 'trainer.image_size=320']
    forward, backward = apply_overrides(config, assignments), apply_overrides(config, assignments[::-1])
    assert forward == backward
    assert forward.trainer.get_image_size() == 320


def test_of_two_values_for_one_setting_the_last_is_taken(config):
    assert apply_overrides(config, ['trainer.epochs=3', 'trainer.epochs=4']).trainer.epochs == 4


@pytest.mark.parametrize(
    ('values', 'sentence'),
    [
        ({'backbone': 'lenet'}, r"backbone must be one of resnet50, resnet101, vgg16, .*Received: 'lenet'"),
        ({'resize': 'cubic'}, r"resize must be one of bilinear, upsampling, stretch\. Received: 'cubic'"),
        ({'optimizer': 'lion'}, r'optimizer must be one of rmsprop, sgd, adam, adamw'),
        ({'pooling': 'max'}, r'pooling must be one of flatten, average'),
        ({'mix': 'mixup', 'cached_views': 2}, r'cached_views must be 0 with trainer\.mix=mixup, .* Received: 2'),
        ({'label_smoothing': 1.0}, r'label_smoothing must be 0 to below 1\. Received: 1\.0'),
        ({'momentum': -0.1}, r'momentum must be 0 to below 1\. Received: -0\.1'),
        ({'weight_decay': -1.0}, r'weight_decay must be at least 0\. Received: -1\.0'),
        ({'train_from': ''}, r"train_from must be .*Received: ''"),
        (
            {'backbone': 'inception_v3', 'image_size': 74},
            r"must be at least 75, inception_v3's smallest\. Received: 74",
        ),
    ],
)
def test_a_wrong_trainer_setting_is_one_sentence(values, sentence):
    with pytest.raises(UsageError, match=sentence) as refusal:
        TrainerConfig(**values)
    assert '\n' not in str(refusal.value)


def test_configs_are_immutable(config):
    with pytest.raises(FrozenInstanceError):
        config.trainer.epochs = 3


def test_every_setting_is_listed_with_its_kind_and_a_docstring(config):
    schema = make_schema(PipelineConfig)
    listed = list_fields(config)
    assert {'name', 'trainer.seed', 'serving_check.server', 'kubeflow.steps.Trainer.gpu'} <= set(listed)
    for key in listed:
        field = find_schema(schema, key.split('.'))
        assert describe_values(field), key
        assert field['description'].endswith('.'), key
