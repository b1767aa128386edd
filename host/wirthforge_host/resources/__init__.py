"""What instances use, read from the kernel's own files, and what is done about those that use too much."""
