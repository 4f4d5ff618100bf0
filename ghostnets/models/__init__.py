"""The networks and their registry."""

from ghostnets.models.d_li14 import DLi14GhostNet
from ghostnets.models.g_ghost import GGhostRegNet
from ghostnets.models.ghost_resnet import GhostResNet
from ghostnets.models.ghost_vgg import GhostVGG
from ghostnets.models.ghostnet import BlockSpec, GhostNet
from ghostnets.models.ghostnetv2 import GhostNetV2
from ghostnets.models.ghostnetv3 import GhostNetV3
from ghostnets.models.network import Backbone, Network
from ghostnets.models.registry import (
    NETWORK_CLASSES,
    create_model,
    list_models,
    model_arguments,
    model_entry,
    resolve_name,
)

__all__ = [
    "NETWORK_CLASSES",
    "Backbone",
    "BlockSpec",
    "DLi14GhostNet",
    "GGhostRegNet",
    "GhostNet",
    "GhostNetV2",
    "GhostNetV3",
    "GhostResNet",
    "GhostVGG",
    "Network",
    "create_model",
    "list_models",
    "model_arguments",
    "model_entry",
    "resolve_name",
]
