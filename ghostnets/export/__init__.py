"""Export checkpoints to inference runtimes; each file is run and compared with the network before it is written.

Names are imported lazily: the verification process imports this package and must not load torch with it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostnets.export.exporter import export_model
    from ghostnets.export.formats import FORMATS
    from ghostnets.export.report import ExportReport
    from ghostnets.export.web import export_web

__all__ = ["FORMATS", "ExportReport", "export_model", "export_web"]

_MODULES = {"FORMATS": "formats", "ExportReport": "report", "export_model": "exporter", "export_web": "web"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'ghostnets.export' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ghostnets.export.{_MODULES[name]}"), name)
