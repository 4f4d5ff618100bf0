"""Names of the networks, for the command line, without torch. A test compares them with the registry."""

from ghostnets.errors import UnknownNameError

__all__ = ["ALIASES", "DETECTOR_NAMES", "MODEL_NAMES", "SEGMENTER_NAMES", "resolve_name"]

# fmt: off
MODEL_NAMES = frozenset([
    "ghostnet_050", "ghostnet_100", "ghostnet_130",
    "ghostnetv2_050", "ghostnetv2_100", "ghostnetv2_130", "ghostnetv2_160",
    "ghostnetv3_050", "ghostnetv3_100", "ghostnetv3_130", "ghostnetv3_160",
    "g_ghost_regnetx_002", "g_ghost_regnetx_004", "g_ghost_regnetx_006", "g_ghost_regnetx_008",
    "g_ghost_regnetx_016", "g_ghost_regnetx_032", "g_ghost_regnetx_040", "g_ghost_regnetx_064",
    "g_ghost_regnetx_080", "g_ghost_regnetx_120", "g_ghost_regnetx_160", "g_ghost_regnetx_320",
    "ghost_resnet18", "ghost_resnet34", "ghost_resnet50", "ghost_resnet101",
    "ghost_resnet20", "ghost_resnet32", "ghost_resnet44", "ghost_resnet56", "ghost_resnet110",
    "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
    "ghost_vgg16", "vgg16",
    "ghostnet_100_d_li14", "ghostnet_100_d_li14_revised",
])
# fmt: on

DETECTOR_NAMES = frozenset(["ghostdet_050", "ghostdet_100", "ghostdet_130", "nanodet_plus_m"])
SEGMENTER_NAMES = frozenset(["ghostseg_050", "ghostseg_100", "ghostseg_130", "ghostseg_100_os8", "ghostseg_100_aspp"])

# Earlier name -> name. Checkpoints, descriptions and recipes that hold an earlier name still load.
ALIASES: dict[str, str] = {
    "ghostnet_100_printed": "ghostnet_100_d_li14",
    "ghostnet_100_printed_revised": "ghostnet_100_d_li14_revised",
}


def resolve_name(name: str) -> str:
    """Return the registered name of a network, given that name or an alias.

    Raises:
        UnknownNameError: The network is unknown; the message suggests close matches.
    """
    name = ALIASES.get(name, name)
    if name not in MODEL_NAMES:
        raise UnknownNameError("model", name, MODEL_NAMES)
    return name
