"""Root keys and data keys, all of them wrapped.

Revision ID: 0007_keyring
Revises: 0006_bus
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_keyring"
down_revision = "0006_bus"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keyring_roots",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("master", sa.String(64), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_keyring_roots"),
    )
    owner = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
    op.create_table(
        "keyring_keys",
        sa.Column("owner", owner, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("root", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "number", name="pk_keyring_keys"),
    )


def downgrade() -> None:
    op.drop_table("keyring_keys")
    op.drop_table("keyring_roots")
