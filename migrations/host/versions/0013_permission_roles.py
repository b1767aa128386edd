"""Named bundles of permission rules.

Revision ID: 0013_permission_roles
Revises: 0012_mcp_approvals
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_permission_roles"
down_revision = "0012_mcp_approvals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "permission_roles",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_permission_roles"),
    )


def downgrade() -> None:
    op.drop_table("permission_roles")
