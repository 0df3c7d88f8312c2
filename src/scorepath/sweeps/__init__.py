"""Sweeps: jobs by name, their state in their folders, and the loop that has all of them done."""
