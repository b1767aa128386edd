"""The host agent: runs each plugin in a locked-down container and mediates all it does."""
