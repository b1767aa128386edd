"""Sandboxes: containers that are locked down, started, and believed only after they were read back."""
