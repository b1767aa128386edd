"""How many instances of a plugin an operator wants.

Revision ID: 0010_scale
Revises: 0009_configuration
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_scale"
down_revision = "0009_configuration"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("plugins", sa.Column("scale", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    with op.batch_alter_table("plugins") as plugins:
        plugins.drop_column("scale")
