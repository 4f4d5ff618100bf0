"""Networks as files that answer, whatever runtime they are for. Importing this room loads no torch."""

from ghostnets.artefacts.artefact import Artefact
from ghostnets.artefacts.description import METADATA_KEY, Description
from ghostnets.artefacts.runtimes import SUFFIXES, open_artefact

__all__ = ["METADATA_KEY", "SUFFIXES", "Artefact", "Description", "open_artefact"]
