"""python -m doctor."""

from __future__ import annotations

import sys

from doctor.cli.main import main

sys.exit(main())
