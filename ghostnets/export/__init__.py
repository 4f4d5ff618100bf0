"""A checkpoint as a file for a runtime, run there and compared before it is given away.

Nothing is imported unasked: the process that runs the file must not get torch from here.
"""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.export.exporter import export_model
    from ghostnets.export.formats import FORMATS
    from ghostnets.export.report import Report
    from ghostnets.export.web import export_web

__all__ = ["FORMATS", "Report", "export_model", "export_web"]

_MODULES = {"FORMATS": "formats", "Report": "report", "export_model": "exporter", "export_web": "web"}

__getattr__ = lazy_getattr(__name__, _MODULES)
