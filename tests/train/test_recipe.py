import ast
import json
from pathlib import Path

import pytest

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.models.names import DETECTOR_NAMES, MODEL_NAMES, SEGMENTER_NAMES
from ghostnets.train import RECIPES, Recipe, default_recipe, named_recipe, recipes
from ghostnets.train.recipes import fit_epochs, fit_image_size


def test_recipe_reports_all_problems_at_once():
    with pytest.raises(ConfigurationError) as caught:
        Recipe(epochs=0, lr=-1, batch_size=1)
    for part in ("epochs is 0, expected at least 1", "lr is -1, expected above 0", "batch_size is 1"):
        assert part in str(caught.value)


def test_changed_rejects_unknown_fields_with_close_matches():
    assert Recipe().changed(epochs=3).epochs == 3
    with pytest.raises(UnknownNameError, match="there is no recipe field named 'epoch'; did you mean epochs"):
        Recipe().changed(epoch=3)


def test_named_and_default_recipe():
    assert named_recipe("photos") is RECIPES["photos"]
    sizes = [default_recipe(size, {}) for size in (28, 64, 65, 500)]
    assert sizes == ["small-images", "small-images", "transfer", "transfer"]
    assert [default_recipe(32, {"image_size": size}) for size in (32, 64, 128)] == [*sizes[:2], "transfer"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weights": None}, "photos"),
        ({"weights": "run/best.safetensors", "model": "ghostnet_050"}, "transfer"),
        ({"model": "ghostnet_050"}, "transfer"),  # published weights
        ({"model": "ghost_resnet34"}, "photos"),
        ({"model": "ghostnet_100", "ratio": 3}, "photos"),
        ({"in_chans": 1}, "transfer"),
        ({"image_size": 32}, "transfer"),  # photographs stay what they are: they were trained from scratch
        ({"epochs": 3, "ratio": None}, "transfer"),
    ],
)
def test_default_recipe_transfers_where_weights_fit(changes: dict[str, object], expected: str):
    assert default_recipe(300, changes) == expected
    with pytest.raises(UnknownNameError, match="did you mean photos"):
        named_recipe("photo")


def test_recipe_reports_contradictions():
    with pytest.raises(ConfigurationError) as caught:
        Recipe(schedule="step", frozen=True, optimizer="adam", milestones=(0.5, 0.2), accumulate=64)
    for part in (
        "optimizer is adam, expected one of sgd, adamw, rmsprop, lamb",
        "milestones is (0.5, 0.2), expected shares of the run between 0 and 1, ascending",
        "accumulate is 64, expected from 1 to batch_size",
        "frozen is True without weights",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigurationError, match="expected milestones or decay_epochs, but not both"):
        Recipe(schedule="step")
    with pytest.raises(ConfigurationError, match="expected neither"):
        Recipe(frozen=True, weights="pretrained", mixup=0.2)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_round_trip_through_json(name: str):
    recipe = RECIPES[name]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.differences(recipe.changed(lr=7.0)) == {"lr": recipe.lr}
    assert recipe.model in MODEL_NAMES | DETECTOR_NAMES | SEGMENTER_NAMES


def test_recipes_document_command_and_source():
    """Each recipe is followed by a string, read from the source: Python does not keep it."""
    body = ast.parse(Path(recipes.__file__).read_text(encoding="utf-8")).body
    documented = {
        body[i].targets[0].id: body[i + 1].value.value  # type: ignore[attr-defined]
        for i in range(len(body) - 1)
        if isinstance(body[i], ast.Assign) and isinstance(body[i + 1], ast.Expr)
    }
    for name in RECIPES:
        text = documented[name.upper().replace("-", "_")]
        command = next(line for line in text.splitlines() if "ghostnets train" in line)
        assert f"--recipe {name}" in command or name in ("transfer", "photos", "small-images")
        assert "easured" in text or "Published" in text


def test_default_recipes_share_the_split():
    """Data is opened before the size of the images chooses one of them."""
    assert len({(RECIPES[name].val_share, RECIPES[name].seed) for name in ("photos", "small-images")} | {(0.2, 0)}) == 1


def test_flip_of_earlier_recipes_is_read():
    assert [Recipe.from_dict({"flip": flip}).flip for flip in (True, False, "both")] == ["horizontal", "none", "both"]
    with pytest.raises(ConfigurationError, match="flip is up, expected horizontal, vertical, both or none"):
        Recipe(flip="up")
    with pytest.raises(ConfigurationError, match="rotate is 200, expected from 0 to 180"):
        Recipe(rotate=200)
    with pytest.raises(ConfigurationError, match="class_balanced is True with class_weights"):
        Recipe(class_balanced=True, class_weights="balanced")


@pytest.mark.parametrize(
    ("images", "epochs"), [(1, 20), (244, 20), (750, 20), (1000, 15), (1920, 8), (3000, 5), (10**6, 5)]
)
def test_epochs_of_the_default_follow_from_the_number_of_images(images: int, epochs: int):
    assert fit_epochs(images) == epochs


@pytest.mark.parametrize(
    ("images", "side", "size"), [(244, 375, 224), (750, 224, 224), (751, 224, 160), (244, 223, 160), (10**6, 500, 160)]
)
def test_image_size_of_the_default_follows_from_the_images(images: int, side: int, size: int):
    assert fit_image_size(images, side) == size
