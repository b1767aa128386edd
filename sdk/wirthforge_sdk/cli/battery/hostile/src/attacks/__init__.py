"""One module for each group of attacks; what they share is in ``battery`` and ``libc``."""
