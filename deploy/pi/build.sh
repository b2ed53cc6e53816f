#!/bin/sh
# Cross-builds a program for a Raspberry Pi and prints its path:
#
#   deploy/pi/build.sh arm64                  weir-gateway for Pi 3, 4, 5, Zero 2 W with a 64-bit system
#   deploy/pi/build.sh armhf                  for Pi 2 and later with a 32-bit system
#   deploy/pi/build.sh arm64 weir-provision   another program of the workspace, which a package of that name has
#
# The compiler is the first of these that can be had:
#   1. rustup's, with the target added to it
#   2. Debian's rustc-web, with the standard library of the same version for the other architecture
#   3. Debian's rustc-web, which builds the standard library itself (-Zbuild-std): some minutes more
# The linker is Debian's gcc for the other architecture. What is missing is installed where that needs no password; ends with
# 3 if it cannot be had.
set -eu

cd "$(dirname "$0")/../.."
root=$PWD
arch=${1:?say arm64 or armhf}
program=${2:-weir-gateway}
case $arch in
    arm64) target=aarch64-unknown-linux-gnu cross=aarch64-linux-gnu libc=libc6-dev-arm64-cross ;;
    armhf) target=armv7-unknown-linux-gnueabihf cross=arm-linux-gnueabihf libc=libc6-dev-armhf-cross ;;
    *) echo "pi: $arch is neither arm64 nor armhf" >&2; exit 2 ;;
esac
work=$root/.tools/pi
mkdir -p "$work"

say() { printf 'pi: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
. deploy/pi/apt.sh

linker() {
    have "$cross-gcc" || apt_install "gcc-$cross" "$libc" || {
        say "no C compiler for $arch. Install one, for instance: sudo apt-get install gcc-$cross $libc"
        exit 3
    }
}

# Rust for the target by rustup: sets $cargo.
by_rustup() {
    have rustup || return 1
    rustup target list --installed 2>/dev/null | grep -qx "$target" || {
        say "adding $target to rustup's toolchain"
        timeout 300 rustup target add "$target" >"$work/rustup.log" 2>&1 || {
            say "rustup could not; its words are in $work/rustup.log"
            return 1
        }
    }
    # Somebody may have rustup and another compiler before it on his PATH.
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || return 1
    cargo=cargo
}

# Debian's compiler, new enough: sets $cargo, $RUSTC and the target's flags.
by_debian() {
    new_enough() { /usr/bin/rustc --version 2>/dev/null | awk '{ split($2, v, "."); exit !(v[1] > 1 || v[2] >= 89) }'; }
    new_enough || apt_install rustc-web cargo-web || return 1
    new_enough || return 1
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc PATH="/usr/bin:$PATH"
    version=$(dpkg-query -W -f '${Version}' rustc-web)
    library=$work/$arch-$version
    if [ -d "$library/usr" ] || library_from_apt; then
        flags="--sysroot=$library/usr"
    else
        say "no standard library for $arch of $version from apt, so it is built"
        [ -d /usr/lib/rustlib/src ] || [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src" ] || apt_install rust-web-src || return 1
        export RUSTC_BOOTSTRAP=1
        build_std="-Zbuild-std=std,panic_unwind"
    fi
}

# Unpacks Debian's standard library for the other architecture beside ours, without telling dpkg of that architecture.
library_from_apt() {
    lists=$work/lists-$arch
    mkdir -p "$lists/partial" "$work/download"
    set -- -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o "Dir::State::lists=$lists" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
    say "fetching Rust's standard library for $arch"
    # Sources that do not know the architecture complain; the download tells whether it worked.
    apt-get "$@" update >"$work/apt-$arch.log" 2>&1 || true
    (cd "$work/download" && apt-get "$@" download "libstd-rust-web-dev:$arch=$version") >>"$work/apt-$arch.log" 2>&1 || return 1
    rm -rf "$library.new"
    dpkg-deb -x "$work"/download/libstd-rust-web-dev_*_"$arch.deb" "$library.new"
    rm -rf "$work/download"
    mv "$library.new" "$library"
}

flags='' build_std=''
linker
by_rustup || by_debian || {
    say "no Rust for $target. Either: rustup target add $target, or on Debian: sudo apt-get install rustc-web cargo-web rust-web-src"
    exit 3
}

# The C libraries' build scripts watch it, so every commit would build them again and all that stands on them.
unset SOURCE_DATE_EPOCH

# Where it was built is nobody's business, and would make two builds of one commit differ.
homes="$root=/weir ${CARGO_HOME:-$HOME/.cargo}=/cargo"
prefix_maps='' c_maps=''
for home in $homes; do
    prefix_maps="$prefix_maps --remap-path-prefix=$home"
    c_maps="$c_maps -ffile-prefix-map=$home"
done
upper=$(printf %s "$target" | tr 'a-z-' 'A-Z_')
lower=$(printf %s "$target" | tr - _)
export "CARGO_TARGET_${upper}_LINKER=$cross-gcc"
export "CARGO_TARGET_${upper}_RUSTFLAGS=${flags:+$flags }${prefix_maps# }"
export "CC_$lower=$cross-gcc" "AR_$lower=$cross-ar" "CFLAGS_$lower=${c_maps# }"
# shellcheck disable=SC2086
nice -n "${NICE:-0}" "$cargo" build --quiet --locked --profile pi $build_std --target "$target" -p "$program" --bin "$program" >&2
echo "${CARGO_TARGET_DIR:-$root/target}/$target/pi/$program"
