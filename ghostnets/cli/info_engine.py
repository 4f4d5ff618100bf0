"""What the engine finds on this machine, and what it chooses for a network."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ghostnets import engine
from ghostnets.cli.options.info import InfoCommand
from ghostnets.cli.output import print_json, result_console
from ghostnets.cores import usable_cores
from ghostnets.native import ENGINE, import_native
from ghostnets.processor import processor_name

if TYPE_CHECKING:
    from ghostnets.engine import Session

__all__ = ["run"]


def run(command: InfoCommand) -> int:
    known = import_native(ENGINE).instruction_sets()
    session = None if command.network is None else _session(command)
    if command.json:
        choice = None if session is None or session.choice is None else session.choice.to_dict()
        values = {"processor": processor_name(), "instruction_sets": known, "threads": usable_cores()}
        print_json({**values, "network": command.network, "choice": choice})
        return 0
    table = Table(show_header=False)
    table.add_row("processor", processor_name())
    table.add_row("instruction sets", f"{', '.join(known)}; {known[0]} is used")
    table.add_row("threads", f"{usable_cores()}, the cores that this process may use")
    if session is not None:
        table.add_row(command.network, str(session.choice))
    result_console().print(table)
    return 0


def _session(command: InfoCommand) -> "Session":
    """The network in the precision and number of threads that are the fastest on this machine."""
    source = command.source
    size = engine.TIMED_SIZE if command.image_size is None else command.image_size
    if isinstance(source, Path) and source.suffix == ".engine":
        return engine.load(source, precision="auto", image_size=size)
    if isinstance(source, Path):
        return engine.compile(source, precision="auto")  # timed at its own size
    from ghostnets.checkpoints import build_network
    from ghostnets.cli.info_network import resolve
    from ghostnets.models.detection import Detector, DetectorMaps

    name, arguments, _, (_, side, _) = resolve(command)
    network = build_network(name, arguments).eval()
    network = DetectorMaps(network) if isinstance(network, Detector) else network
    return engine.compile(network, precision="auto", image_size=side)
