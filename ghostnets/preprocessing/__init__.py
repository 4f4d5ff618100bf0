"""Preprocessing: from an image file, or a decoded image, to the pixels a network takes. Importing it loads no torch."""

from ghostnets.preprocessing.decoding import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    RESAMPLING,
    Pixels,
    Source,
    as_array,
    decode,
    is_grey,
    read_image,
    resize,
)
from ghostnets.preprocessing.transform import Preprocessing

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RESAMPLING",
    "Pixels",
    "Preprocessing",
    "Source",
    "as_array",
    "decode",
    "is_grey",
    "read_image",
    "resize",
]
