#!/usr/bin/env bash
# Copy the primary once, then follow it. Runs as the user postgres; PGDATA and the password are in the
# environment. It is promoted by hand (README.md), and then goes on as a primary.
set -euo pipefail
: "${PRIMARY_HOST:=primary}" "${PRIMARY_PORT:=5432}"
if [[ ! -s $PGDATA/PG_VERSION ]]; then
  export PGPASSWORD=$REPLICATOR_PASSWORD
  until pg_basebackup --host "$PRIMARY_HOST" --port "$PRIMARY_PORT" --username replicator \
    --pgdata "$PGDATA" --write-recovery-conf --wal-method stream --checkpoint fast; do
    # What was begun is of no use.
    find "$PGDATA" -mindepth 1 -delete
    sleep 1
  done
  chmod 700 "$PGDATA"
fi
exec postgres "$@"
