"""Between which bounds the number of a plugin's instances follows its load.

Revision ID: 0017_scale_by_load
Revises: 0016_canary
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017_scale_by_load"
down_revision = "0016_canary"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("plugins", sa.Column("scale_most", sa.Integer(), nullable=False, server_default="1"))
    op.execute("UPDATE plugins SET scale_most = scale")


def downgrade() -> None:
    with op.batch_alter_table("plugins") as plugins:
        plugins.drop_column("scale_most")
