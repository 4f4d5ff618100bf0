"""The choice of initial weights where a recipe leaves it open: published ones first, then those of the package."""

from ghostnets.checkpoints import EMBEDDED_WEIGHTS, WEIGHTS, check_reachable, download, find_cached
from ghostnets.errors import CheckpointError, StorageError
from ghostnets.models import resolve_name
from ghostnets.train.network import describe_initial_weights
from ghostnets.train.recipe import AUTO_WEIGHTS, PRETRAINED, Recipe
from ghostnets.train.recipe import EMBEDDED_WEIGHTS as EMBEDDED

__all__ = ["choose_weights"]

REACHABLE_SECONDS = 5.0  # time for the server of published weights to answer


def choose_weights(recipe: Recipe, *, scratch: Recipe | None = None) -> tuple[Recipe, str]:
    """Resolve the weights ``"auto"`` of a recipe to available ones.

    Published weights of the network that are cached are taken, else they are downloaded if their server answers within
    ``REACHABLE_SECONDS``; else the weights that come with the package.

    Args:
        recipe: The recipe.
        scratch: Recipe for random weights, if there are no others; None for an error.

    Returns:
        The recipe with weights, and a sentence for the user: where training starts, and why.

    Raises:
        CheckpointError: No weights are available.
        UnknownNameError: The network is unknown.
    """
    if recipe.weights != AUTO_WEIGHTS:
        return recipe, describe_initial_weights(recipe)
    name = resolve_name(recipe.model)
    reason = f"no weights of {name} are published"
    if name in WEIGHTS:
        published = WEIGHTS[name][0]
        label = f"its published weights ({published.tag}, {published.top1:.1f} % top-1 on ImageNet)"
        try:
            found = "the cache has them"
            if find_cached(published.location) is None:
                check_reachable(published.location, seconds=REACHABLE_SECONDS)
                download(published.location, sha256=published.sha256)
                found = f"downloaded from {published.url}"
            sentence = f"training {name} from {label}: {found} (others: --weights embedded, or none for random ones)"
            return recipe.changed(weights=PRETRAINED), sentence
        except (CheckpointError, StorageError) as error:
            reason = str(error).removesuffix(".")
    if name in EMBEDDED_WEIGHTS:
        start = f"training {name} from the weights that come with the package (from scratch: --weights none)"
        return recipe.changed(weights=EMBEDDED), f"{start}; {reason}"
    if scratch is None:
        raise CheckpointError(
            f"no weights of {name} come with the package, and {reason}; pass --weights FILE, or none."
        )
    return scratch, f"training {name} from scratch, with random weights: none come with the package, and {reason}"
