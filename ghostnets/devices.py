"""Selection of a torch device by name, for every command that runs torch; it is loaded when a device is selected."""

from typing import TYPE_CHECKING

from ghostnets.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

__all__ = ["check_device_name", "describe_device", "select_device"]

ACCELERATORS = ("cuda", "xpu", "mps")  # in the order in which "auto" tries them


def check_device_name(name: str) -> None:
    """Check the form of a device name, whatever this machine has.

    Raises:
        ConfigurationError: It is neither ``"auto"`` nor the name of a kind of device that torch runs networks on.
    """
    kind, separator, index = name.partition(":")
    is_indexed = bool(separator) and index.isdecimal() and kind != "cpu"
    if kind not in ("auto", "cpu", *ACCELERATORS) or (separator and not (is_indexed and kind != "auto")):
        raise ConfigurationError(
            f"the device is {name!r}; it must be auto, cpu, cuda, mps or xpu, the latter with a number for one of"
            " several: cuda:1."
        )


def select_device(name: str = "auto") -> "torch.device":
    """Return the device of a name, if this machine has it.

    Args:
        name: ``"auto"`` for an accelerator if there is one, else the CPU; ``"cpu"``, ``"cuda"``, ``"mps"``, ``"xpu"``,
            or one of several, ``"cuda:1"``.

    Raises:
        ConfigurationError: There is no such kind of device, or torch finds none here.
    """
    import torch

    check_device_name(name)
    if name == "auto":
        return torch.device(next((kind for kind in ACCELERATORS if _count(kind)), "cpu"))
    device = torch.device(name)
    if device.type == "cpu":
        return device
    available = [kind for kind in ACCELERATORS if _count(kind)]
    if device.type not in available:
        others = f"torch finds {', '.join(available)} and cpu" if available else "torch finds no accelerator here"
        raise ConfigurationError(f"the device is {name}, but {others}; omit --device, or choose another.")
    if device.index is not None and device.index >= _count(device.type):
        raise ConfigurationError(
            f"the device is {name}, but there are {_count(device.type)} of its kind, counted from 0; choose another."
        )
    return device


def describe_device(device: "torch.device") -> str:
    """The device for a message to the user: ``"cuda:0 (NVIDIA H100 80GB HBM3)"``."""
    import torch

    if device.type in ("cuda", "xpu"):
        module = torch.get_device_module(device.type)
        return f"{device} ({module.get_device_name(device)})"
    return {"mps": "mps (Apple GPU)"}.get(device.type, f"{device}")


def _count(kind: str) -> int:
    """Number of devices of a kind."""
    import torch

    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = torch.get_device_module(kind)
    return module.device_count() if module.is_available() else 0
