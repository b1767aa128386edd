"""The plugins of this host: their lives, their instances, and the calls to them."""
