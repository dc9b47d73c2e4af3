"""`python -m hpc.resilience.requeue DIRECTORY`, the last line of every submitted script.

The code is in `hpc.job.requeue`. Scripts that were submitted before the module moved still call it
by this name, so it stays.
"""

from __future__ import annotations

import sys

from hpc.job.requeue import main

if __name__ == "__main__":
    sys.exit(main())
