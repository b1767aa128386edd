"""What an operator sets for a plugin: its configuration, in versions, and its secrets, given to it alone."""

from wirthforge_host.configuration.provision import Provision
from wirthforge_host.configuration.secrets import OWNER, Secrets
from wirthforge_host.configuration.service import Configurations
from wirthforge_host.configuration.versions import Version

__all__ = ["OWNER", "Configurations", "Provision", "Secrets", "Version"]
