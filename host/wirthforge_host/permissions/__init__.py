"""Permissions: what operators decided, and what each running release may do at this moment."""

from wirthforge_host.permissions.rights import Rights
from wirthforge_host.permissions.service import Permissions

__all__ = ["Permissions", "Rights"]
