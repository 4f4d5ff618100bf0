import pytest

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.train import RECIPES, Recipe, named_recipe, recipe_for


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        Recipe(epochs=0, lr=-1, batch_size=1)
    for part in ("epochs is 0, wanted at least 1", "lr is -1, wanted above 0", "batch_size is 1"):
        assert part in str(caught.value)


def test_changing_knows_its_fields():
    assert Recipe().changed(epochs=3).epochs == 3
    with pytest.raises(ConfigurationError, match="a recipe has no epoch; it has model, width"):
        Recipe().changed(epoch=3)


def test_named_recipes():
    assert named_recipe("photos") is RECIPES["photos"]
    assert [recipe_for(size) for size in (28, 64, 65, 500)] == ["small-images", "small-images", "photos", "photos"]
    with pytest.raises(UnknownNameError, match="did you mean photos"):
        named_recipe("photo")
