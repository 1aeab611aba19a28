#!/bin/sh
# Makes the files in secrets/ that compose.yaml names. What is there already is left as it is.
#
#   ./make-secrets.sh                 asks for the Harasocial token; none is needed for the sandbox
#   ./make-secrets.sh < token.txt     takes it from there
set -eu

cd "$(dirname "$0")"
# Only their owner gets into the folder. The files themselves must be open, since Compose mounts
# them as they are and the containers run as other users.
umask 022
mkdir -p secrets
chmod 700 secrets

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

make() {
    if [ -e "secrets/$1" ]; then
        echo "secrets/$1 is there already" >&2
    else
        printf '%s\n' "$2" >"secrets/$1"
        echo "secrets/$1 made" >&2
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
    [ -n "$token" ] || echo "secrets/token is empty: only the profile sandbox can run" >&2
fi
echo "Flower's user and password are in secrets/flower_basic_auth" >&2
