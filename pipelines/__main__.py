"""`python -m pipelines` is the command `cytoloom`."""

import sys

from pipelines.cli import main

sys.exit(main())
