"""The networks and their registry."""

from ghostnets.models.g_ghost import GGhostRegNet
from ghostnets.models.ghost_resnet import GhostResNet
from ghostnets.models.ghost_vgg import GhostVGG
from ghostnets.models.ghostnet import BlockSpec, GhostNet
from ghostnets.models.ghostnetv2 import GhostNetV2
from ghostnets.models.ghostnetv3 import GhostNetV3
from ghostnets.models.network import Backbone, Network
from ghostnets.models.printed_port import PrintedGhostNet
from ghostnets.models.registry import create_model, list_models, model_arguments, model_entry

__all__ = [
    "Backbone",
    "BlockSpec",
    "GGhostRegNet",
    "GhostNet",
    "GhostNetV2",
    "GhostNetV3",
    "GhostResNet",
    "GhostVGG",
    "Network",
    "PrintedGhostNet",
    "create_model",
    "list_models",
    "model_arguments",
    "model_entry",
]
