#!/bin/sh
# Makes the secrets that compose.yaml mounts, once: sh deploy/compose-secrets.sh [FOLDER]
# The folder (deploy/secrets if none is named) must not exist: the script never overwrites anything.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
user=65532 # the user of the image

random() { head -c "$1" /dev/urandom; }
hex() { random 24 | od -An -v -tx1 | tr -d ' \n'; }

mkdir "$folder"
cd "$folder"
owner_password=$(hex)
worker_password=$(hex)
api_password=$(hex)
valkey_password=$(hex)

# For the containers of the servers, whose users differ. The mode of the folder keeps other users of this machine out.
printf '%s\n' "$owner_password" >owner_password
cat >roles.sql <<SQL
DO \$\$ BEGIN CREATE ROLE hookseal_worker NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$;
DO \$\$ BEGIN CREATE ROLE hookseal_api_publisher NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$;
CREATE ROLE hookseal_app LOGIN PASSWORD '$worker_password' IN ROLE hookseal_worker;
CREATE ROLE hookseal_http LOGIN PASSWORD '$api_password' IN ROLE hookseal_api_publisher;
SQL
printf 'requirepass %s\n' "$valkey_password" >valkey.conf
chmod 0444 owner_password roles.sql valkey.conf

# For the containers of hookseal, which refuses a master key that others may read.
printf 'postgresql://hookseal:%s@postgres:5432/hookseal\n' "$owner_password" >owner_database_url
printf 'postgresql://hookseal_app:%s@postgres:5432/hookseal\n' "$worker_password" >worker_database_url
printf 'postgresql://hookseal_http:%s@postgres:5432/hookseal\n' "$api_password" >api_database_url
printf 'redis://:%s@valkey:6379/0\n' "$valkey_password" >redis_url
random 32 | base64 >master_key
chmod 0400 owner_database_url worker_database_url api_database_url redis_url master_key
owned="owner_database_url worker_database_url api_database_url redis_url master_key"
if [ "$(id -u)" -eq 0 ]; then
  # shellcheck disable=SC2086 # five names, and a space between them
  chown "$user:$user" $owned
else
  echo "One thing is left, for which root is needed: the user of the image must own what it reads." >&2
  echo "  sudo sh -c 'cd $(pwd) && chown $user:$user $owned'" >&2
fi
echo "Keep a copy of $folder/master_key apart from the database: without it no stored secret can be read." >&2
