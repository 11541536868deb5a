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

for name in ray_token postgres_password grafana_password; do
  test -s "$folder/$name" || random > "$folder/$name"
done

if ! test -s "$folder/s3.json"; then
  key="$(random)"
  printf '[default]\naws_access_key_id = revector\naws_secret_access_key = %s\n' "$key" > "$folder/aws_credentials"
  printf '{"identities": [{"name": "revector", "credentials": [{"accessKey": "revector", "secretKey": "%s"}], "actions": ["Admin"]}]}\n' "$key" > "$folder/s3.json"
fi
