#!/bin/sh
# Installs what deps/apt.txt lists for the groups named on the command line, if anything is missing.
# Says which packages and why; uses sudo when not root; silent and quick when all is there.
set -eu
list=$(dirname "$0")/../deps/apt.txt
[ $# -gt 0 ] || set -- build test dev

# "package<TAB>why" of the wanted groups.
wanted=$(awk -F'|' -v groups=" $* " '
    /^[ \t]*(#|$)/ { next }
    { for (i = 1; i <= 3; i++) gsub(/^[ \t]+|[ \t]+$/, "", $i)
      if (index(groups, " " $2 " ")) print $1 "\t" $3 }' "$list")
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2>/dev/null |
    awk '$1 == "installed" { print $2 }')
missing=$(printf '%s\n--\n%s\n' "$installed" "$wanted" | awk -F'\t' '
    $0 == "--" { second = 1; next }
    !second { have[$0] = 1; next }
    !($1 in have)')
[ -n "$missing" ] || exit 0

echo "Installing Debian packages:"
printf '%s\n' "$missing" | awk -F'\t' '{ printf "  %-22s %s\n", $1, $2 }'
sudo=
if [ "$(id -u)" -ne 0 ]; then
    sudo=sudo
    command -v sudo >/dev/null || {
        echo "deps: not root and no sudo: install the packages above, then run make again" >&2
        exit 1
    }
fi
names=$(printf '%s\n' "$missing" | cut -f1)
apt_install() {
    # shellcheck disable=SC2086 # one word per package is what is meant
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o DPkg::Lock::Timeout=300 \
        --no-install-recommends $names
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A fresh machine has no package lists; a stale one has lists that name files no longer there.
if ! apt_install >"$log" 2>&1; then
    $sudo apt-get update -q -o DPkg::Lock::Timeout=300 >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    apt_install >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
