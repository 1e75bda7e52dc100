"""`python -m scratchd_rollout`."""

import sys

from scratchd_rollout.cli import main

sys.exit(main())
