"""Reading of labelled boxes: one set of images in three layouts, and every kind of broken label."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ghostnets.artefacts.boxes import MAX_BOXES
from ghostnets.data import DataSpec, find_task
from ghostnets.data.boxes import BoxSource, find_box_layout, open_boxes
from ghostnets.data.boxes.source import MAX_OBJECTS
from ghostnets.errors import DataError
from ghostnets.measure.detection import MAX_DETECTIONS
from ghostnets.preprocessing import Preprocessing

# Image: width, height and boxes (class, x_min, y_min, x_max, y_max); c has none.
IMAGES = {
    "a": (40, 20, [(0, 0, 0, 40, 20), (1, 10, 5, 20, 15)]),
    "b": (30, 50, [(2, 3, 4, 13, 44)]),
    "c": (16, 16, []),
    "d": (20, 20, [(1, 5, 5, 15, 10)]),
}
SPLITS = {"train": ["a", "b", "c"], "val": ["d"]}
CLASSES = ["cat", "dog", "fish"]


def write_image(path: Path, width: int, height: int, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path, **options)


def write_yolo(root: Path) -> Path:
    for split, names in SPLITS.items():
        for name in names:
            width, height, boxes = IMAGES[name]
            write_image(root / "images" / split / f"{name}.png", width, height)
            lines = [
                f"{label} {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} {(x1 - x0) / width} {(y1 - y0) / height}"
                for label, x0, y0, x1, y1 in boxes
            ]
            file = root / "labels" / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines))
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASSES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\ntest:\nnames:\n{names}")
    return root


def write_voc(root: Path) -> Path:
    for split, names in SPLITS.items():
        for name in names:
            width, height, boxes = IMAGES[name]
            write_image(root / "JPEGImages" / f"{name}.png", width, height)
            objects = "".join(
                f"<object><name>{CLASSES[label]}</name><difficult>{label // 2}</difficult><bndbox><xmin>{x0 + 1}</xmin>"
                f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
                for label, x0, y0, x1, y1 in boxes
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            file = root / "Annotations" / f"{name}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"<annotation><filename>{name}.png</filename>{size}{objects}</annotation>")
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    return root


def coco_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def write_coco(root: Path) -> Path:
    for split, names in SPLITS.items():
        images, annotations = [], []
        for name in names:
            width, height, boxes = IMAGES[name]
            write_image(root / f"{split}2017" / f"{name}.png", width, height)
            images.append({"id": ord(name), "file_name": f"{name}.png", "width": width, "height": height})
            for label, x0, y0, x1, y1 in boxes:
                annotation = {"id": len(annotations), "image_id": ord(name), "category_id": 10 * label + 3}
                annotations.append({**annotation, "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0})
        categories = [{"id": 10 * label + 3, "name": name} for label, name in enumerate(CLASSES)]
        file = coco_file(root, split)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {"YOLO": write_yolo, "Pascal VOC": write_voc, "COCO": write_coco}


def read_back(source: BoxSource) -> dict[str, dict[str, tuple]]:
    return {
        split: {
            image.path.stem: (
                *image.size,
                [(label, *box) for label, box in zip(image.labels, image.boxes.round(6), strict=True)],
            )
            for image in images
        }
        for split, images in source.splits.items()
    }


@pytest.mark.parametrize("layout", WRITERS)
def test_layouts_give_the_same_boxes(tmp_path: Path, layout: str):
    source = open_boxes(WRITERS[layout](tmp_path / "data"))
    assert (source.layout, source.class_names) == (layout, tuple(CLASSES))
    assert read_back(source) == {split: {name: IMAGES[name] for name in names} for split, names in SPLITS.items()}
    assert source.class_counts == {"train": (1, 1, 1), "val": (0, 1, 0)}
    assert "train 3 (1 without boxes), val 1 (0 without boxes)" in source.describe()[0]
    assert "no box of cat, fish in val" in source.notes
    areas = np.concatenate([image.areas for image in source.splits["train"]])
    assert areas == pytest.approx(np.array([800, 100, 400]))


def test_description_file_and_single_json_can_be_given(tmp_path: Path):
    yolo, coco = write_yolo(tmp_path / "yolo"), write_coco(tmp_path / "coco")
    assert open_boxes(yolo / "data.yaml").splits.keys() == SPLITS.keys()
    assert list(open_boxes(coco_file(coco, "val")).splits) == ["train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 0.5 0.5 0.5 0.5", "line 1: class 7 is unknown; there are classes 0 to 2"),
        ("-1 0.5 0.5 0.5 0.5", "class -1 is unknown"),
        ("0.5 0.5 0.5 0.5 0.5", "0.5 is not a class number"),
        ("\n0 0.9 0.5 0.5 0.5", "line 2: the box 26, 5 to 46, 15 extends 6.0 pixels beyond the image of 40 x 20"),
        ("0 0.5 0.5 0 0.5", "the box has a width of 0 and a height of 0.5"),
        ("0 0.5 nan 0.5 0.5", "a value is not finite"),
        ("0 0.5 0.5 0.5", "4 numbers; a box has 5"),
        ("0 0.5 0.5 0.5 0.5 0.9", "6 numbers; a box has 5"),
        ("0 20 10 40 20", "the box extends to 40 times the image size; values are relative"),
        ("cat 0.5 0.5 0.5 0.5", "'cat 0.5 0.5 0.5 0.5' is not a class and four numbers"),
        ("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5", r"line 2: it repeats the box and class of .*a\.txt, line 1"),
        (b"\xff\xfe\xff", "cannot be read .it is not UTF-8"),
    ],
)
def test_broken_lines_are_named_and_left_out_on_request(tmp_path: Path, text: str | bytes, message: str):
    root = write_yolo(tmp_path)
    file = root / "labels" / "train" / "a.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=f"has 1 broken label; correct it(.|\n)*{message}"):
        open_boxes(root)
    source = open_boxes(root, skip_broken=True)
    is_readable = isinstance(text, str)  # without its labels an image is no background
    assert [image.path.stem for image in source.splits["train"]] == ["a", "b", "c"][not is_readable :]
    assert [sentence.startswith(str(file)) for sentence in source.broken] == [True]
    assert source.describe()[-1] == f"left out: {source.broken[0]}"


def test_rounding_is_clipped_and_polygons_give_their_boxes(tmp_path: Path):
    root = write_yolo(tmp_path)
    (root / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 1.04 1\r\n1 0.1 0.2 0.5 0.1 0.3 0.9\r\n")
    source = open_boxes(root)
    assert read_back(source)["train"]["a"][2] == [(0, 0, 0, 40, 20), (1, 4, 2, 20, 18)]
    assert "1 polygon, read as bounding boxes" in source.notes


def test_missing_and_damaged_images_are_named(tmp_path: Path):
    root = write_yolo(tmp_path / "yolo")
    (root / "images" / "train" / "b.png").unlink()
    (root / "images" / "train" / "c.png").write_bytes(b"nothing")
    (root / "labels" / "val" / "d.txt").unlink()
    with pytest.raises(DataError, match="has 2 broken labels") as error:
        open_boxes(root)
    assert f"{root / 'labels' / 'train' / 'b.txt'}: there is no image of this name" in str(error.value)
    assert "c.png cannot be read" in str(error.value)
    source = open_boxes(root, skip_broken=True)
    assert [sentence.count("c.png") for sentence in source.broken if "b.txt" not in sentence] == [1]
    assert [image.path.stem for image in source.splits["train"]] == ["a"]
    assert (
        f"1 of 1 image without a label file (there is no {root}/labels/val/d.txt): used as background" in source.notes
    )
    for layout, change, message in [
        ("Pascal VOC", lambda r: (r / "JPEGImages" / "b.png").unlink(), r"b\.xml: there is no image b\.png"),
        ("COCO", lambda r: (r / "train2017" / "b.png").unlink(), r"2017\.json: there is no image b\.png"),
        (
            "COCO",
            lambda r: write_image(r / "train2017" / "b.png", 50, 30),
            r"2017\.json is 30 x 50, but .* has 50 x 30",
        ),
        ("Pascal VOC", lambda r: write_image(r / "JPEGImages" / "b.png", 50, 30), "its size is 30 x 50"),
    ]:
        root = WRITERS[layout](tmp_path / f"{len(list(tmp_path.iterdir()))}")
        change(root)
        with pytest.raises(DataError, match=message):
            open_boxes(root)


def test_boxes_belong_to_the_upright_image(tmp_path: Path):
    root = write_yolo(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    write_image(root / "images" / "train" / "a.png", 20, 40, exif=exif)
    assert read_back(open_boxes(root))["train"]["a"] == IMAGES["a"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>13</xmax>", "<xmax>thirteen</xmax>", "object 1: bndbox has 4, 5, thirteen, 44; it needs the numbers"),
        ("<name>fish</name>", "", "object 1: it has no class name"),
        ("</annotation>", "", "not valid XML"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "it declares entities"),
        ("<xmax>13</xmax>", "<xmax>3</xmax>", "the box 3, 4 to 3, 44 has no area"),
    ],
)
def test_broken_xml_is_named(tmp_path: Path, old: str, new: str, message: str):
    root = write_voc(tmp_path)
    file = root / "Annotations" / "b.xml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"b\.xml.*{message}"):
        open_boxes(root)


def test_voc_notes(tmp_path: Path):
    root = write_voc(tmp_path)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nmissing\n")
    with pytest.raises(DataError, match=r"train\.txt: missing has no label file"):
        open_boxes(root)
    notes = open_boxes(root, skip_broken=True).notes
    assert "left out: 2 label files that ImageSets does not list" in notes
    assert "1 objects are marked as difficult and used like all others" in notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][1].update(image_id=1), "annotation 1: there is no image with the id 1"),
        (lambda c: c["annotations"][1].update(category_id=1), "annotation 1: there is no category with the id 1"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "bbox is not a list of four numbers"),
        (
            lambda c: c["annotations"][1].update(bbox=[30, 5, 20, 10]),
            "extends 10.0 pixels beyond the image of 40 x 20",
        ),
        (lambda c: c["annotations"][1].update(area=float("nan")), "a value is not finite"),
        (lambda c: c["annotations"][1].update(area="80"), "its area is '80', not a number"),
        (lambda c: c["annotations"][1].update(area=-1), "its area is -1"),
        (lambda c: c["annotations"][1].update(bbox=[10**400, 5, 20, 10]), "bbox is not a list of four numbers"),
        (lambda c: c["annotations"][1].update(image_id="97"), "annotation 1: there is no image with the id '97'"),
        (lambda c: c["images"][1].update(id=97), "each image needs a unique id"),
        (lambda c: c["images"].append({**c["images"][1], "id": 1}), "b.png: it is listed more than once in train"),
        (lambda c: c["categories"].append({"id": 3}), "each category needs a unique integer id and a name"),
        (lambda c: c.update(images=None), "it needs lists of images, annotations and categories"),
    ],
)
def test_broken_json_is_named(tmp_path: Path, change: Callable[[dict], object], message: str):
    root = write_coco(tmp_path)
    content = json.loads(coco_file(root, "train").read_text())
    change(content)
    coco_file(root, "train").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        open_boxes(root)


def test_coco_files_of_other_programs_are_read(tmp_path: Path):
    root = write_coco(tmp_path)
    content = json.loads(coco_file(root, "train").read_text())
    for image in content["images"]:
        image.update(file_name=f"C:\\data\\train2017\\{image['file_name']}", width=None, height=str(image["height"]))
    for annotation in content["annotations"]:
        annotation.update(image_id=float(annotation["image_id"]))
    coco_file(root, "train").write_text("\ufeff" + json.dumps(content))
    source = open_boxes(root)
    assert read_back(source)["train"] == {name: IMAGES[name] for name in SPLITS["train"]}
    assert any("3 images of instances_train2017.json not found as written" in note for note in source.notes)


def test_crowds_and_areas_of_coco_are_kept(tmp_path: Path):
    root = write_coco(tmp_path)
    content = json.loads(coco_file(root, "train").read_text())
    content["annotations"][0].update(iscrowd=1, area=700.5)
    coco_file(root, "train").write_text(json.dumps(content))
    source = open_boxes(root)
    image = source.splits["train"][0]
    assert image.is_crowd.tolist() == [True, False]
    assert image.areas.tolist() == [700.5, 100]
    assert source.class_counts["train"] == (0, 1, 1)


def test_foreign_paths_lists_and_missing_splits_are_reported(tmp_path: Path):
    root = write_yolo(tmp_path)
    (root / "some.txt").write_text("images/train/a.png\nimages/train/none.png\n")
    names = "names: [cat, dog, fish]\nnc: 3\n"
    (root / "data.yaml").write_text(f"train: some.txt\nval: /home/me/data/images/val\ntest: images/test\n{names}")
    with pytest.raises(DataError, match=r"some\.txt: there is no image images/train/none\.png"):
        open_boxes(root)
    source = open_boxes(root, skip_broken=True)
    assert {split: len(images) for split, images in source.splits.items()} == {"train": 1, "val": 1}
    assert "/home/me/data/images/val of data.yaml does not exist; images/val next to it is used instead" in source.notes
    assert "left out: images/test of data.yaml, which does not exist" in source.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b]\nnc: 3\ntrain: images/train", "nc: 3 and 2 names"),
        ("names: {1: a}\ntrain: images/train", "no usable names"),
        ("names: [a, b, c]", "names no images"),
        ("names: [a, b", "not valid YAML"),
        ("names: [yes, no]\ntrain: images/train", "the name of class 0 is read as True; write it in quotes"),
        ("names: [a, b, a]\ntrain: images/train", "the classes 0 and 2 are both named 'a'"),
        ("names: [a, ' ', c]\ntrain: images/train", "class 1 has no name"),
        ("names: [a, b, c]\ntrain: images/other", "names no images .left out: images/other of data.yaml"),
        ("names: [a, b, c]\ntrain: images/train\nkpt_shape: four", "has kpt_shape: four"),
    ],
)
def test_unusable_descriptions_are_rejected(tmp_path: Path, text: str, message: str):
    root = write_yolo(tmp_path)
    (root / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_boxes(root / "data.yaml")


def test_unknown_layouts_are_rejected(tmp_path: Path):
    with pytest.raises(DataError, match="there is no"):
        open_boxes(tmp_path / "nothing")
    with pytest.raises(DataError, match="has no labelled boxes in a recognised layout; pass a folder"):
        open_boxes(tmp_path)
    write_yolo(tmp_path)
    (tmp_path / "other.yml").write_text("names: [a]")
    assert open_boxes(tmp_path).layout == "YOLO"  # by data.yaml
    (tmp_path / "data.yaml").rename(tmp_path / "third.yaml")
    with pytest.raises(DataError, match=r"has other\.yml, third\.yaml; pass one of these files"):
        open_boxes(tmp_path)


@pytest.mark.parametrize("is_tall", [False, True])
def test_boxes_of_elongated_training_images_lie_in_the_middle_that_is_read(tmp_path: Path, is_tall: bool):
    pixels = np.zeros((40, 400, 3), np.uint8)
    pixels[10:30, 180:220] = 255  # the object in the middle; another one is at the left end
    lines = [[0.5, 0.5, 0.1, 0.5], [0.05, 0.5, 0.1, 0.5]]
    if is_tall:
        pixels, lines = pixels.transpose(1, 0, 2), [[y, x, h, w] for x, y, w, h in lines]
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / split / f"{split}.png")
        rows = [" ".join(map(str, [0, *line])) for line in lines]
        (tmp_path / split / f"{split}.txt").write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text("train: train\nval: val\nnames: [dot]\n")
    folder = DataSpec(tmp_path, task="detect").open()
    assert "1 training image more elongated than 4 : 1, of which the middle is trained on" in folder.notes
    splits = folder.load(Preprocessing.for_boxes(32))
    image, [boxes] = splits.train[0], splits.train.labels
    height, width = image.shape[1:]
    assert sorted((height, width)) == [48, 192]
    x_min, y_min, x_max, y_max = (boxes[0, :4] * torch.tensor([width, height, width, height])).round().int().tolist()
    inside = image[:, y_min + 1 : y_max - 1, x_min + 1 : x_max - 1]
    assert (inside > 200).all()
    assert image.float().sum() == pytest.approx(255 * 3 * (x_max - x_min) * (y_max - y_min), rel=0.1)
    assert len(boxes) == 1
    assert len(splits.val.labels[0]) == 2  # the whole image is stretched there


def test_images_with_more_boxes_than_are_found_are_noted(tmp_path: Path):
    assert (MAX_OBJECTS, MAX_OBJECTS) == (MAX_BOXES, MAX_DETECTIONS)
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png\n")
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [dot]\n")
    for number, is_noted in ((100, False), (101, True)):
        rows = [f"0 {0.1 + index * 0.005} 0.5 0.1 0.1" for index in range(number)]
        (tmp_path / "a.txt").write_text("\n".join(rows))
        notes = open_boxes(tmp_path).notes
        assert any("up to 101 boxes, and at most 100 objects are found" in note for note in notes) == is_noted


@pytest.mark.parametrize("place", ["labels", "labels/train", "train/labels"])
def test_labels_without_data_yaml_are_named_with_what_is_missing(tmp_path: Path, place: str):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "a.txt").write_text("")
    (tmp_path / place / "b.txt").write_text("a photo of a cat\n")
    assert find_box_layout(tmp_path) is None
    (tmp_path / place / "c.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    for find in (open_boxes, find_box_layout, find_task):
        with pytest.raises(DataError, match=rf"as YOLO writes them \({place}/c.txt\), but no data.yaml"):
            find(tmp_path)


def test_lists_divide_images_of_one_folder_also_with_labels_beside_them(tmp_path: Path):
    for root, labels in ((tmp_path / "apart", "labels"), (tmp_path / "beside", "images")):
        for name in "abc":
            write_image(root / "images" / f"{name}.png", 20, 20)
            (root / labels).mkdir(exist_ok=True)
            (root / labels / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5")
        (root / "images" / "train.txt").write_text("a.png\n\n")
        (root / "val.txt").write_text("D:\\data\\images\\b.png\r\n")
        (root / "data.yaml").write_text("train: images/train.txt\nval: val.txt\nnames: [cat]")
        source = open_boxes(root)
        assert source.class_counts == {"train": (1,), "val": (1,)}
        assert source.notes == (
            r"1 path of val.txt not found as written, such as D:\data\images\b.png: taken by the end of the path, next"
            " to data.yaml",
            f"left out: 1 image that no label and no list names, such as {root}/images/c.png",
        )
    (root / "images" / "train.txt").write_text("a.png\na.png\nb.png\ntrain.txt\n")
    (root / "images" / "z.txt").write_text("")
    with pytest.raises(DataError, match="has 3 broken labels") as error:
        open_boxes(root)
    for message in ("train.txt is not an image file", "a.png: it is listed more than once", "z.txt: there is no image"):
        assert message in str(error.value)
    source = open_boxes(root, skip_broken=True)
    assert source.class_counts == {"train": (2,), "val": (1,)}
    assert any(note.startswith("1 image both in train and in val, such as") for note in source.notes)


def test_keypoints_are_not_read_as_polygons(tmp_path: Path):
    root = write_yolo(tmp_path)
    (root / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.9 0.9 0.1 0.1")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog, fish]\nkpt_shape: [2, 2]")
    source = open_boxes(root)
    assert read_back(source)["train"]["a"][2] == [(0, 10, 5, 30, 15)]
    assert "the keypoints of data.yaml (kpt_shape) are not read, only the boxes" in source.notes


def test_voc_layouts_in_other_cases_and_lists(tmp_path: Path):
    root = write_voc(tmp_path)
    write_image(root / "JPEGImages" / "z.png", 9, 9)
    (root / "Annotations").rename(root / "annotations")
    (root / "JPEGImages").rename(root / "images")
    (root / "ImageSets" / "Segmentation").mkdir()
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("c")
    main = root / "ImageSets" / "Main"
    (main / "train.txt").rename(main / "trainval.txt")
    (main / "trainval.txt").write_text("a.png\nJPEGImages\\b.xml 1\nc")
    source = open_boxes(root)
    assert read_back(source) == {split: {name: IMAGES[name] for name in names} for split, names in SPLITS.items()}
    assert "trainval.txt is used as train, as Main has no train.txt" in source.notes
    assert f"left out: 1 image that no label and no list names, such as {root}/images/z.png" in source.notes


def test_voc_folders_of_splits_beside_a_folder_of_other_annotations(tmp_path: Path):
    root = write_voc(tmp_path)
    for split, names in SPLITS.items():
        (root / split).mkdir()
        for name in names:
            (root / "Annotations" / f"{name}.xml").rename(root / split / f"{name}.xml")
            (root / "JPEGImages" / f"{name}.png").rename(root / split / f"{name}.png")
    (root / "Annotations" / "notes.json").write_text("{}")
    expected = {split: {name: IMAGES[name] for name in names} for split, names in SPLITS.items()}
    assert read_back(open_boxes(root)) == expected
    (root / "train").rename(root / "test")
    assert sorted(open_boxes(root).splits) == ["test", "val"]


def test_many_broken_labels_are_counted(tmp_path: Path):
    root = write_yolo(tmp_path)
    (root / "labels" / "train" / "a.txt").write_text("\n".join(["9 0.5 0.5 0.1 0.1"] * 1000))
    with pytest.raises(DataError, match=r"has 1000 broken labels; correct them(.|\n)*and 980 more"):
        open_boxes(root)
