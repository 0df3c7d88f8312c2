"""How a sweep stands: python scripts/sweep.py NAME [--watch]. It may be running, and is only read."""

import sys

from scorepath.jobs.sweep_status import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
