"""The conformance suite of the Model Context Protocol, run against the host's own endpoint."""
