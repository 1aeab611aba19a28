#!/usr/bin/env bash
# Run `make demo` and `make test` on a bare Debian 12, as an ordinary user:
#
#   sudo tests/fresh_machine.sh [MAKE TARGET…]
#
# The machine is made with debootstrap in a temporary folder, holds only the packages below, and gets
# a clone of HEAD. It uses this machine's network, package mirror, pip configuration and certificates.
# Takes about ten minutes and 2 GB. Needs root, debootstrap, and access to Debian's packages and PyPI.
set -euo pipefail

suite=bookworm
packages=python3,python3-venv,make,git,ca-certificates
user=newcomer

checkout=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
targets=("${@:-demo}")
[ $# -gt 0 ] || targets=(demo test)

if [ "$(id -u)" != 0 ]; then
    echo "Root is needed, for debootstrap and chroot: sudo $0" >&2
    exit 2
fi
for program in debootstrap unshare chroot git; do
    if ! command -v "$program" >/dev/null; then
        echo "$program is missing. On Debian and Ubuntu: apt install debootstrap util-linux git" >&2
        exit 2
    fi
done

# All mounts and processes belong to namespaces that end with this script, so nothing has to be
# unmounted or stopped, whatever interrupts it.
if [ "${FRESH_MACHINE:-}" = "" ]; then
    FRESH_MACHINE=$(mktemp --directory --tmpdir fresh-machine.XXXXXX)
    export FRESH_MACHINE
    trap 'rm -rf --one-file-system "$FRESH_MACHINE"' EXIT
    status=0
    unshare --mount --pid --fork --kill-child "${BASH_SOURCE[0]}" "${targets[@]}" || status=$?
    exit "$status"
fi
machine=$FRESH_MACHINE
home=/home/$user

# The mirror that this machine uses for the suite, or else debootstrap's own default.
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" 2>/dev/null | head -n 1) || true
echo "== Debian $suite with $packages, from ${mirror:-the default mirror}"
debootstrap --variant=minbase --include="$packages" "$suite" "$machine" ${mirror:+"$mirror"} \
    >"$machine.log" 2>&1 || { tail -n 20 "$machine.log" >&2; exit 1; }
rm -f "$machine.log"
chmod 755 "$machine" # mktemp lets only root in
mount -t proc proc "$machine/proc"
mount --rbind /dev "$machine/dev"

# How this machine reaches the network. Files keep their paths, since variables name them.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    [ ! -e "$file" ] || cp --dereference "$file" "$machine$file"
done
if [ -d /usr/local/share/ca-certificates ]; then
    cp --recursive --dereference /usr/local/share/ca-certificates "$machine/usr/local/share/"
    chroot "$machine" update-ca-certificates >/dev/null 2>&1
fi
chroot "$machine" useradd --create-home --shell /bin/bash "$user"
if [ -e "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" ]; then
    install -D "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$machine$home/.config/pip/pip.conf"
fi
variables=(HOME="$home" USER="$user" PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8)
while IFS= read -r name; do
    variables+=("$name=${!name}")
done < <(compgen -e | grep -iE '^(PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE$)|_PROXY$' || true)

git clone --quiet --no-hardlinks "$checkout" "$machine$home/checkout"
chroot "$machine" chown --recursive "$user:" "$home"

for target in "${targets[@]}"; do
    echo "== make $target"
    began=$SECONDS status=0
    chroot --userspec="$user" "$machine" env --ignore-environment "${variables[@]}" \
        make --no-print-directory --directory "$home/checkout" "$target" </dev/null \
        >"$machine/tmp/$target.log" 2>&1 || status=$?
    tail -n 15 "$machine/tmp/$target.log"
    echo "== make $target: exit status $status after $((SECONDS - began)) s"
    [ "$status" = 0 ] || exit "$status"
done
