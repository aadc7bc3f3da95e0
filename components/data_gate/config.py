"""DataGateConfig, apart from the checks so that the command line can list it without importing Beam."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class DataGateConfig:
    """How much of each fault the data may have. Shares are of a split's records, 0-1."""

    max_missing: float = 0.0
    """Share without an image or a label, or with one of another type."""
    max_undecodable: float = 0.0
    """Share whose image is neither PNG nor JPEG, or breaks off. components/schema.pbtxt has a say as well."""
    max_wrong_size: float = 0.0
    """Share of images that are not 32x32."""
    max_wrong_channels: float = 0.0
    """Share of images that are not RGB."""
    max_oversized: float = 0.0
    """Share of images whose header declares over `max_pixels`; they are not decoded."""
    max_pixels: int = 2**24
    """Pixels over which a declared size is a decompression bomb."""
    max_bad_labels: float = 0.0
    """Share of labels that are no class. components/schema.pbtxt has a say as well."""
    max_test_duplicates: float = 0.0
    """Share of test images that are, pixel by pixel, in another split too: a gate that has seen them says nothing."""
    max_imbalance: float = 0.5
    """Largest change of a class's share from train to another split, relative to train's, beyond chance."""
    max_shrink: float = 0.2
    """By which share of its records a split may be smaller than in the data of the serving model."""
    max_drift: float = 0.1
    """Largest change of a class's share of train (TFDV's L-infinity distance) from the data of the serving model."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == 'max_pixels':
                if value < 1:
                    raise ValueError(f'data_gate.max_pixels must be at least 1. Received: {value}')
            elif not 0 <= value <= 1:
                raise ValueError(f'data_gate.{field.name} must be 0 to 1. Received: {value}')
