"""WirthForge SDK: contracts, packaging, resolution, plugin runtime, clients and the command."""
