"""``python -m ghostnets``."""

import sys

from ghostnets.cli.main import main

sys.exit(main())
