#!/bin/sh
# Run by the entry point of the Postgres image when its volume is empty. For one that was there before:
#     docker compose -f infra/compose/compose.yaml exec postgres sh /docker-entrypoint-initdb.d/marts.sh
set -eu
psql --username "$POSTGRES_USER" --file /etc/revector/marts.sql \
  --set writer="$(cat /run/secrets/marts_writer_password)" --set reader="$(cat /run/secrets/marts_reader_password)"
