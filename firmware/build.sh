#!/bin/sh
# Builds the firmware for every board, in release, and holds its size against the budgets below.
#
#   firmware/build.sh              all boards
#   firmware/build.sh BOARD…       these: names of folders in firmware/boards
#
# With rustup's targets where rustup has them; else with Debian's rustc-web, which brings the library's sources, and
# GNU's linker. Says which. The library is built for size there, so that images are some 3 KB smaller than rustup's. Installs what is missing where it can, and says what to do where it cannot.
set -eu

# Sets flash_max and ram_max of a board, in bytes. RAM is that of all variables and of the stack that is reserved: it lies
# below the variables, so that a program which needs more faults and is not silently wrong (see a board's memory.x).
# The emulated board is the smallest one that is meant; the others have larger drivers, and memory for them.
budget() {
    case $1 in
    qemu-lm3s) flash_max=98304 ram_max=24576 ;;
    *) flash_max=126976 ram_max=36864 ;;
    esac
}

cd "$(dirname "$0")"
tools=$PWD/../.tools
mkdir -p "$tools"

say() { printf 'firmware: %s\n' "$*" >&2; }
give_up() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs Debian packages where that needs no password.
apt_install() {
    have apt-get && [ "$(id -u)" = 0 ] || return 1
    say "installing $* with apt-get"
    { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
    } >"$tools/apt-firmware.log" 2>&1 || { say "apt-get could not; its words are in $tools/apt-firmware.log"; return 1; }
}

target_of() { sed -n 's/^target *= *"\(.*\)"$/\1/p' "boards/$1/.cargo/config.toml"; }

# Of the toolchain that builds: it may be another one than that which runs the tests, and another compiler than rustup's
# may stand before it on the PATH.
rustup_has() {
    have rustup && quietly rustup target list --installed 2>/dev/null | grep -qx "$1" &&
        [ -d "$(quietly rustc --print sysroot)/lib/rustlib/$1" ]
}
debian_has() { [ -x /usr/bin/cargo ] && [ -d /usr/lib/rustlib/src/rust/library ] && have arm-none-eabi-ld; }

# Which toolchain for a target: rustup or debian. What is there already goes before what could be installed.
toolchain_for() {
    if rustup_has "$1"; then echo rustup
    elif debian_has; then echo debian
    elif have rustup && quietly timeout 120 rustup target add "$1" >"$tools/rustup.log" 2>&1 && rustup_has "$1"; then echo rustup
    elif apt_install rustc-web cargo-web rust-web-src gcc-arm-none-eabi && debian_has; then echo debian
    else
        give_up "no compiler for $1. Either: rustup target add $1. Or, on Debian 12: sudo apt-get install rustc-web cargo-web rust-web-src gcc-arm-none-eabi"
    fi
}

# Cargo tells a build about itself in the environment; what another cargo (one that runs tests, say) told is not for this.
quietly() {
    env -u CARGO -u RUSTC -u RUSTUP_TOOLCHAIN -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
        -u CARGO_TARGET_DIR -u CARGO_MANIFEST_DIR "$@"
}

# The image holds the name of each source file in which something could panic. Which folders these are in is nobody's
# concern, and the image would be larger in one place than in another.
short_names() {
    sysroot=$(quietly rustc --print sysroot)
    prefixes="'--remap-path-prefix', '$(cd ../../.. && pwd)/=', '--remap-path-prefix', '$sysroot/lib/rustlib/src/rust/='"
    for sources in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        prefixes="$prefixes, '--remap-path-prefix', '$sources='"
    done
    echo "target.$1.rustflags = [$prefixes]"
}

build() {
    board=$1
    target=$(target_of "$board")
    [ -n "$target" ] || give_up "boards/$board/.cargo/config.toml names no target"
    toolchain=$(toolchain_for "$target")
    (
        cd "boards/$board"
        [ "$toolchain" = rustup ] || PATH=/usr/bin:$PATH
        quietly cargo fetch --quiet --locked --target "$target"
        names=$(short_names "$target")
        if [ "$toolchain" = rustup ]; then
            say "$board with rustup's $(quietly rustc --version) and its library for $target"
            quietly cargo build --quiet --locked --release --config "$names"
        else
            say "$board with Debian's $(/usr/bin/rustc --version), which builds the library for $target"
            linker=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_LINKER
            quietly env RUSTC_BOOTSTRAP=1 "$linker=arm-none-eabi-ld" \
                cargo build --quiet --locked --release --config "$names" -Zbuild-std=core,alloc
        fi
    ) || give_up "$board does not build"
    measure "$board" "$PWD/target/$target/release/weir-$board"
}

# Prints and checks what an image takes.
measure() {
    budget "$1"
    size=size nm=nm
    have arm-none-eabi-size && size=arm-none-eabi-size nm=arm-none-eabi-nm
    have "$size" || { apt_install binutils || give_up "no 'size': install binutils"; }
    sections=$("$size" -A "$2")
    sum() { echo "$sections" | awk -v names="$1" 'BEGIN { n = split(names, a, " "); for (i = 1; i <= n; i++) want[a[i]] = 1 } want[$1] { s += $2 } END { print s + 0 }'; }
    symbol() { "$nm" "$2" | awk -v name="$1" '$3 == name { print "0x" $1 }'; }
    flash=$(sum ".boot2 .vector_table .text .rodata .data" "$2")
    variables=$(sum ".data .bss .uninit" "$2")
    stack=$(($(symbol _stack_start "$2") - $(symbol _stack_end "$2")))
    ram=$((variables + stack))
    printf '%-18s flash %6d of %d, RAM %5d of %d (%d variables + %d stack reserved)  %s\n' \
        "$1" "$flash" "$flash_max" "$ram" "$ram_max" "$variables" "$stack" "$2"
    [ "$flash" -le "$flash_max" ] || give_up "$1 takes more flash than its budget"
    [ "$ram" -le "$ram_max" ] || give_up "$1 takes more RAM than its budget"
}

[ $# -gt 0 ] || set -- $(ls boards)
for board; do build "$board"; done
