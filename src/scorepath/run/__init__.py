"""The run directory and what is in it: checkpoints, metrics, summary, recordings; signals; sweeps."""
