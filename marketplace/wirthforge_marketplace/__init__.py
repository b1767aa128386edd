"""The marketplace server: signed distribution of plugins."""
