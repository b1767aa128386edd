"""Several releases of a plugin on a host, and what became of each change from one to another.

Revision ID: 0015_upgrades
Revises: 0014_keyring_retired
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015_upgrades"
down_revision = "0014_keyring_retired"
branch_labels = None
depends_on = None

_OF_RELEASE = {
    "version": sa.String(256),
    "signer": sa.String(71),
    "public_key": sa.String(64),
    "manifest": sa.Text(),
    "functions": sa.Text(),
}


def upgrade() -> None:
    op.create_table(
        "releases",
        sa.Column("plugin", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        *(sa.Column(name, kind, nullable=False) for name, kind in _OF_RELEASE.items()),
        sa.PrimaryKeyConstraint("plugin", "digest", name="pk_releases"),
    )
    columns = ", ".join(["digest", *_OF_RELEASE])
    op.execute(f"INSERT INTO releases (plugin, {columns}) SELECT name, {columns} FROM plugins")  # noqa: S608
    with op.batch_alter_table("plugins") as plugins:
        for name in _OF_RELEASE:
            plugins.drop_column(name)
    op.create_table(
        "upgrades",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("plugin", sa.String(80), nullable=False),
        sa.Column("before", sa.String(71), nullable=False),
        sa.Column("after", sa.String(71), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("snapshot", sa.BigInteger()),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_upgrades"),
    )
    op.create_index("ix_upgrades_plugin", "upgrades", ["plugin"])


def downgrade() -> None:
    op.drop_index("ix_upgrades_plugin", table_name="upgrades")
    op.drop_table("upgrades")
    with op.batch_alter_table("plugins") as plugins:
        for name, kind in _OF_RELEASE.items():
            plugins.add_column(sa.Column(name, kind, nullable=False, server_default=""))
    of_plugin = "SELECT {} FROM releases WHERE releases.plugin = plugins.name AND releases.digest = plugins.digest"
    values = ", ".join(f"{name} = ({of_plugin.format(name)})" for name in _OF_RELEASE)
    op.execute(f"UPDATE plugins SET {values}")  # noqa: S608 (names of this file)
    with op.batch_alter_table("plugins") as plugins:
        for name in _OF_RELEASE:
            plugins.alter_column(name, server_default=None)
    op.drop_table("releases")
