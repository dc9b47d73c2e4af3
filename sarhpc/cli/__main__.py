"""`python -m sarhpc.cli` is `sarhpc`, wherever the package is found first."""

from __future__ import annotations

import sys

from sarhpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
