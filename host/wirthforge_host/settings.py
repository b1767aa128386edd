"""What an operator may set, by environment variables ``WIRTHFORGE_HOST_<NAME>``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import SettingsConfigDict

from wirthforge_sdk.contracts.manifest import Interpreter
from wirthforge_sdk.contracts.policy import SecurityPolicy, parse_policy
from wirthforge_sdk.errors import InvalidInputError
from wirthforge_sdk.serving.settings import AbsolutePath, ServiceSettings

FIRST_UID, LAST_UID = 61_000, 65_533
"""User ids that a sandbox accepts: above those of people and packages, below nobody's."""

MAX_DATA_DIR_BYTES = 107 - len("/bridges/0123456789abcdef/bridge.sock")
"""What ``sun_path`` (unix(7)) leaves."""

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$", max_length=400)]


class Settings(ServiceSettings):
    """The host's settings; those of every server come first."""

    model_config = SettingsConfigDict(env_prefix="WIRTHFORGE_HOST_")

    data_dir: AbsolutePath = Path("/var/lib/wirthforge/host")
    listen: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+):\d{1,5}$")] = "127.0.0.1:7410"
    marketplace_url: Url = "http://127.0.0.1:7420"
    """Where plugins come from. What comes is believed by its signatures, never by this address."""
    engine_url: Annotated[str, StringConstraints(pattern=r"^(unix:///|tcp://|https?://)\S+$")] = (
        "unix:///var/run/docker.sock"
    )
    """The container engine."""
    image: Annotated[str, StringConstraints(min_length=1, max_length=300)] = "wirthforge/plugin-python:local"
    """The operator's image that plugins run in, MCP servers in Python among them."""
    node_image: Annotated[str, StringConstraints(min_length=1, max_length=300)] = (
        "wirthforge/plugin-node:local"
    )
    """The operator's image that MCP servers in Node.js run in; not needed while there are none."""
    host_id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    """Marks this host's containers; by default a random id, kept in ``data_dir``."""
    uid_base: Annotated[int, Field(ge=FIRST_UID, le=LAST_UID)] = FIRST_UID
    """First user id for instances. Nothing else on the machine may use the range."""
    uid_count: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    max_instances: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Sandboxes that may run at a time."""
    start_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """From starting a container until its plugin has connected, told its functions and passed its self-test."""
    drain_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """How long open calls may go on when an instance is stopped."""
    probation_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """How long after an upgrade the end of an instance brings the release before back."""
    rollback_kept_s: Annotated[float, Field(ge=0, le=604_800)] = 900.0
    """How long the instances of the release before stay, frozen, to serve again at once."""
    warm_pool: Annotated[int, Field(ge=0, le=100)] = 0
    """Blank sandboxes that wait for plugins to be started in them (``docs/sandbox.md``); each takes some 20 MB. None by
    default: they are containers that nobody asked for."""
    leave_running: bool = False
    """When the host is stopped, let its plugins wait for the next start; for as long as they wait for one that was
    killed (``contracts.bridge.RECONNECT_S``)."""

    policy: AbsolutePath | None = None
    """The operator's ``policy.toml``; None: the house's own policy (``contracts.policy``)."""

    @model_validator(mode="after")
    def _sockets_have_room(self) -> Self:
        if len(os.fsencode(self.data_dir)) > MAX_DATA_DIR_BYTES:
            raise ValueError(
                f"DATA_DIR: {self.data_dir} is over {MAX_DATA_DIR_BYTES} bytes, and the sockets in it would have paths "
                "longer than Linux takes: choose a shorter one"
            )
        return self

    def image_for(self, interpreter: Interpreter) -> str:
        """The image that what this interpreter runs is started in."""
        return self.node_image if interpreter is Interpreter.NODE else self.image

    def security_policy(self) -> SecurityPolicy:
        """What the file says.

        Raises:
            InvalidInputError: It cannot be read, or is no policy; names the field.
        """
        if self.policy is None:
            return SecurityPolicy()
        try:
            return parse_policy(self.policy.read_bytes())
        except OSError as error:
            raise InvalidInputError(
                f"the policy {self.policy} cannot be read: {error.strerror}", field="policy"
            ) from error

    @model_validator(mode="after")
    def _user_ids_suffice(self) -> Self:
        if self.uid_base + self.uid_count - 1 > LAST_UID:
            raise ValueError(f"UID_BASE + UID_COUNT is beyond {LAST_UID}, the last user id for instances")
        if self.uid_count < self.max_instances:
            raise ValueError("UID_COUNT is below MAX_INSTANCES: each instance has a user id of its own")
        return self
