"""Training steps per second: ours, its parts, the limit of the machine, and the peers; not part of the package."""
