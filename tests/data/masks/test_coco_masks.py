"""Masks of COCO's polygons and run lengths: pixels, classes, overlaps, splits, broken labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ghostnets.data import DataSpec
from ghostnets.data.masks import open_masks
from ghostnets.data.masks.regions import Region, RegionMask, bounds_of_counts, bounds_of_polygons, decode_counts
from ghostnets.errors import DataError

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def draw(polygons: list[list[float]], width: int, height: int) -> np.ndarray:
    bounds = bounds_of_polygons([np.array(p, float).reshape(-1, 2) for p in polygons], (width, height))
    return np.array(RegionMask("", (width, height), 0, (Region(1, bounds, False),)).draw())


def write_coco(
    root: Path, segmentations: list[Any], *, name: str = "train.json", size: tuple[int, int] = (6, 4)
) -> None:
    """One image of 6 x 4 pixels, a.png, with a region of each segmentation: class 3, or as a dict of fields says."""
    Image.new("RGB", (6, 4)).save(root / "a.png")
    annotations = [
        {"id": id_, "image_id": 1, "category_id": 3, "segmentation": value, "bbox": [0, 0, 2, 2]}
        | (value if isinstance(value, dict) and "counts" not in value else {})
        for id_, value in enumerate(segmentations, start=1)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / name).write_text(json.dumps(content))


def read(root: Path, **options: Any) -> list[list[int]]:
    source = open_masks(root, **options)
    return source.read_mask(source.splits["train"][0]).tolist()


def test_polygon_has_the_pixels_whose_centers_are_inside():
    assert draw([[1, 1, 4, 1, 4, 3, 1, 3]], 6, 4).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert draw([[0, 0, 4, 0, 0, 4]], 4, 4).tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # two squares that share an edge line, of one region; a self-crossing polygon is empty where it covers twice
    assert draw([[0, 0, 1, 0, 1, 2, 0, 2], [2, 0, 3, 0, 3, 2, 2, 2]], 4, 2).tolist() == [[1, 0, 1, 0]] * 2
    twice = [0, 0, 3, 0, 3, 3, 0, 3, 0, 0, 1, 1, 2, 1, 2, 2, 1, 2, 1, 1]
    assert draw([twice], 3, 3).tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    assert draw([[-1, -1, 7, -1, 7, 5, -1, 5]], 6, 4).all()
    assert not draw([[0.1, 0.1, 0.3, 0.1, 0.3, 0.3]], 6, 4).any()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_polygons_match_pycocotools():
    mask = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for case in range(300):
        width, height = random.integers(1, 60, 2).tolist()
        polygons = [
            (random.uniform(-0.05, 1.05, (random.integers(3, 12), 2)) * (width, height))
            .ravel()
            .round(case % 4)
            .tolist()
            for _ in range(random.integers(1, 4))
        ]
        encoded = mask.merge(mask.frPyObjects(polygons, height, width))
        assert np.array_equal(draw(polygons, width, height), mask.decode(encoded)), polygons
        counts = decode_counts(encoded["counts"].decode())
        region = Region(1, bounds_of_counts(counts, (width, height)), False)
        drawn = np.array(RegionMask("", (width, height), 0, (region,)).draw())
        assert np.array_equal(drawn, mask.decode(encoded))


def test_run_lengths_go_down_the_columns(tmp_path: Path):
    counts = [1, 2, 9, 12]
    write_coco(tmp_path, [{"size": [4, 6], "counts": counts}])
    expected = [[0, 0, 0, 1, 1, 1], [1, 0, 0, 1, 1, 1], [1, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert read(tmp_path) == expected
    write_coco(tmp_path, [{"size": [4, 6], "counts": "129:"}])  # the fourth is 12 - 2 = 10
    assert read(tmp_path) == expected
    # 40 = 8 + 32; 16 needs a second character, as its highest bit would be the sign; -1 and -16 as differences
    assert decode_counts("5X1`03O0@") == [5, 40, 16, 43, 15, 43, -1]
    with pytest.raises(ValueError, match="end within a number"):
        decode_counts("5X")


def test_classes_follow_the_ids_after_the_background(tmp_path: Path):
    dog = {"category_id": 7, "segmentation": [[0, 0, 2, 0, 2, 4, 0, 4]]}
    write_coco(tmp_path, [dog, [[2, 0, 3, 0, 3, 4, 2, 4]]])
    source = open_masks(tmp_path)
    assert source.table.names == ("background", "cat", "dog")
    assert source.notes[0] == (
        "COCO, train.json: pixels of no region are 0 background, and the classes are the categories by id:"
        " 1 cat (id 3), 2 dog (id 7)"
    )
    assert read(tmp_path) == [[2, 2, 1, 0, 0, 0]] * 4
    assert source.pixels["train"].tolist() == [[12, 4, 8]]
    content = json.loads((tmp_path / "train.json").read_text())
    content["categories"][0]["name"] = "Background"
    (tmp_path / "train.json").write_text(json.dumps(content))
    assert open_masks(tmp_path).table.names == ("cat", "Background")
    assert read(tmp_path) == [[1, 1, 0, 1, 1, 1]] * 4


def test_the_smallest_region_is_on_top_and_crowds_are_beneath(tmp_path: Path):
    small = {"category_id": 7, "segmentation": [[1, 1, 3, 1, 3, 2, 1, 2]]}
    large = {"category_id": 3, "segmentation": [[0, 0, 4, 0, 4, 3, 0, 3]]}
    crowd = {"category_id": 7, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [15, 2, 7]}}  # (3, 3), (4, 0)
    inside = {"category_id": 7, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [0, 1, 23]}}
    write_coco(tmp_path, [small, large, crowd, inside])
    expected = [[1, 1, 1, 1, 2, 0], [1, 2, 2, 1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 2, 0, 0]]
    assert read(tmp_path) == expected
    assert "2 crowds in train: of its class, beneath all other regions" in open_masks(tmp_path).notes


def test_every_broken_region_is_named_and_its_image_left_out(tmp_path: Path):
    whole = [0, 0, 6, 0, 6, 4]
    broken: dict[str, Any] = {
        "polygon 2 has 2 points; it needs at least three": [whole, [0, 0, 1, 1]],
        "polygon 1 has 7 numbers": [[*whole, 1]],
        "polygon 1 is not a list of finite numbers": [[0, 0, 1, float("nan"), 1, 1]],
        "polygon 1 extends 2.0 pixels beyond the image of 6 x 4": [[0, 0, 8, 0, 1, 1]],
        "it has neither polygons nor run lengths": [],
        "its run lengths sum to 23, and the image has 6 x 4 = 24": {"size": [4, 6], "counts": [3, 20]},
        "its run lengths have the size [6, 4], and the image [4, 6]": {"size": [6, 4], "counts": [24]},
        "its run lengths are not a list of non-negative integers": {"size": [4, 6], "counts": [25, -1]},
        "its compressed run lengths cannot be read: they end within a number": {"size": [4, 6], "counts": "X"},
        "they have the character '~'": {"size": [4, 6], "counts": "3~"},
        "a number in them has more than 60 bits": {"size": [4, 6], "counts": "o" * 99},
        "there is no category with the id 9": {"category_id": 9, "segmentation": [whole]},
        "there is no image with the id 2": {"image_id": 2, "segmentation": [whole]},
    }
    write_coco(tmp_path, list(broken.values()))
    with pytest.raises(DataError, match="13 broken labels") as error:
        open_masks(tmp_path)
    lines = str(error.value).splitlines()[1:]
    for id_, reason in enumerate(broken, start=1):
        assert any(f"train.json, annotation {id_}: " in line and reason in line for line in lines), reason
    write_coco(tmp_path, [[whole]], size=(4, 6))
    with pytest.raises(DataError, match=r"a\.png: the size in train\.json is 4 x 6, but the upright image has 6 x 4"):
        open_masks(tmp_path)
    write_coco(tmp_path, [broken["polygon 1 has 7 numbers"]])
    (tmp_path / "val").mkdir()
    write_coco(tmp_path / "val", [[whole], [[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]])
    (tmp_path / "val" / "train.json").rename(tmp_path / "val" / "val.json")
    source = open_masks(tmp_path, skip_broken=True)
    assert list(source.splits) == ["val"]  # half of a mask would teach background where there is an object
    assert "1 region in val too small to cover the centre of a pixel" in source.notes
    assert any("annotation 1: polygon 1 has 7 numbers" in sentence for sentence in source.broken)
    with pytest.raises(DataError, match=r"more than 20 pixels"):
        open_masks(tmp_path / "val", max_pixels=20)


def test_training_reads_coco_masks_on_request(tmp_path: Path):
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    for id_ in range(4):
        Image.new("RGB", (6, 4)).save(tmp_path / f"{id_}.png")
        content["images"].append({"id": id_, "file_name": f"{id_}.png", "width": 6, "height": 4})
        polygon = [0, 0, 3, 0, 3, 4, 0, 4]
        annotation = {"id": id_, "image_id": id_, "category_id": 3, "bbox": [0, 0, 3, 4], "segmentation": [polygon]}
        content["annotations"].append(annotation)
    (tmp_path / "coco.json").write_text(json.dumps(content))
    source = DataSpec(tmp_path / "coco.json", task="segment").open()
    assert (source.task, source.class_names) == ("segment", ("background", "cat", "dog"))
    assert source.class_counts == {"train": (3, 3, 0), "val": (1, 1, 0)}
    from ghostnets.preprocessing import Preprocessing

    image = source.load(Preprocessing(12, 12, fit="stretch")).val[0]
    assert image.shape == (4, 12, 12)
    assert image[3].tolist() == [[1] * 6 + [0] * 6] * 12
    guessed = DataSpec(tmp_path, task=None).open()
    assert guessed.task == "detect"
    assert guessed.notes[0].endswith(
        "(for a classifier: --task classify; on polygons and run lengths as masks: --task segment)"
    )
    before = source.identity
    content["annotations"][0]["segmentation"] = [[0, 0, 2, 0, 2, 4, 0, 4]]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    assert DataSpec(tmp_path / "coco.json", task="segment").open().identity != before
