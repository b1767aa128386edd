"""Master keys that are to be destroyed.

Revision ID: 0014_keyring_retired
Revises: 0013_permission_roles
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014_keyring_retired"
down_revision = "0013_permission_roles"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keyring_retired",
        sa.Column("master", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("master", name="pk_keyring_retired"),
    )


def downgrade() -> None:
    op.drop_table("keyring_retired")
