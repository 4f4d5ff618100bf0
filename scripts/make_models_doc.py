"""Write docs/models.md from the registry.

python scripts/make_models_doc.py
"""

from pathlib import Path

from ghostnets.cli.list import models_document
from ghostnets.files import write_text

if __name__ == "__main__":
    write_text(Path(__file__).parents[1] / "docs" / "models.md", models_document())
