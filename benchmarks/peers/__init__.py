"""Other libraries at the same job, each a script in a process of its own that prints one JSON line."""
