import json
from typing import Any

import pytest

from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.errors import ArtefactError
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(16, 18, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def describe(**changes: Any) -> Description:
    values: dict[str, Any] = {
        "architecture": "ghostnet_050",
        "arguments": {"num_classes": 2},
        "class_names": ("cat", "dög"),
        "preprocessing": PREPROCESSING,
    }
    return Description(**{**values, **changes})


def test_json_round_trip():
    description = describe(precision="int8", any_size=True, versions={"torch": "1"}, source_sha256="ab")
    assert Description.from_json(description.to_json()) == description
    assert Description.from_metadata({METADATA_KEY: description.to_json()}) == description
    assert description.preprocessing == PREPROCESSING
    assert "temperature" not in json.loads(description.to_json())
    calibrated = describe(temperature=1.5)
    assert Description.from_json(calibrated.to_json()) == calibrated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSONDecodeError"),
        ("[]", "TypeError|AttributeError"),
        ("null", "AttributeError"),
        ("[" * 100_000, "RecursionError"),
        ("{}", "KeyError: 'format_version'"),
        ('{"format_version": 9}', "format 9, this ghostnets reads format 1"),
        ('{"format_version": 1}', "KeyError: 'class_names'"),
    ],
    ids=range(7),
)
def test_malformed_json_is_rejected(text: str, message: str):
    with pytest.raises(ArtefactError, match=message):
        Description.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "f8"}, "precision is 'f8', not one of f32"),
        ({"input": ["uint8"]}, "input is"),
        ({"output": None}, "output is None"),
        ({"architecture": 3}, "architecture is 3"),
        ({"class_names": ["a", 3]}, "class 1 is 3"),
        ({"preprocessing": []}, r"preprocessing \[\] cannot be used"),
        ({"preprocessing": {**PREPROCESSING.to_dict(), "std": [0.1, 0.1]}}, "must have 1 or 3 finite values each"),
        ({"preprocessing": {**PREPROCESSING.to_dict(), "std": [0, 1, 1]}}, "those of std above 0"),
        ({"preprocessing": {**PREPROCESSING.to_dict(), "mean": ["a", 1, 1]}}, "cannot be used .ValueError"),
        (
            {"preprocessing": {**PREPROCESSING.to_dict(), "mean": [float("nan"), 1, 1]}},
            "must have 1 or 3 finite values",
        ),
        ({"preprocessing": {**PREPROCESSING.to_dict(), "image_size": 0}}, "image_size is 0"),
        ({"preprocessing": {"image_size": 16}}, "cannot be used .KeyError: 'resize_to'"),
        ({"preprocessing": {**PREPROCESSING.to_dict(), "resize_to": 40000}}, "from 1 to 4096"),
        ({"arguments": []}, r"arguments is \[\], not an object"),
        ({"surprise": 1}, "surprise"),
        ({"temperature": 0}, "temperature is 0, not a number above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": True}, "temperature is True"),
    ],
)
def test_wrong_values_are_rejected(changes: dict[str, Any], message: str):
    values = {**json.loads(describe().to_json()), **changes}
    with pytest.raises(ArtefactError, match=message):
        Description.from_json(json.dumps(values))


def test_classes_of_the_same_name_are_accepted():
    assert Description.from_json(describe(class_names=("crane", "crane")).to_json()).class_names == ("crane", "crane")


def test_missing_description_is_rejected():
    with pytest.raises(ArtefactError, match="no description by ghostnets"):
        Description.from_metadata({"other": "text"})
