"""Events that are kept, durable subscriptions, and the topics a token may publish on.

Revision ID: 0006_bus
Revises: 0005_permission_uses
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_bus"
down_revision = "0005_permission_uses"
branch_labels = None
depends_on = None

ORDERED = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "bus_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("topic", ORDERED, nullable=False),
        sa.Column("publisher", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_bus_events"),
    )
    op.create_index("ix_bus_events_publisher_topic_id", "bus_events", ["publisher", "topic", "id"])
    op.create_index("ix_bus_events_at", "bus_events", ["at"])
    op.create_table(
        "bus_usage",
        sa.Column("publisher", sa.String(200), nullable=False),
        sa.Column("topic", ORDERED, nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("dropped_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("publisher", "topic", name="pk_bus_usage"),
    )
    op.create_table(
        "bus_cursors",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("pattern", sa.String(256), nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "pattern", name="pk_bus_cursors"),
    )
    op.create_table(
        "bus_kept",
        sa.Column("pattern", sa.String(256), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("age_s", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pattern", name="pk_bus_kept"),
    )
    op.add_column("tokens", sa.Column("publishes", sa.Text()))


def downgrade() -> None:
    op.drop_column("tokens", "publishes")
    for table in ("bus_kept", "bus_cursors", "bus_usage", "bus_events"):
        op.drop_table(table)
