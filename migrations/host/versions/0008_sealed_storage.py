"""Stored values are sealed, have a space and an end, and snapshots.

What was stored in the clear before is dropped: no release kept it so.

Revision ID: 0008_sealed_storage
Revises: 0007_keyring
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008_sealed_storage"
down_revision = "0007_keyring"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("storage_usage")
    op.drop_table("storage_items")
    space = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    op.create_table(
        "storage_items",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("snapshot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("space", space, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("plugin", "snapshot", "space", "key", name="pk_storage_items"),
    )
    op.create_index("ix_storage_items_expires_at", "storage_items", ["expires_at"])
    op.create_table(
        "storage_usage",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", name="pk_storage_usage"),
    )
    op.create_table(
        "storage_snapshots",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "id", name="pk_storage_snapshots"),
    )


def downgrade() -> None:
    op.drop_table("storage_snapshots")
    op.drop_table("storage_usage")
    op.drop_table("storage_items")
    op.create_table(
        "storage_items",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "key", name="pk_storage_items"),
    )
    op.create_table(
        "storage_usage",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", name="pk_storage_usage"),
    )
