"""``ghostnets.create_model``: builds a network, optionally with published or embedded weights."""

from typing import Any, Literal

from torch import nn

from ghostnets.checkpoints.embedded import embedded_weights
from ghostnets.checkpoints.hub import load_pretrained
from ghostnets.checkpoints.load import load_checkpoint
from ghostnets.models import Backbone, Network, model_entry
from ghostnets.models import create_model as build_model
from ghostnets.models.features import Indices
from ghostnets.models.registry import check_backbone_arguments

__all__ = ["create_model"]


def create_model(
    name: str,
    *,
    pretrained: bool | str = False,
    features_only: bool = False,
    out_indices: Indices | None = None,
    like: Literal["timm"] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a network with random, published or embedded weights (those included in the package).

    >>> model = create_model("ghostnet_100", num_classes=10, in_chans=1, small_input=True)
    >>> backbone = create_model("ghostnet_100", features_only=True, out_indices=(1, 2, 3, 4))

    Published weights are downloaded once and cached (``load_pretrained``)::

        classifier = create_model("ghostnet_100", pretrained=True)
        for_my_classes = create_model("ghostnet_100", pretrained="official", num_classes=10)

    Embedded weights need no network access; they are a backbone, so the classifier is left random
    (``EMBEDDED_WEIGHTS`` lists the networks)::

        for_my_classes = create_model("ghostnet_100", pretrained="embedded", num_classes=10)

    Args:
        name: A name of ``list_models()``, or an alias.
        pretrained: Weights to load: ``"embedded"``, a tag of published weights (docs/models.md), or True for the
            network's default published weights. If ``num_classes`` differs from that of the weights, the classifier is
            initialised randomly; all other tensors must match.
        features_only: Return a ``models.Backbone``, whose forward returns a list of feature maps.
        out_indices: Indices of the feature maps to return, or the number of the last ones; requires ``features_only``.
        like: ``"timm"`` for the feature maps of timm's ``features_only=True``; requires ``features_only``.
        **arguments: Arguments of the network. All take ``num_classes``, ``in_chans``, ``drop_rate`` and
            ``output_stride``, those with residual blocks ``drop_path_rate``; further arguments (``width``,
            ``ratio``, ``cheap_kernel_size``, ``small_input``, ...) are documented by the classes.

    Returns:
        The network, in training mode, float32, on the CPU.

    Raises:
        UnknownNameError: The network or the tag is unknown.
        ConfigurationError: The network has no such argument, or its value is out of range.
        CheckpointError: The weights do not exist, their download failed, or they do not fit the network.
        MissingExtraError: The weights are a Keras file (tag ``kecam``) and h5py is not installed.
        StorageError: The downloaded file could not be written.
    """
    if not pretrained:
        return build_model(name, features_only=features_only, out_indices=out_indices, like=like, **arguments)
    check_backbone_arguments(features_only=features_only, out_indices=out_indices, like=like)
    model = build_model(name, **arguments)
    assert isinstance(model, Network)
    if pretrained == "embedded":
        load_checkpoint(model, embedded_weights(name), replace_head=True)
    else:
        is_other_task = model.num_classes != model_entry(name).variant.benchmark.num_classes
        tag = pretrained if isinstance(pretrained, str) else None
        load_pretrained(model, name, tag, replace_head=is_other_task)
    return Backbone(model, out_indices=out_indices, like=like) if features_only else model
