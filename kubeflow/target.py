"""Target: where a package is to run, checked before anything heavy is imported."""

import re
from dataclasses import dataclass

from components.errors import UsageError
from components.places import SCHEMES
from kubeflow.mirrors import ROOT_FORM, is_pipeline_root
from pipeline.config import PipelineConfig
from pipeline.kubeflow_config import STEPS

_NAME = re.compile(r'[a-z0-9][a-z0-9-]*')
_IMAGE = re.compile(r'[^\s@]+@sha256:[0-9a-f]{64}|[^\s@]*?[^\s@:/]:(?!latest$)[A-Za-z0-9_][A-Za-z0-9_.-]*')


@dataclass(frozen=True, kw_only=True)
class Target:
    """The images and the object store."""

    image: str
    """For every step without a GPU, with a tag or a digest."""
    gpu_image: str | None
    """For the steps with one; None where there is none."""
    pipeline_root: str
    """URI under which the artifacts are kept."""
    webhook: str | None = None
    """Address that is told how a run ended; None for nobody."""

    def get_image(self, gpu: int | None) -> str:
        """The image of a step with so many GPUs."""
        return self.gpu_image if gpu else self.image

    def check(self, config: PipelineConfig) -> None:
        """Refuses what cannot run there.

        Raises:
          UsageError: says which option, and what it takes.
        """
        for option, image in (('--image', self.image), ('--gpu-image', self.gpu_image)):
            if image is not None and not _IMAGE.fullmatch(image):
                raise UsageError(f'{option} takes NAME:TAG or NAME@sha256:DIGEST, never :latest. Received: {image!r}')
        if not is_pipeline_root(self.pipeline_root):
            raise UsageError(f'--pipeline-root takes a URI with {ROOT_FORM}. Received: {self.pipeline_root!r}')
        for option, place in (('--data', config.data), ('--serving', config.serving)):
            if not (place or '').startswith(('/', *SCHEMES)):
                schemes = ', '.join(SCHEMES)
                raise UsageError(f'{option} takes an absolute path on a volume, or {schemes}. Received: {place!r}')
        if not _NAME.fullmatch(config.name):
            raise UsageError(f'--set name takes lower-case letters, digits and hyphens. Received: {config.name!r}')
        has_gpu = any(config.kubeflow.get_step(name).gpu for name in STEPS)
        if has_gpu and not self.gpu_image:
            raise UsageError('A step asks for a GPU, so --gpu-image must name the image for it.')
        if self.gpu_image and not has_gpu:
            raise UsageError('--gpu-image is for steps with a GPU, and none asks: --set kubeflow.steps.Trainer.gpu=1.')
