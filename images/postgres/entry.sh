#!/bin/sh
# Makes the cluster that POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB describe, then serves it:
# `docker run -e POSTGRES_PASSWORD=… IMAGE [-c fsync=off …]`, as the official image does.
set -eu

[ $# -gt 0 ] || set -- postgres
case "$1" in -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"

# Postgres refuses to run as root.
if [ "$(id -u)" -eq 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "${POSTGRES_PASSWORD:-}" ] || {
        echo "set POSTGRES_PASSWORD to the password of the database's owner." >&2
        exit 1
    }
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    secret=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$secret"
    initdb --no-sync --encoding UTF8 --locale C.UTF-8 --username "$user" --pwfile "$secret" \
        --auth-local trust --auth-host scram-sha-256
    rm -f "$secret"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        # Single-user mode: no server listens before the database is complete.
        printf 'CREATE DATABASE "%s"\n' "$(printf '%s' "$database" | sed 's/"/""/g')" |
            postgres --single -c fsync=off -D "$PGDATA" postgres >/dev/null
    fi
fi
exec "$@" -c listen_addresses='*'
