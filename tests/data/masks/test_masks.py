"""Images with masks: tables of classes, layouts, splits, broken labels, reading and augmentation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ghostnets.data import DataSpec, find_task
from ghostnets.data.masks import IGNORED, MaskAugmentation, open_masks, read_table
from ghostnets.data.masks.folder import split_mask_validation
from ghostnets.errors import DataError
from ghostnets.preprocessing import Preprocessing

LAND, WATER, NOTHING = (132, 41, 246), (226, 169, 41), (155, 155, 155)
TABLE = "name,color\nland,#8429F6\nwater,#E2A929\nunlabelled,#9B9B9B\n"


def write_pair(root: Path, name: str, mask: np.ndarray, *, images: str = "images", masks: str = "masks") -> None:
    """An image, whose red channel is 10 times the label or color number of its pixels, with its mask."""
    for folder in (root / images, root / masks):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    codes = mask if mask.ndim == 2 else np.argmin(mask[..., :1].astype(int) != [LAND[0], WATER[0], NOTHING[0]], axis=2)
    pixels = np.repeat((codes * 10).astype(np.uint8)[..., None], 3, axis=2)
    Image.fromarray(pixels).save(root / images / f"{name}.png")
    Image.fromarray(mask).save(root / masks / f"{name}.png")


def colored(height: int = 12, width: int = 16) -> np.ndarray:
    """Land above, water below, a column without label at the right."""
    mask = np.empty((height, width, 3), np.uint8)
    mask[: height // 2], mask[height // 2 :], mask[:, -1] = LAND, WATER, NOTHING
    return mask


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.csv", TABLE),
        ("class_dict.csv", "name, r, g, b\nland, 132, 41, 246\nwater,226,169,41\nVoid,155,155,155\n"),
        ("classes.csv", "name;rgb\nland;132 41 246\nwater;226 169 41\nunlabelled;155 155 155\n"),
        (
            "classes.json",
            '{"classes": [{"title": "land", "color": "#8429F6"}, {"title": "water", "color": "#e2a929"},'
            ' {"title": "Unlabeled", "color": "#9B9B9B"}]}',
        ),
        ("palette.json", '{"land": [132, 41, 246], "water": [226, 169, 41], "unlabelled": [155, 155, 155]}'),
        ("colors.json", '{"#8429F6": "land", "E2A929": "water", "#9B9B9B": "void"}'),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nland:132,41,246::\nwater:226,169,41::\nvoid:155,155,155::\n",
        ),
        ("label_colors.txt", "132 41 246\tland\n226 169 41\twater\n155 155 155\tunlabelled\n"),
    ],
)
def test_tables_of_colors_are_read(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    table = read_table(tmp_path / name)
    assert table.names == ("land", "water")
    labels = table.apply(Image.fromarray(colored(4, 5)))
    assert labels.tolist() == [[0, 0, 0, 0, 255]] * 2 + [[1, 1, 1, 1, 255]] * 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "land\nwater\n"),
        ("classes.csv", "value,name\n0,land\n1,water\n"),
        ("classes.json", '{"0": "land", "1": "water"}'),
        ("classes.json", '["land", "water"]'),
    ],
)
def test_tables_of_values_are_read(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    table = read_table(tmp_path / name)
    values = np.array([[0, 1, 255]], np.uint8)
    indexed = Image.fromarray(values)
    indexed = indexed.convert("P")
    indexed.putpalette([9, 9, 9, 7, 7, 7] + [0] * 762)  # the colours do not matter
    for mask in (Image.fromarray(values), indexed, Image.fromarray(np.repeat(values[..., None], 3, axis=2))):
        assert (table.names, table.apply(mask).tolist()) == (("land", "water"), [[0, 1, 255]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,color\nland,#8429F6\nwater,#8429F6\n", "gives #8429F6 to two classes"),
        ("name,color\nland,purple\n", "'purple' is neither a color such as #8429F6 nor a value"),
        ("name,color\nvoid,#000000\n", "has 0 classes"),
        ("1,2\n3,4\n", "its first line is '1,2', not the names of columns"),
        ("name,color\nland,#8429F6\nwater,3\n", "has colors and values"),
    ],
)
def test_tables_without_meaning_are_rejected(tmp_path: Path, text: str, message: str):
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "classes.csv")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "fields"
    for name in ("a", "b", "c", "d"):
        write_pair(root, name, colored())
    (root / "classes.csv").write_text(TABLE)
    return root


def test_splits_by_list_files_and_by_folders(data: Path, tmp_path: Path):
    (data / "test.txt").write_text("b\nimages/d.png\n")
    source = open_masks(data)
    assert {split: [pair.name for pair in found] for split, found in source.splits.items()} == {
        "train": ["a", "c"],
        "test": ["b", "d"],
    }
    (data / "train.txt").write_text("a.png\n")
    source = open_masks(data)
    assert [pair.name for pair in source.splits["train"]] == ["a"]
    assert "left out: 1 image in no list (c)" in source.notes
    (data / "train.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"b\.png is in test\.txt and train\.txt; remove it"):
        open_masks(data)

    folders = tmp_path / "folders"
    write_pair(folders, "training/x", np.zeros((4, 4), np.uint8), masks="annotations")
    write_pair(folders, "validation/x", np.ones((4, 4), np.uint8), masks="annotations")
    source = open_masks(folders)
    assert {split: found[0].name for split, found in source.splits.items()} == {
        "train": "training/x",
        "val": "validation/x",
    }
    assert source.table.names == ("class 0", "class 1")

    tiles = tmp_path / "tiles"
    for tile in ("Tile 1", "Tile 2"):
        write_pair(tiles / tile, "image_part_001", np.ones((4, 4), np.uint8))
    assert [pair.name for pair in open_masks(tiles).splits["train"]] == [
        "Tile 1/image_part_001",
        "Tile 2/image_part_001",
    ]


def test_every_broken_label_is_named_or_skipped(data: Path):
    write_pair(data, "other", np.full((12, 16, 3), (1, 2, 3), np.uint8))
    Image.fromarray(colored(10, 16)).save(data / "masks" / "b.png")
    (data / "masks" / "c.png").unlink()
    Image.fromarray(colored()).save(data / "masks" / "alone.png")
    (data / "masks" / "d.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (data / "train.txt").write_text("a\nb\nd\nother\nnobody\n")
    with pytest.raises(DataError) as error:
        open_masks(data)
    for part in (
        "6 broken labels",
        "c.png: there is no mask masks/c.png",
        "alone.png: there is no image of this name in images",
        "b.png: it has 16 x 10 pixels, and its image b.png 16 x 12 (upright)",
        "other.png: color #010203 (100.00%) is not in the table of classes",
        "d.png cannot be read",
        "train.txt, line 5: there is no image named nobody",
    ):
        assert part in str(error.value)
    source = open_masks(data, skip_broken=True)
    assert [pair.name for pair in source.splits["train"]] == ["a"]
    assert len(source.broken) == 6


def test_colors_without_a_table_and_binary_masks_are_explained(data: Path, tmp_path: Path):
    (data / "classes.csv").unlink()
    with pytest.raises(DataError, match=r"colors #8429F6 \(46\.88%\), #E2A929 .* classes\.csv: a line \"name,color\""):
        open_masks(data)
    (data / "classes.csv").write_text(TABLE)
    (data / "classes.json").write_text("[]")
    with pytest.raises(DataError, match=r"has 2 tables of classes \(classes\.csv, classes\.json\)"):
        open_masks(data)
    binary = tmp_path / "binary"
    write_pair(binary, "a", np.array([[0, 255]], np.uint8))
    with pytest.raises(DataError, match=r"the values of its masks are 0, 255, of which 255 is ignored; add a file"):
        open_masks(binary)
    (binary / "classes.txt").write_text("background\nbuilding\n")
    shares = "labelled pixels in train: background 100.0%, building 0.0%; 50.0% of all pixels are ignored (value 255)"
    assert open_masks(binary).describe_shares("train") == shares
    (binary / "classes.txt").unlink()
    (binary / "classes.csv").write_text("name,value\nbackground,0\nbuilding,255\n")
    assert open_masks(binary).pixels["train"].tolist() == [[1, 1]]


def test_values_that_are_no_class_numbers_and_second_masks_are_named(tmp_path: Path):
    for name in ("a", "b"):
        write_pair(tmp_path, name, (np.arange(12, dtype=np.uint8) // 6 * 128).reshape(3, 4))
    with pytest.raises(DataError, match="of the values 0 to 128 its masks have only 0, 128; add a file classes"):
        open_masks(tmp_path)
    (tmp_path / "classes.csv").write_text("name,value\nland,0\nwater,128")
    Image.new("L", (4, 3)).save(tmp_path / "masks" / "b.tif")
    with pytest.raises(DataError, match=r"b\.tif: it is a second mask beside b\.png"):
        open_masks(tmp_path)
    Image.fromarray(np.full((3, 4), 0.5, np.float32)).save(tmp_path / "masks" / "b.tif")
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.tif: it has values that are not whole numbers"):
        open_masks(tmp_path)
    (tmp_path / "train.txt").write_text("images\\a.png")
    source = open_masks(tmp_path, skip_broken=True)
    assert [pair.name for pair in source.splits["train"]] == ["a"]
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DataError, match="broken labels"):  # rather than no training images
        open_masks(tmp_path, skip_broken=True)


def test_task_is_found_from_the_layout(data: Path):
    assert find_task(data) == "segment"
    source = DataSpec(data, task=None).open()
    assert source.task == "segment"
    assert source.notes[0].startswith("the labels are masks (images and masks), so a segmentation network is trained")
    assert source.class_counts == {"train": (3, 3), "val": (1, 1)}
    (data / "images").rename(data / "img_dir")  # as MMSegmentation names them
    (data / "masks").rename(data / "ann_dir")
    assert find_task(data) == "segment"
    assert open_masks(data).splits["train"][0].mask.parent.name == "ann_dir"
    (data / "data.yaml").write_text("names: [fish]\ntrain: images\n")
    with pytest.raises(DataError, match=r"choose --task detect or --task segment"):
        find_task(data)


def test_images_and_masks_are_read_and_augmented_together(data: Path):
    long = np.zeros((8, 80, 3), np.uint8)  # more elongated than 4 : 1, so its middle is read for training
    long[:, :40], long[:, 40:] = LAND, WATER
    write_pair(data, "a", long)
    folder = split_mask_validation(open_masks(data), val_share=0.25, seed=0)
    splits = folder.load(Preprocessing(32, 32, fit="stretch"))
    assert splits.val[0].shape == (4, 32, 32)
    for image in (splits.train[i] for i in range(3)):
        labelled = image[3] != IGNORED
        edge = (image[3][:, 1:] != image[3][:, :-1]).any() or (image[3][1:] != image[3][:-1]).any()
        assert labelled.any()
        assert edge
        agree = ((image[0] > 5) == (image[3] == 1))[labelled]  # the image shows its mask
        assert agree.float().mean() > 0.95  # edges are blurred
    images = [splits.train[i] for i in range(3)] * 4
    state = torch.random.get_rng_state()
    for degrees in (0.0, 180.0):
        augmentation = MaskAugmentation(24, vertical_flip=True, color=0.2, rotate=degrees)
        pixels, masks = augmentation.augment(images, torch.zeros(12), range(12))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert (pixels.shape, masks.shape) == ((12, 3, 24, 24), (12, 24, 24))
        agree = ((pixels[:, 0] > 4) == (masks == 1))[masks != IGNORED]
        assert agree.float().mean() > 0.95  # edges are blurred
        again = augmentation.augment(images, torch.zeros(12), range(12))
        assert torch.equal(pixels, again[0])
        assert torch.equal(masks, again[1])


def test_masks_rotate_with_their_images():
    image = torch.zeros(4, 32, 32, dtype=torch.uint8)
    image[:, :16] = 1  # the upper half, in all three channels and in the mask
    augmentation = MaskAugmentation(32, min_scale=1.0, horizontal_flip=False, rotate=180)
    pixels, masks = augmentation.augment([image] * 6, torch.zeros(6), range(6))
    assert (pixels[:, 0] == masks).float().mean() > 0.97  # bilinear and nearest differ at the edge
    assert ((masks != image[3]).float().mean((1, 2)) > 0.1).sum() >= 4  # turned by more than some degrees
    assert masks.unique().tolist() == [0, 1]


def test_masks_are_resized_about_the_centres_of_pixels():
    """Stripes of 10 pixels, of which a crop keeps a third of each side: those of mask and image still coincide."""
    stripes = ((torch.arange(120) // 10) % 2).to(torch.uint8)
    image = torch.cat([stripes.expand(3, 120, 120) * 255, stripes.expand(1, 120, 120)])
    pixels, masks = MaskAugmentation(40, min_scale=1.0).augment([image] * 8, torch.zeros(8), range(8))
    assert ((pixels[:, 0] > 127) == masks).float().mean() > 0.99


def test_identity_follows_the_masks(data: Path):
    before = split_mask_validation(open_masks(data), val_share=0.25, seed=0).identity
    mask = colored()
    mask[0, 0] = WATER
    Image.fromarray(mask).save(data / "masks" / "a.png")
    assert split_mask_validation(open_masks(data), val_share=0.25, seed=0).identity != before
