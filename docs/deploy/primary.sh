#!/usr/bin/env bash
# Prepare a new primary for listeners and a standby. The image of PostgreSQL runs this once, when it has
# made the cluster, as the superuser of the socket; PGDATA and the passwords are in the environment.
set -euo pipefail

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
  --username "${POSTGRES_USER:-postgres}" --dbname postgres \
  --set replicator="$REPLICATOR_PASSWORD" --set listener="$DATABASE_PASSWORD" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
CREATE ROLE listener LOGIN PASSWORD :'listener';
ALTER ROLE listener SET lock_timeout = '5s';
ALTER ROLE listener SET idle_in_transaction_session_timeout = '2s';
-- For `listener check`, which looks at standbys and snapshots.
GRANT pg_read_all_stats TO listener;
CREATE DATABASE listener OWNER listener;
-- So that a listener that died is noticed, and what it held is free again.
ALTER SYSTEM SET tcp_keepalives_idle = 5;
ALTER SYSTEM SET tcp_user_timeout = '5s';
ALTER SYSTEM SET client_connection_check_interval = '1s';
-- A standby that was away for a while finds what it missed.
ALTER SYSTEM SET wal_keep_size = '1GB';
-- From the next start on, a commit is done once a standby has it on disk.
ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)';
SQL
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
