"""A checkpoint as a file for a runtime, run there and compared before it is given away.

Nothing is imported unasked: the process that runs the file must not get torch from here.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostnets.export.exporter import export_model
    from ghostnets.export.formats import FORMATS
    from ghostnets.export.report import Report
    from ghostnets.export.web import export_web

__all__ = ["FORMATS", "Report", "export_model", "export_web"]

_FILES = {"FORMATS": "formats", "Report": "report", "export_model": "exporter", "export_web": "web"}


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module 'ghostnets.export' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ghostnets.export.{_FILES[name]}"), name)
