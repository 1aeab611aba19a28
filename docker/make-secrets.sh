#!/bin/sh
# Creates the files in secrets/ that compose.yaml uses. Existing files are not changed.
#
#   ./make-secrets.sh                 asks for the Harasocial token (the sandbox needs none)
#   ./make-secrets.sh < token.txt     reads the token from a file
set -eu

cd "$(dirname "$0")"
# Only the owner can enter the folder. The files themselves are readable by everyone, because
# Compose mounts them with their permissions, and the containers run as other users.
umask 022
mkdir -p secrets
chmod 700 secrets

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

make() {
    if [ -e "secrets/$1" ]; then
        echo "secrets/$1 already exists" >&2
    else
        printf '%s\n' "$2" >"secrets/$1"
        echo "created secrets/$1" >&2
    fi
}

make redis_password "$(random)"
make redis_url "redis://:$(cat secrets/redis_password)@redis:6379/0"
make flower_basic_auth "harasocial:$(random)"

if [ ! -e secrets/token ]; then
    token=
    if [ -t 0 ]; then
        printf 'Harasocial token (scope social.conv; Enter for none): ' >&2
        trap 'stty echo' EXIT
        stty -echo
        read -r token || true
        stty echo
        echo >&2
    else
        read -r token || true
    fi
    make token "$token"
    [ -n "$token" ] || echo "secrets/token is empty: only the profile sandbox works" >&2
fi
echo "Flower's user and password are in secrets/flower_basic_auth" >&2
