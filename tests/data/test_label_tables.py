"""Tables of labels as people write them: how each is read, or why it is rejected."""

import codecs
from pathlib import Path

import pytest
from test_layouts import build, read

from ghostnets.data import DataSpec, describe_source, open_folder
from ghostnets.errors import DataError

FILES = "img:4 img/more:2"
ROWS = "img/0.png,cat\nimg/1.png,dog\nimg/2.png,cat\nimg/3.png,dog\n"
PAIRS = [row.split(",") for row in ROWS.split()]
EXPECTED = "cat,dog: train 1/1 val 1/1"


def write(root: Path, text: str, name: str = "labels.csv") -> Path:
    build(root, FILES)
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return root / name


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (f"path,label\n{ROWS}", None),
        (ROWS, "no header: column 1 is read as the path, column 2 as the label"),
        (f"\ufeffpath,label\r\n{ROWS}".replace("\n", "\r\n"), None),
        (f"path;label\n{ROWS}".replace(",", ";"), None),
        (f"path\tlabel\n{ROWS}".replace(",", "\t"), None),
        ("Label,File Name,width\n" + "".join(f"{label},{path},8\n" for path, label in PAIRS),
         "the columns File Name, Label are read, width are not"),
        (",image_id,breed\n" + "".join(f"{i},{path[:-4]},{label}\n" for i, (path, label) in enumerate(PAIRS)),
         "img/0 is found by its name, at"),
        (f"path,label\n{ROWS}".replace("img/", "img\\"), "found by its name"),
        (f"path,label\n{ROWS}".replace("img/", "/data/pets/img/"), "found by its name"),
        ("".join(f'"{path}","{label}"\n' for path, label in PAIRS), "no header"),
        (f"a,b\n{ROWS}", None),
        (f"path,label\n{ROWS}img/0.png,cat\n", "a row naming an image again"),
        ("path,cat,dog\nimg/0.png,1,0\nimg/1.png,0,1\nimg/2.png,1,0\nimg/3.png,0,1\n", None),
    ],
)  # fmt: skip
def test_table_is_read(tmp_path: Path, text: str, note: str | None) -> None:
    table = write(tmp_path, text)
    assert read(table, val_share=0.5) == EXPECTED
    assert read(tmp_path, val_share=0.5) == EXPECTED  # img/ and img/more/ have no classes of their own in common
    if note is not None:
        assert any(note in sentence for sentence in describe_source(open_folder(table)))


def test_table_of_utf16_is_read(tmp_path: Path) -> None:
    table = write(tmp_path, "")
    table.write_bytes(codecs.BOM_UTF16_LE + f"path,label\n{ROWS}".encode("utf-16-le"))
    assert read(table, val_share=0.5) == EXPECTED


def test_unnamed_images_are_named(tmp_path: Path) -> None:
    notes = describe_source(open_folder(write(tmp_path, f"path,label\n{ROWS}")))
    assert "left out: img/more/0.png (not in labels.csv, the first of 2)" in notes


def test_text_list_with_blanks_is_read(tmp_path: Path) -> None:
    table = write(tmp_path, ROWS.replace(",", " ").replace("cat", "10").replace("dog", "9"), "list.txt")
    assert read(table, val_share=0.5) == "9,10: train 1/1 val 1/1"  # numbers by value


def test_text_list_with_blanks_in_names_is_read(tmp_path: Path) -> None:
    write(tmp_path, "img/0.png 0\n", "list.txt")
    (tmp_path / "img" / "1.png").rename(tmp_path / "img" / "7 (2).png")
    (tmp_path / "list.txt").write_text("img/7 (2).png 1\nimg/0.png 0\nimg/2.png 0\nimg/3.png 1\n")
    assert read(tmp_path / "list.txt") == "0,1: train 1/1 val 1/1"


def test_numeric_labels_are_not_mistaken_for_image_names(tmp_path: Path) -> None:
    build(tmp_path, "img:4 img/more:2")
    (tmp_path / "labels.csv").write_text("".join(f"{n % 2},img/{n}.png\n" for n in range(4)))
    assert read(tmp_path / "labels.csv", val_share=0.5) == "0,1: train 1/1 val 1/1"


def test_column_of_splits_is_read(tmp_path: Path) -> None:
    table = write(
        tmp_path, f"path,label,split\n{PAIRS[0][0]},a,Train\nimg/1.png,b,train\nimg/2.png,a,valid\nimg/3.png,b,test\n"
    )
    assert read(table) == "a,b: train 1/1 val 1/0 test 0/1"


@pytest.mark.parametrize(
    ("header", "cells", "reading"),
    [
        (
            "label,is_valid",
            "a,False b,False a,True b,True",
            "train 1/1 val 1/1",
        ),  # as fastai's ImageDataLoaders.from_csv
        ("a,b,isValid", "1,0,0 0,1,0 1,0,1 0,1,1", "train 1/1 val 1/1"),  # no class of its own
        ("label,is_train", "a,1.0 b,1.0 a,0.0 b,0.0", "train 1/1 val 1/1"),
    ],
)
def test_column_of_true_and_false_is_read_as_split(tmp_path: Path, header: str, cells: str, reading: str) -> None:
    rows = [f"img/{number}.png,{row}" for number, row in enumerate(cells.split())]
    table = write(tmp_path, "\n".join([f"path,{header}", *rows]))
    assert read(table, val_share=0.5) == f"a,b: {reading}"
    assert f"labels.csv: {header.rpartition(',')[2]} is read as the split, true as" in open_folder(table).notes[0]


@pytest.mark.parametrize("give", ["", "train.csv"])
def test_tables_of_splits_are_read(tmp_path: Path, give: str) -> None:
    write(tmp_path, "id,label\n0,a\n1,b\n", "train.csv")
    build(tmp_path, "train:2 val:2 test:2")
    (tmp_path / "img").rename(tmp_path / "val" / "sub")
    (tmp_path / "train.csv").write_text("path,label\ntrain/0.png,a\ntrain/1.png,b\n")
    (tmp_path / "val.csv").write_text("path,label\nval/0.png,a\nval/1.png,b\n")
    (tmp_path / "test.csv").write_text("path\ntest/0.png\n")
    assert read(tmp_path / give) == "a,b: train 1/1 val 1/1"
    note, unlisted = open_folder(tmp_path / give).notes
    assert note.startswith("left out: test.csv (")
    assert "has a single column" in note
    assert unlisted == "left out: test/0.png (not in train.csv, val.csv, the first of 8)"


def test_names_of_a_table_of_a_split_are_those_in_its_folder(tmp_path: Path) -> None:
    build(tmp_path, "train:4 test:4")  # as of competitions: train.csv, and numbers that occur in train/ and test/
    (tmp_path / "train.csv").write_text("Image,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    assert read(tmp_path, val_share=0.5) == "a,b: train 1/1 val 1/1"
    assert any(
        "0.png is found by its name, at " in note and "train/0.png" in note for note in open_folder(tmp_path).notes
    )


def test_location_of_table_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write(tmp_path, f"path,label\n{ROWS}")
    monkeypatch.chdir(tmp_path)
    spec = DataSpec("labels.csv")
    assert spec.location == str(table)
    assert spec.open().name == tmp_path.name


def test_class_folders_that_agree_with_table_are_read(tmp_path: Path) -> None:
    build(tmp_path, "cat:4 dog:4")
    (tmp_path / "labels.csv").write_text("path,label\ncat/0.png,7\ndog/0.png,8\n")
    assert read(tmp_path) == "cat,dog: train 3/3 val 1/1"


def test_predictions_next_to_class_folders_are_not_labels(tmp_path: Path) -> None:
    build(tmp_path, "cat:4 dog:4")
    (tmp_path / "predictions.csv").write_text("path,class\ncat/0.png,cat\ncat/1.png,dog\n")
    assert read(tmp_path) == "cat,dog: train 3/3 val 1/1"
    (note,) = open_folder(tmp_path).notes
    assert note == f"left out: predictions.csv in {tmp_path} (the images are labelled by their folders)"


def test_files_that_could_hold_labels_or_splits_are_named(tmp_path: Path) -> None:
    build(tmp_path, "cat:4 dog:4")
    for name in ("images.txt", "train_test_split.txt", "attributes.json", "README.md", ".hidden"):
        (tmp_path / name).write_text("1 0\n")
    (note,) = open_folder(tmp_path).notes
    assert note.startswith("left out: attributes.json, images.txt, train_test_split.txt in ")


def test_table_in_each_split_folder_is_read(tmp_path: Path) -> None:
    build(tmp_path, "train:5 valid:2")
    (tmp_path / "train" / "_classes.csv").write_text("filename, cat, dog\n0.png,1,0\n1.png,0,1\n2.png,1,1\n3.png,0,0\n")
    (tmp_path / "valid" / "_classes.csv").write_text("filename, cat, dog\n0.png,1,0\n1.png,0,1\n")
    assert read(tmp_path) == "cat,dog: train 2/2 val 1/1"
    source = open_folder(tmp_path)
    assert source.multi_label
    assert source.split_sizes == {"train": 4, "val": 2}
    assert "left out: 4.png (not in _classes.csv)" in source.notes


def test_images_that_no_table_of_a_pair_lists_are_named(tmp_path: Path) -> None:
    write(tmp_path, f"path,label\n{ROWS}", "train.csv")
    (tmp_path / "val.csv").write_text("path,label\nimg/more/0.png,cat\n")
    assert "left out: img/more/1.png (not in train.csv, val.csv)" in open_folder(tmp_path).notes


def test_classes_in_file_names_are_told_with_the_way(tmp_path: Path) -> None:
    for name in ("Maine_Coon_1", "Maine_Coon_2", "pug_1", "pug_10"):
        build(tmp_path, ".:1")
        (tmp_path / "0.png").rename(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"names hold the classes \(Maine_Coon, pug, \.\.\.\), docs/training.md"):
        open_folder(tmp_path)


def test_files_without_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"x")
    with pytest.raises(DataError, match=r"contains no images \(left out: data_batch_1 in "):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"path,label\n{ROWS}img/7.png,cat\n", "names a file that does not exist (line 6: img/7.png)"),
        (f"path,label\n{ROWS}img/3.png,cat\n", "img/3.png has two labels, dog and cat"),
        (f"path,label\n{ROWS}img/more/0.png,\n", "names an image without a label (line 6: img/more/0.png)"),
        (f"path,label\n{ROWS}img/more/0.png,bird\n", "class bird has a single image"),
        (f"path,label\n{ROWS}".replace("dog", "cat"), "has a single class (cat)"),
        (f"path,label,split\n{ROWS}".replace(".png,cat", ".png,cat,train").replace(",dog", ",dog,later"),
         "line 3: the split is 'later'"),
        ("path,label,is_valid\nimg/0.png,a,True\nimg/1.png,a,perhaps\n", "line 3: is_valid is 'perhaps'"),
        (f"path,label\n{ROWS}0.png,cat\n", "'0.png' can be img/0.png or img/more/0.png"),
        (f"path,label\n{ROWS}img/more/0.png,cat,brown\n", "has 2 columns, but 3 in line 6"),
        (f"path,colour,weight\n{ROWS}".replace(",cat", ",x,3").replace(",dog", ",y,4"), "does not say which column"),
        ("path,label\n", "has a first line, but no rows"),
        ("width,height\n30,40\n50,60\n", "has no column of image paths (it has width, height)"),
        ("img/0.png\nimg/1.png\n", "has a single column"),
        ("path,a,b\n" + "img/0.png,0,1\nimg/1.png,1,0\n" * 101 + "img/2.png,1,-1\n", "line 204: b is '-1'"),
        ("\n", "is empty"),
        ("\0\0\0\0", "is not a text file"),
    ],
)  # fmt: skip
def test_table_is_rejected_with_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_folder(write(tmp_path, text))
    assert message in str(error.value)


def test_classes_of_columns_without_a_mark_are_named(tmp_path: Path) -> None:
    """As a class with a folder but without images, it is no class of the network, and that is said."""
    rows = "".join(f"{path},{int(label == 'cat')},0,{int(label == 'dog')}\n" for path, label in PAIRS)
    table = write(tmp_path, f"path,cat,cow,dog\n{rows}")
    assert read(table, val_share=0.5) == EXPECTED
    assert "left out: the classes of columns without a 1: cow" in open_folder(table, val_share=0.5).notes


def test_labels_that_differ_only_in_case_are_named(tmp_path: Path) -> None:
    table = write(tmp_path, f"path,label\n{ROWS}".replace("dog", "Cat"))
    assert open_folder(table, val_share=0.5).class_names == ("Cat", "cat")
    assert "the classes Cat and cat differ only in case" in open_folder(table, val_share=0.5).notes


def test_missing_files_are_left_out_on_request(tmp_path: Path) -> None:
    table = write(tmp_path, f"path,label\n{ROWS}img/7.png,cat\n")
    assert read(table, skip_corrupt=True, val_share=0.5) == EXPECTED
    assert any("names a file that does not exist" in note for note in open_folder(table, skip_corrupt=True).notes)


def test_folder_with_two_readings_is_rejected(tmp_path: Path) -> None:
    write(build(tmp_path, "more:2"), f"path,label\n{ROWS}more/0.png,cat\nmore/1.png,dog\n")
    with pytest.raises(DataError, match=r"two ways: by its folders \(img, more\), or by labels.csv"):
        open_folder(tmp_path)


@pytest.mark.parametrize("rows", ["a/0.png,b\n", "a/0.png,b\na/1.png,b\nb/0.png,a\n"])
def test_table_that_names_another_class_folder_is_rejected(tmp_path: Path, rows: str) -> None:
    build(tmp_path, "a:2 b:2")
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    with pytest.raises(DataError, match=r"in two ways: by its folders \(a, b\), or by labels.csv"):
        open_folder(tmp_path)


def test_formats_that_are_not_read_are_named_by_tables(tmp_path: Path) -> None:
    table = write(tmp_path, f"path,label\n{ROWS}img/4.jxl,cat\n")
    (tmp_path / "img" / "4.jxl").touch()
    with pytest.raises(DataError, match=r"names a file of a format that is not read \(line 6: img/4.jxl\)"):
        open_folder(table)
    table.write_text(f"path,label\n{ROWS}")
    assert any(".jxl file that cannot be read" in note for note in open_folder(table).notes)


def test_lists_named_like_splits_are_read_as_of_paddleclas(tmp_path: Path) -> None:
    build(tmp_path, "img:4")
    (tmp_path / "train_list.txt").write_text("img/0.png 0\nimg/1.png 1\n")
    (tmp_path / "val_list.txt").write_text("img/2.png 0\nimg/3.png 1\n")
    assert read(tmp_path) == read(tmp_path / "train_list.txt") == "0,1: train 1/1 val 1/1"
    build(tmp_path, "more:4")
    with (tmp_path / "train_list.txt").open("a") as table:
        table.write("more/0.png 0\nmore/1.png 1\n")
    with pytest.raises(DataError, match=r"by its folders \(img, more\), or by train_list.txt"):
        open_folder(tmp_path)


def test_table_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    table = write(tmp_path, "")
    table.write_bytes(f"path,label\n{ROWS}".replace("cat", "Käfer").encode("latin-1"))
    with pytest.raises(DataError, match=r"labels.csv, line 2: it is not UTF-8; save the table as UTF-8"):
        open_folder(table)


TAGS = [("cat", "outside"), ("dog",), ("cat",), ("dog", "outside"), (), ("dog",)]
NAMED = [f"img/{i}.png" for i in range(4)] + ["img/more/0.png", "img/more/1.png"]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n" + "".join(f"{n},{';'.join(t)}\n" for n, t in zip(NAMED, TAGS, strict=True)),
        "Image Index,Finding Labels,Sex\n" + "".join(f"{n},{'|'.join(t)},F\n"
        for n, t in zip(NAMED, TAGS, strict=True)),
        "fname,labels\n" + "".join(f'{n},"{",".join(t)}"\n' for n, t in zip(NAMED, TAGS, strict=True)),
        "image_name,tags\n" + "".join(f"{n},{' '.join(t)}\n" for n, t in zip(NAMED, TAGS, strict=True)),
        "path,cat,dog,outside\n" + "".join(
            f"{n},{','.join(str(int(c in t)) for c in ('cat', 'dog', 'outside'))}\n"
            for n, t in zip(NAMED, TAGS, strict=True)
        ),
    ],
    ids=["semicolons", "bars", "commas", "blanks", "columns"],
)  # fmt: skip
def test_several_labels_per_image_are_read(tmp_path: Path, text: str) -> None:
    source = open_folder(write(tmp_path, text), val_share=0.34)
    assert source.multi_label
    assert source.class_names == ("cat", "dog", "outside")
    assert source.split_sizes == {"train": 4, "val": 2}
    found = {
        str(path.relative_to(tmp_path)): tuple(source.class_names[i] for i in label)
        for files in source.splits.values()
        for path, label in zip(files.paths, files.labels, strict=True)
    }
    assert found == dict(zip(NAMED, TAGS, strict=True))
    assert any("multi-label: 1.2 labels per image on average, up to 2; 1 image without any" in n for n in source.notes)


def test_numbers_separated_by_blanks_are_several_labels(tmp_path: Path) -> None:
    source = open_folder(write(tmp_path, "Id,Target\nimg/0,16 0\nimg/1,7\nimg/2,0 7\nimg/3,16\n"), val_share=0.5)
    assert source.multi_label
    assert source.class_names == ("0", "7", "16")


def test_label_of_a_single_image_is_trained_on_and_named(tmp_path: Path) -> None:
    source = open_folder(write(tmp_path, f"path,label\n{ROWS}img/more/0.png,cat;bird\n"), val_share=0.3)
    bird = source.class_names.index("bird")
    assert any(bird in label for label in source.splits["train"].labels)
    assert "a single image has the label bird: it is trained on, and the label is not validated" in source.notes


def test_table_without_any_validation_label_is_rejected(tmp_path: Path) -> None:
    text = "path,label,split\nimg/0.png,a;b,train\nimg/1.png,b,train\nimg/2.png,,val\n"
    with pytest.raises(DataError, match=r"no image of the split val of .* has a label"):
        open_folder(write(tmp_path, text))
