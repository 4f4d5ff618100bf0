"""Export checkpoints to inference runtimes; each file is run and compared with the network before it is written.

Names are imported lazily: the verification process imports this package and must not load torch with it.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.export.exporter import export_model
    from ghostnets.export.report import ExportReport
    from ghostnets.export.web import export_web

__all__ = ["ExportReport", "export_model", "export_web"]

_MODULES = {"ExportReport": "report", "export_model": "exporter", "export_web": "web"}

__getattr__ = lazy_getattr(__name__, _MODULES)
