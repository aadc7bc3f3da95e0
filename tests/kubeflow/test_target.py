"""What `compile` refuses in its options, before anything is compiled."""

import re

import pytest

from pipeline.__main__ import main

ARGUMENTS = {
    '--out': 'p.yaml',
    '--image': 'example/cifar10:1',
    '--pipeline-root': 'minio://mlpipeline/v2',
    '--data': 'gs://b/d',
    '--serving': '/mnt/s',
}


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'--image': 'example/cifar10'}, "--image takes NAME:TAG .* Received: 'example/cifar10'"),
        ({'--image': 'example/cifar10:latest'}, 'never :latest'),
        ({'--image': 'registry:5000/cifar10'}, '--image takes NAME:TAG'),
        ({'--image': 'example/cifar10@sha256:12'}, '--image takes NAME:TAG'),
        ({'--gpu-image': 'example/gpu:1'}, r'no step asks for one: --set kubeflow\.steps\.Trainer\.gpu=1'),
        ({'--set': 'kubeflow.steps.Trainer.gpu=1'}, '--gpu-image must name'),
        ({'--set': 'kubeflow.default.gpus=1'}, r'did you mean kubeflow\.default\.gpu'),
        ({'--set': 'name=Cifar_10'}, "name takes lower-case letters, .* Received: 'Cifar_10'"),
        ({'--pipeline-root': '/tmp/root'}, '--pipeline-root takes a URI with minio://, s3://, gs://'),
        ({'--pipeline-root': 'minio://'}, "--pipeline-root takes .* and a bucket. Received: 'minio://'"),
        ({'--data': 'data/sample'}, "--data takes an absolute path .* Received: 'data/sample'"),
        ({'--data': 'minio://b/d'}, r'data must be a path, or a URI with s3:// or gs:// and a bucket \(for MinIO'),
        ({'--serving': 'serving'}, '--serving takes an absolute path on a volume, or s3://, gs://'),
        (
            {'--set': 'beam.args=--runner=FlinkRunner,--environment_type=EXTERNAL,--environment_config=h:1'},
            'beam.args names FlinkRunner, whose workers cannot read .* local copies',
        ),
        ({'--out': 'p.json'}, r'--out takes a file that ends in \.yaml'),
        ({'--out': 'no/such/p.yaml'}, 'in a folder that exists'),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(changes, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = [text for option in (ARGUMENTS | changes).items() for text in option]
    assert main(['compile', *options]) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, error)
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert not list(tmp_path.iterdir())
