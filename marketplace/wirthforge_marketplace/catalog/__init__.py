"""Reading what is published: lists, search, one plugin, one release, and what to install."""
