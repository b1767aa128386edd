"""When rules end by themselves, and how often permissions are used.

Revision ID: 0005_permission_uses
Revises: 0004_audit_checkpoints
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_permission_uses"
down_revision = "0004_audit_checkpoints"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("permission_rules", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.create_table(
        "permission_uses",
        sa.Column("plugin", sa.String(100), nullable=False),
        sa.Column("permission", sa.String(256), nullable=False),
        sa.Column("allowed", sa.BigInteger(), nullable=False),
        sa.Column("denied", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "permission", name="pk_permission_uses"),
    )


def downgrade() -> None:
    op.drop_table("permission_uses")
    op.drop_column("permission_rules", "expires_at")
