"""Functions that an operator approved although they differ from what was signed.

Revision ID: 0011_accepted_functions
Revises: 0010_scale
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_accepted_functions"
down_revision = "0010_scale"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accepted_functions",
        sa.Column("plugin", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("fingerprint", sa.String(71), nullable=False),
        sa.Column("function", sa.Text()),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("plugin", "digest", "name", name="pk_accepted_functions"),
    )


def downgrade() -> None:
    op.drop_table("accepted_functions")
