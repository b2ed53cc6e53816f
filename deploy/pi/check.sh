#!/bin/sh
# Checks packages: check.sh FILE.deb …
#
#   lintian          no errors, no warnings
#   the unit         systemd-analyze verify, and its exposure: at most 1.2 of 10
#   dpkg             install, upgrade, remove, install again, purge in an empty tree, with the scripts run
#   the programs     run under qemu-user; the gateway finds its configuration right, weir-provision reads what it wrote
#
# What is missing for that is installed where that needs no password; ends with 3 if it cannot be had.
set -eu
cd "$(dirname "$0")/../.."
work=$PWD/.tools/pi
mkdir -p "$work"
say() { printf 'pi: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
. deploy/pi/apt.sh
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null || apt_install "$2" || { say "no $1. To have it: sudo apt-get install $2"; exit 3; }
}
need lintian lintian
need systemd-analyze systemd
need systemd-sysusers systemd
need deb-systemd-helper init-system-helpers
need qemu-aarch64-static qemu-user-static
exposure_max=12

lint() {
    lintian --fail-on error,warning "$1" >&2 || fail "lintian has found something in $1"
}

unit() {
    tree=$(mktemp -d)
    dpkg-deb -x "$1" "$tree"
    # `verify` wants the program to be there and to be executable, not to be for this machine.
    systemd-analyze verify --man=no --recursive-errors=no --root="$tree" weir-gateway.service >&2 || fail "systemd does not like the unit"
    exposure=$(systemd-analyze security --offline=true --root="$tree" --no-pager weir-gateway.service |
        sed -n 's/.*Overall exposure level for weir-gateway.service: \([0-9]*\)\.\([0-9]\).*/\1\2/p')
    [ -n "$exposure" ] || fail "systemd-analyze security says nothing about the unit"
    [ "$exposure" -le "$exposure_max" ] || fail "the unit's exposure is $exposure tenths, at most $exposure_max are allowed"
    say "the unit's exposure by systemd-analyze security: $((exposure / 10)).$((exposure % 10)) of 10"
    rm -rf "$tree"
}

# A tree in which dpkg works and the scripts run, as this machine's user: nothing outside of it is touched.
inside() {
    dpkg --root="$tree" --force-not-root --force-script-chrootless --force-architecture --force-depends \
        --log=/dev/null "$@" >"$tree.log" 2>&1 || { cat "$tree.log" >&2; fail "dpkg $* failed"; }
}
is() { test "$@" || fail "after $step: not so: test $*"; }

life() {
    tree=$(mktemp -d)
    mkdir -p "$tree/var/lib/dpkg/updates" "$tree/var/lib/dpkg/info" "$tree/var/lib/dpkg/triggers" "$tree/etc"
    : >"$tree/var/lib/dpkg/status"
    : >"$tree/var/lib/dpkg/available"
    step="the installation"
    inside -i "$1"
    is -x "$tree/usr/bin/weir-gateway"
    is -x "$tree/usr/bin/weir-provision"
    is -d "$tree/var/lib/weir"
    # A link to where the unit will be once this tree is a system.
    is -h "$tree/etc/systemd/system/multi-user.target.wants/weir-gateway.service"
    grep -q '^weir-gateway:' "$tree/etc/passwd" || fail "there is no user weir-gateway"
    id=$(sed -n 's/^weir-gateway:[^:]*:\([0-9]*\):.*/\1/p' "$tree/etc/passwd")
    group=$(sed -n 's/^weir-gateway:[^:]*:\([0-9]*\):.*/\1/p' "$tree/etc/group")
    if [ "$(id -u)" = 0 ]; then
        is "$(stat -c %u:%g:%a "$tree/var/lib/weir")" = "$id:$group:750"
        is "$(stat -c %u:%g:%a "$tree/etc/weir/gateway.toml")" = "0:$group:640"
    fi
    mkdir -p "$tree/var/lib/weir/spool"
    echo events >"$tree/var/lib/weir/spool/epoch"
    sed -i 's/^site = .*/site = "mine"/' "$tree/etc/weir/gateway.toml"

    step="an upgrade"
    newer=$(newer "$1")
    inside -i "$newer"
    is -s "$tree/var/lib/weir/spool/epoch"
    grep -qx 'site = "mine"' "$tree/etc/weir/gateway.toml" || fail "the upgrade has changed the configuration"
    dpkg-query --admindir="$tree/var/lib/dpkg" -W -f '${Version}' weir-gateway | grep -q '+newer$' || fail "it is not upgraded"

    step="removing"
    inside -r weir-gateway
    is ! -e "$tree/usr/bin/weir-gateway"
    is ! -e "$tree/usr/bin/weir-provision"
    is -s "$tree/var/lib/weir/spool/epoch"
    is -s "$tree/etc/weir/gateway.toml"

    step="purging"
    inside -i "$1"
    echo key >"$tree/etc/weir/mine.key"
    inside -P weir-gateway </dev/null
    is ! -e "$tree/var/lib/weir"
    is ! -e "$tree/etc/weir/gateway.toml"
    is -s "$tree/etc/weir/mine.key"
    is ! -h "$tree/etc/systemd/system/multi-user.target.wants/weir-gateway.service"
    rm -rf "$tree" "$tree.log" "$(dirname "$newer")"
}

# The same package with a higher version.
newer() {
    folder=$(mktemp -d)
    dpkg-deb -R "$1" "$folder/tree"
    sed -i 's/^Version: .*/&+newer/' "$folder/tree/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone --build "$folder/tree" "$folder/newer.deb" >/dev/null
    rm -rf "$folder/tree"
    echo "$folder/newer.deb"
}

programs() {
    tree=$(mktemp -d)
    dpkg-deb -x "$1" "$tree"
    case $(dpkg-deb -f "$1" Architecture) in
        arm64) emulator="qemu-aarch64-static -L /usr/aarch64-linux-gnu" ;;
        armhf) emulator="qemu-arm-static -cpu cortex-a7 -L /usr/arm-linux-gnueabihf" ;;
        *) fail "nobody knows how to run $1" ;;
    esac
    $emulator "$tree/usr/bin/weir-gateway" --version >&2 || fail "the binary in $1 does not run"
    sed "s#^folder = .*#folder = \"$tree/spool\"#" "$tree/etc/weir/gateway.toml" >"$tree/here.toml"
    $emulator "$tree/usr/bin/weir-gateway" check --config "$tree/here.toml" | grep -x 'connections_max = 1000' >/dev/null ||
        fail "the binary in $1 does not like its configuration"
    provision="$emulator $tree/usr/bin/weir-provision"
    $provision write --device d-1 --gateway gw-1.local --out "$tree/record.uf2" --address 0x101F0000 >&2 ||
        fail "weir-provision in $1 does not write a record"
    $provision read "$tree/record.uf2" --json | grep -F '"device": "d-1"' >/dev/null || fail "weir-provision in $1 does not read its record"
    rm -rf "$tree"
}

for deb; do
    lint "$deb"
    unit "$deb"
    life "$deb"
    programs "$deb"
    say "$deb is in order"
done
