"""How a release is tried before it serves, and what that showed.

Revision ID: 0016_canary
Revises: 0015_upgrades
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016_canary"
down_revision = "0015_upgrades"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("upgrades") as upgrades:
        upgrades.add_column(sa.Column("canary", sa.Text()))
        upgrades.add_column(sa.Column("evidence", sa.Text()))


def downgrade() -> None:
    with op.batch_alter_table("upgrades") as upgrades:
        upgrades.drop_column("evidence")
        upgrades.drop_column("canary")
