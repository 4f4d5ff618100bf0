"""Image decoding and evaluation preprocessing: from a file or image to the pixels of a network. Loads no torch."""

from ghostnets.preprocessing.decoding import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    RESAMPLING,
    ImageHeader,
    ImageSource,
    Pixels,
    as_array,
    decode,
    is_grey,
    read_header,
    read_image,
    resize,
)
from ghostnets.preprocessing.transform import Preprocessing

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RESAMPLING",
    "ImageHeader",
    "ImageSource",
    "Pixels",
    "Preprocessing",
    "as_array",
    "decode",
    "is_grey",
    "read_header",
    "read_image",
    "resize",
]
