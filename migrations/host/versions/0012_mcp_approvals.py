"""Standing approvals of calls over MCP, and tokens with room for sets of functions.

Revision ID: 0012_mcp_approvals
Revises: 0011_accepted_functions
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_mcp_approvals"
down_revision = "0011_accepted_functions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "standing_approvals",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("caller", sa.String(100), nullable=False),
        sa.Column("plugin", sa.String(80), nullable=False),
        sa.Column("function", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("granter", sa.String(100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_standing_approvals"),
        sa.UniqueConstraint("token", "digest", "function", name="uq_standing_approvals_call"),
    )
    with op.batch_alter_table("tokens") as table:
        table.alter_column("scopes", type_=sa.Text(), existing_type=sa.String(100), existing_nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("tokens") as table:
        table.alter_column("scopes", type_=sa.String(100), existing_type=sa.Text(), existing_nullable=False)
    op.drop_table("standing_approvals")
