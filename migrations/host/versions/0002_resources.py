"""History of what plugins use, and the operator's own limits of them.

Revision ID: 0002_resources
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_resources"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resource_minutes",
        sa.Column("plugin", sa.String(80), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("metrics", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "minute", name="pk_resource_minutes"),
    )
    op.create_index("ix_resource_minutes_minute", "resource_minutes", ["minute"])
    op.create_table(
        "plugin_resources",
        sa.Column("plugin", sa.String(80), nullable=False),
        sa.Column("override", sa.Text(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("plugin", name="pk_plugin_resources"),
    )


def downgrade() -> None:
    op.drop_table("plugin_resources")
    op.drop_table("resource_minutes")
