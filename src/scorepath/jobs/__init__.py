"""What the scripts do, one module each."""
