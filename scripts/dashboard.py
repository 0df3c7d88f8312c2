"""TensorBoard over a sweep or a folder of runs, also while they train: python scripts/dashboard.py [NAME]."""

import sys

from scorepath.jobs.dashboard import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
