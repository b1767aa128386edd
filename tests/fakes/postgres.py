"""A Postgres server in a container, one for a whole run of tests, gone when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.network import Network

IMAGE = os.environ.get("WIRTHFORGE_TEST_POSTGRES_IMAGE", "wirthforge/postgres:local")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database, with the driver that our services use."""
    # Its own cleaner is an image from a registry; here the blocks below clean up.
    testcontainers_config.ryuk_disabled = True
    with (
        Network() as network,
        PostgresContainer(IMAGE, driver="psycopg")
        .with_network(network)
        .with_command("-c fsync=off -c full_page_writes=off -c synchronous_commit=off") as postgres,
    ):
        yield postgres.get_connection_url()
