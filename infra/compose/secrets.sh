#!/bin/sh
# Makes the secrets of the local stack, each once, in secrets/ beside this file: random, known to nobody else, never in Git.
#
# The folder is closed to others; the files in it can be read by all, as Compose mounts them with the rights that they have here,
# and the containers' users are not the one who runs this.
set -eu
umask 022
folder="$(dirname "$0")/secrets"
mkdir -p "$folder"
chmod 700 "$folder"

random() {
  python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")'
}

for name in ray_token postgres_password grafana_password dashboard_token marts_writer_password marts_reader_password; do
  test -s "$folder/$name" || random > "$folder/$name"
done

test -s "$folder/pg_service.conf" ||
  printf '[marts]\nhost=postgres\ndbname=marts\nuser=revector\npassword=%s\n' "$(cat "$folder/marts_writer_password")" > "$folder/pg_service.conf"

# Of the object store: one who may do all, and one who may read. Both anew where one is missing; nothing that is stored depends on them.
if ! test -s "$folder/s3.json" || ! test -s "$folder/aws_read_credentials"; then
  key="$(random)"
  read_key="$(random)"
  printf '[default]\naws_access_key_id = revector\naws_secret_access_key = %s\n' "$key" > "$folder/aws_credentials"
  printf '[default]\naws_access_key_id = reader\naws_secret_access_key = %s\n' "$read_key" > "$folder/aws_read_credentials"
  cat > "$folder/s3.json" <<END
{"identities": [
  {"name": "revector", "credentials": [{"accessKey": "revector", "secretKey": "$key"}], "actions": ["Admin"]},
  {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "$read_key"}], "actions": ["Read:revector", "List:revector"]}
]}
END
fi
