#!/bin/sh
# What the image of PostgreSQL does with the variables and files that deploy/compose.yaml gives it.
set -eu
data=/var/lib/postgresql/data
as() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
  mkdir -p "$data"
  chown -R postgres:postgres /var/lib/postgresql
  password=/var/lib/postgresql/password
  install -o postgres -m 0400 "$POSTGRES_PASSWORD_FILE" "$password"
  as initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile "$password" --auth-host scram-sha-256 --auth-local trust
  rm "$password"
  printf 'host all all all scram-sha-256\n' >>"$data/pg_hba.conf"
  as pg_ctl --pgdata "$data" --options "-c listen_addresses='' -k /tmp" --wait start
  as createdb --host /tmp --username "$POSTGRES_USER" "$POSTGRES_DB"
  for file in /docker-entrypoint-initdb.d/*.sql; do
    as psql --host /tmp --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --quiet <"$file"
  done
  as pg_ctl --pgdata "$data" --mode fast --wait stop
fi
exec setpriv --reuid postgres --regid postgres --clear-groups \
  postgres -D "$data" -c "listen_addresses=*" -c unix_socket_directories=/tmp
