"""DataGateConfig, in a file of its own so that the command line can list it without importing Beam."""

from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from components.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class DataGateConfig(Settings):
    """How much of each fault the data may have. Shares are of a split's records, 0 to 1."""

    SECTION: ClassVar[str] = 'data_gate'

    max_missing: Share = 0.0
    """Largest share of records that lack the image or the label, or have one of a different type."""
    max_undecodable: Share = 0.0
    """Largest share of records whose image is neither PNG nor JPEG, or is cut short. The curated schema,
    components/schema.pbtxt, checks this as well."""
    max_wrong_size: Share = 0.0
    """Largest share of images that do not have the size of the data contract, as its manifest says it."""
    max_wrong_channels: Share = 0.0
    """Largest share of images that are not RGB."""
    max_oversized: Share = 0.0
    """Largest share of images whose header declares more than `max_pixels`. Such images are not decoded."""
    max_pixels: Annotated[int, Field(ge=1)] = 2**24
    """Pixels above which the size that an image declares counts as a decompression bomb."""
    max_bad_labels: Share = 0.0
    """Largest share of labels that are not the number of a class, from 0 on. The curated schema checks this as well."""
    max_test_duplicates: Share = 0.0
    """Largest share of test images that are in a different split too, pixel by pixel. The accuracy on images that the
    model was trained on says nothing about new ones."""
    max_imbalance: Share = 0.5
    """Largest change of a class's share from the train split to val or test, relative to its share of train and beyond
    what chance explains."""
    max_shrink: Share = 0.2
    """Largest share of its records that a split may have lost since the data of the serving model."""
    max_drift: Share = 0.1
    """Largest drift of a class's share of train from the data of the serving model (TFDV's L-infinity distance)."""
