"""The admin API of the host. HTTP lives here alone: features know nothing of it."""

from wirthforge_host.api.app import create_app

__all__ = ["create_app"]
