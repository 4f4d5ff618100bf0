"""Image decoding and evaluation preprocessing: a file or image -> pixels of a network. Importable without torch.

Names are imported on first access: the command line takes limits from here without loading numpy.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.preprocessing.decoding import (
        IMAGE_SUFFIXES,
        RESAMPLING,
        DecodedImage,
        ImageHeader,
        ImageSource,
        Pixels,
        as_array,
        decode,
        decode_sized,
        decode_values,
        is_grey,
        limit_elongation,
        middle_of,
        read_header,
        read_image,
        resize,
    )
    from ghostnets.preprocessing.limits import MAX_PIXELS
    from ghostnets.preprocessing.palette import class_color
    from ghostnets.preprocessing.transform import FITS, FittedImage, Preprocessing

__all__ = [
    "FITS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RESAMPLING",
    "DecodedImage",
    "FittedImage",
    "ImageHeader",
    "ImageSource",
    "Pixels",
    "Preprocessing",
    "as_array",
    "class_color",
    "decode",
    "decode_sized",
    "decode_values",
    "is_grey",
    "limit_elongation",
    "middle_of",
    "read_header",
    "read_image",
    "resize",
]

_MODULES = {
    "DecodedImage": "decoding",
    "FITS": "transform",
    "FittedImage": "transform",
    "IMAGE_SUFFIXES": "decoding",
    "MAX_PIXELS": "limits",
    "RESAMPLING": "decoding",
    "ImageHeader": "decoding",
    "ImageSource": "decoding",
    "Pixels": "decoding",
    "Preprocessing": "transform",
    "as_array": "decoding",
    "class_color": "palette",
    "decode": "decoding",
    "decode_sized": "decoding",
    "decode_values": "decoding",
    "is_grey": "decoding",
    "limit_elongation": "decoding",
    "middle_of": "decoding",
    "read_header": "decoding",
    "read_image": "decoding",
    "resize": "decoding",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
