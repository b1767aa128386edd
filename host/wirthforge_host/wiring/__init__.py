"""The object graph, built once, before the event loop runs; each object gets only what it works with."""

from wirthforge_host.wiring.graph import TOKEN_FILE, Wiring, build_wiring

__all__ = ["TOKEN_FILE", "Wiring", "build_wiring"]
