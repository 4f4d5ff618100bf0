"""Colours of classes, to draw masks."""

__all__ = ["class_color"]


def class_color(label: int) -> tuple[int, int, int]:
    """Colour of a class, red, green and blue: the colour map of Pascal VOC without its first entry, black.

    >>> class_color(0), class_color(1)
    ((128, 0, 0), (0, 128, 0))
    """
    red = green = blue = 0
    number = label + 1
    for bit in range(7, -1, -1):
        red, green, blue = red | (number & 1) << bit, green | (number >> 1 & 1) << bit, blue | (number >> 2 & 1) << bit
        number >>= 3
    return red, green, blue
