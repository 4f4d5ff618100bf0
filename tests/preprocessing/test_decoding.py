"""Decoding of common and hostile image files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvf

from ghostnets.errors import ImageError
from ghostnets.preprocessing import RESAMPLING, decode, depth, is_grey, limits, read_image

COLOR = np.zeros((20, 30, 3), np.uint8)
COLOR[:, :15] = (250, 10, 20)  # left red
COLOR[:, 15:] = (10, 20, 250)  # right blue


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
def test_color_formats(tmp_path: Path, suffix: str):
    Image.fromarray(COLOR).save(tmp_path / f"a.{suffix}", quality=95)
    pixels = read_image(tmp_path / f"a.{suffix}", channels=3)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 20, 30))
    assert (pixels[:, 10, 5].int() - torch.tensor([250, 10, 20])).abs().max() < 12
    assert read_image(tmp_path / f"a.{suffix}", channels=1).shape == (1, 20, 30)


def test_grayscale_is_expanded_to_equal_channels(tmp_path: Path):
    Image.fromarray(COLOR).convert("L").save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", channels=3)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])


def test_cmyk_colors(tmp_path: Path):
    Image.fromarray(COLOR).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert mode_of(tmp_path / "a.jpg") == "CMYK"
    pixels = read_image(tmp_path / "a.jpg", channels=3)
    assert (pixels[:, 10, 5].int() - torch.tensor([250, 10, 20])).abs().max() < 20


def test_sixteen_bits_are_scaled(tmp_path: Path):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert mode_of(tmp_path / "a.png").startswith("I")
    pixels = read_image(tmp_path / "a.png", channels=1)[0]
    assert torch.equal(pixels, torch.from_numpy((values >> 8).astype(np.uint8)))


def test_palette_and_transparency_on_white(tmp_path: Path):
    Image.fromarray(COLOR).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert mode_of(tmp_path / "p.png") == "P"
    assert (read_image(tmp_path / "p.png", channels=3)[:, 10, 5].int() - torch.tensor([250, 10, 20])).abs().max() < 12
    layer = Image.fromarray(COLOR).convert("RGBA")
    layer.putalpha(Image.fromarray(np.where(np.arange(30) < 15, 255, 0).astype(np.uint8)[None].repeat(20, 0)))
    layer.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", channels=3)
    assert pixels[:, 10, 5].tolist() == [250, 10, 20]
    assert pixels[:, 10, 25].tolist() == [255, 255, 255]


def test_animation_gives_first_frame(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for suffix in ("gif", "webp"):
        frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
        assert read_image(tmp_path / f"a.{suffix}", channels=3)[:, 4, 4].tolist() == [255, 0, 0]


def test_exif_rotation(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter clockwise: the left side becomes the top
    Image.fromarray(COLOR).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_image(tmp_path / "a.jpg", channels=3)
    assert pixels.shape == (3, 30, 20)
    assert pixels[0, 3, 10] > 200
    assert pixels[2, 26, 10] > 200


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (31, 17)])
def test_resize_of_extreme_sizes(tmp_path: Path, size: tuple[int, int]):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert min(read_image(tmp_path / "a.png", channels=3, shorter_side=16).shape[1:]) == 16


def test_elongated_image_is_cropped_before_resize(tmp_path: Path):
    Image.new("RGB", (60_000, 1)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", channels=3, shorter_side=256).shape == (3, 256, 1024)


@pytest.mark.parametrize("interpolation", sorted(RESAMPLING))
def test_resize_equals_torchvision(tmp_path: Path, interpolation: str):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    expected = tvf.pil_to_tensor(tvf.resize(image, [32], interpolation=tvf.InterpolationMode(interpolation)))
    got = read_image(tmp_path / "a.png", channels=3, shorter_side=32, interpolation=interpolation)
    assert torch.equal(got, expected)


def png_header(width: int, height: int, color_type: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(
    ("size", "millions"), [((30_000, 30_000), 900), ((11_000, 10_000), 110), ((2_000_000_000, 1), 2000)]
)
def test_too_many_pixels_are_rejected_from_the_header(tmp_path: Path, size: tuple[int, int], millions: int):
    (tmp_path / "a.png").write_bytes(png_header(*size))
    with pytest.raises(
        ImageError,
        match=rf"a\.png has {millions} million pixels, the limit is 100 million; scale it down, remove it, or raise",
    ):
        read_image(tmp_path / "a.png", channels=3)


@pytest.mark.parametrize(
    ("width", "height", "color_type", "megabytes"), [(8000, 5000, 6, 320), (8000, 10000, 2, 320), (8000, 5000, 4, None)]
)
def test_more_memory_than_the_limit_is_rejected_from_the_header(
    width: int, height: int, color_type: int, megabytes: int | None
):
    reason = f"takes {megabytes} MB to decode" if megabytes else "truncated|cannot be read"
    with pytest.raises(ImageError, match=reason):
        decode(png_header(width, height, color_type))
    if megabytes:  # a caller that allows more pixels allows their memory
        with pytest.raises(ImageError, match=r"truncated|cannot be read"):
            decode(png_header(8000, 4000, 6), max_pixels=200_000_000)


@pytest.mark.parametrize(("subsampling", "megabytes"), [(2, 243), (0, 486)])
def test_coefficients_of_a_progressive_jpeg_count(subsampling: int, megabytes: int):
    stream = io.BytesIO()
    Image.fromarray(COLOR).save(stream, "JPEG", progressive=True, subsampling=subsampling)
    with Image.open(stream) as image:
        needed = limits.decoding_memory(image, (1, 1), (9000, 9000), result_bytes=0, is_turned=False)
    assert needed == megabytes * 1_000_000 + 4


def encode(kind: str, **options: Image.Exif) -> bytes:
    """A file of 64 x 48 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 48)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("orientation", "size"), [(1, (32, 24)), (6, (12, 16))])
def test_jpeg_of_more_memory_than_the_limit_is_decoded_at_a_fraction(
    monkeypatch: pytest.MonkeyPatch, orientation: int, size: tuple[int, int]
):
    monkeypatch.setattr(limits, "MAX_MEMORY", 64 * 48 * 4 // 2 - 1)  # a rotated image is copied
    exif = Image.Exif()
    exif[274] = orientation
    assert decode(encode("JPEG", exif=exif)).size == size


def test_option_named_by_the_rejection_allows_the_image(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "MAX_MEMORY", 64 * 48 * 4 - 1)
    content = encode("WEBP")
    with pytest.raises(ImageError, match="takes 0 MB to decode") as rejection:
        decode(content)
    named = int(str(rejection.value).split("--max-pixels ")[1].rstrip("."))
    with pytest.raises(ImageError, match="takes 0 MB to decode"):
        decode(content, max_pixels=named - 2_000_000)
    assert decode(content, max_pixels=named).size == (64, 48)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_truncated_file_error_names_the_file(tmp_path: Path, suffix: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    for length in (0, 3, 30, len(content) // 2):
        (tmp_path / f"a.{suffix}").write_bytes(content[:length])
        with pytest.raises(ImageError, match=rf"a\.{suffix}"):
            read_image(tmp_path / f"a.{suffix}", channels=3)


def test_text_missing_file_and_folder_are_rejected(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("hello")
    (tmp_path / "b.jpg").touch()
    with pytest.raises(ImageError, match=r"a\.jpg cannot be read as an image"):
        read_image(tmp_path / "a.jpg", channels=3)
    with pytest.raises(ImageError, match="the file is empty"):
        read_image(tmp_path / "b.jpg", channels=3)
    with pytest.raises(ImageError, match="there is no image"):
        read_image(tmp_path / "c.jpg", channels=3)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path, channels=3)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match="floating-point"):
        read_image(tmp_path / "f.tif", channels=1)


def test_postscript_is_not_decoded(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(ImageError, match="none of JPEG, PNG, GIF"):
        read_image(tmp_path / "a.jpg", channels=3)
    with pytest.raises(ImageError, match="cannot be read"):
        is_grey(tmp_path / "a.jpg")


def test_too_long_side_is_rejected_from_the_header(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(png_header(1, 70_000))
    with pytest.raises(ImageError, match=r"a\.png has 1 x 70000 pixels, the longest side is 65535; crop or remove it"):
        read_image(tmp_path / "a.png", channels=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_compositing_in_strips_equals_whole_image(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode == "P":
        Image.fromarray(noise[..., :3]).quantize(16).save(tmp_path / "a.png", transparency=3)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    whole = read_image(tmp_path / "a.png", channels=3)
    monkeypatch.setattr(depth, "STRIP_ROWS", 7)
    assert torch.equal(read_image(tmp_path / "a.png", channels=3), whole)
    with Image.open(tmp_path / "a.png") as stored:
        layer = np.asarray(stored.convert("RGBA")).astype(float)
    alpha = layer[..., 3:] / 255
    expected = layer[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(whole.numpy().transpose(1, 2, 0) - expected).max() <= 2
