"""First tables: accounts and their tokens, namespaces, keys, plugins and releases, and the audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
PLUGIN_NAME = sa.String(79).with_variant(sa.String(79, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(39), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_accounts"),
    )
    op.create_table(
        "audit_records",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.String(39), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(512), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_records"),
    )
    op.create_index("ix_audit_records_at", "audit_records", ["at"])
    op.create_table(
        "namespaces",
        sa.Column("name", sa.String(39), nullable=False),
        sa.Column("owner", sa.String(39), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_namespaces"),
        sa.ForeignKeyConstraint(["owner"], ["accounts.name"], name="fk_namespaces_owner"),
    )
    op.create_index("ix_namespaces_owner", "namespaces", ["owner"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("account", sa.String(39), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"], name="fk_tokens_account"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_account", "tokens", ["account"])
    op.create_table(
        "publisher_keys",
        sa.Column("keyid", sa.String(71), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("account", sa.String(39), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("keyid", name="pk_publisher_keys"),
        sa.ForeignKeyConstraint(["account"], ["accounts.name"], name="fk_publisher_keys_account"),
    )
    op.create_index("ix_publisher_keys_account", "publisher_keys", ["account"])
    op.create_table(
        "plugins",
        sa.Column("name", PLUGIN_NAME, nullable=False),
        sa.Column("namespace", sa.String(39), nullable=False),
        sa.Column("summary", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("categories", sa.Text(), nullable=False),
        sa.Column("latest", sa.String(256), nullable=False),
        sa.Column("published_at", MOMENT, nullable=False),
        sa.Column("search", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_plugins"),
        sa.ForeignKeyConstraint(["namespace"], ["namespaces.name"], name="fk_plugins_namespace"),
    )
    op.create_index("ix_plugins_namespace", "plugins", ["namespace"])
    op.create_table(
        "releases",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("plugin", PLUGIN_NAME, nullable=False),
        sa.Column("version", sa.String(256), nullable=False),
        sa.Column("precedence", sa.String(256), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("keyid", sa.String(71), nullable=False),
        sa.Column("published_at", MOMENT, nullable=False),
        sa.Column("dependencies", sa.Text(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("functions", sa.Text(), nullable=False),
        sa.Column("readme", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_releases"),
        sa.ForeignKeyConstraint(["plugin"], ["plugins.name"], name="fk_releases_plugin"),
        sa.ForeignKeyConstraint(["keyid"], ["publisher_keys.keyid"], name="fk_releases_keyid"),
        sa.UniqueConstraint("plugin", "precedence", name="uq_releases_plugin_precedence"),
    )
    op.create_index("ix_releases_keyid", "releases", ["keyid"])


def downgrade() -> None:
    for table in (
        "releases",
        "plugins",
        "publisher_keys",
        "tokens",
        "namespaces",
        "audit_records",
        "accounts",
    ):
        op.drop_table(table)
