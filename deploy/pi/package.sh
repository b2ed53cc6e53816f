#!/bin/sh
# Builds Debian packages of the gateway, with weir-provision: package.sh arm64 armhf. Prints each one's path and size.
#
# The same programs of the same commit make the same package, bit for bit: times are the commit's, owners are root, names are in
# order. The programs do not tell where they were built.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
tree=$root/deploy/pi/debian
out=${CARGO_TARGET_DIR:-$root/target}/pi-packages
work=$root/.tools/pi
mkdir -p "$out" "$work"
say() { printf 'pi: %s\n' "$*" >&2; }
. deploy/pi/apt.sh
command -v dpkg-deb >/dev/null || apt_install dpkg || { say "no dpkg-deb; install the package dpkg"; exit 3; }
command -v readelf >/dev/null || apt_install binutils || { say "no readelf; install the package binutils"; exit 3; }

: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
version() {
    released=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    commit=$(git rev-parse --short=8 HEAD 2>/dev/null || echo unknown)
    # Later commits are upgrades; what is not committed is told.
    dirty=$(git diff --quiet HEAD -- 2>/dev/null || echo .dirty)
    echo "$released+$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S).g$commit$dirty"
}
: "${VERSION:=$(version)}"

# Which libraries, and how new: from the symbols the programs really use.
depends() {
    glibc=$(readelf -W --dyn-syms --version-info "$@" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -1)
    # Raspberry Pi OS and Debian 12 have this one, Debian 13 a newer one.
    [ "$(printf '%s\n2.36\n' "$glibc" | sort -V | tail -1)" = 2.36 ] || {
        say "the program needs glibc $glibc, and Debian 12 has 2.36: build on Debian 12, or with its cross libraries"
        exit 1
    }
    printf 'libc6 (>= %s)' "$glibc"
    for library in $(readelf -W -d "$@" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
        case $library in
            libc.so.6 | libm.so.6 | libdl.so.2 | librt.so.1 | libpthread.so.0 | ld-linux*) ;;
            libgcc_s.so.1) printf ', libgcc-s1 (>= 4.2)' ;;
            *) say "the program needs $library, which is in no package known here"; exit 1 ;;
        esac
    done
}

# The libraries that are linked in, each with its licence: most of them ask for that.
libraries() { # libraries TARGET
    PATH=$PATH:/usr/bin cargo tree --locked -p weir-gateway -p weir-provision -e normal --target "$1" --prefix none --format '{p}|{l}' |
        sed 's/ (\*)$//; s/ (proc-macro)//' | grep -v -e '(/' -e '^$' | LC_ALL=C sort -u |
        while IFS='|' read -r library licence; do
            printf '\n==== %s: %s\n' "$library" "$licence"
            folder=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"${library% v*}-${library##* v}")
            find "$folder" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) |
                LC_ALL=C sort | xargs -r cat
        done
}

put() { # put MODE FROM TO
    mkdir -p "$(dirname "$stage$3")"
    install -m "$1" "$2" "$stage$3"
}
squeeze() { gzip -9n "$stage$1"; }

package() {
    arch=$1
    stage=$work/stage-$arch
    rm -rf "$stage"
    gateway=$(deploy/pi/build.sh "$arch")
    provision=$(deploy/pi/build.sh "$arch" weir-provision)
    programs="$gateway $provision"
    umask 022
    for program in $programs; do
        put 755 "$program" "/usr/bin/$(basename "$program")"
    done
    put 644 "$tree/weir-gateway.service" /usr/lib/systemd/system/weir-gateway.service
    put 644 "$tree/weir-gateway.sysusers" /usr/lib/sysusers.d/weir-gateway.conf
    put 644 "$tree/weir-gateway.tmpfiles" /usr/lib/tmpfiles.d/weir-gateway.conf
    put 644 "$tree/copyright" /usr/share/doc/weir-gateway/copyright
    put 644 deploy/pi/README.md /usr/share/doc/weir-gateway/README.md
    for program in $programs; do
        page=$(basename "$program").1
        put 644 "$tree/$page" "/usr/share/man/man1/$page"
        squeeze "/usr/share/man/man1/$page"
    done
    libraries "$(basename "$(dirname "$(dirname "$gateway")")")" >"$stage/usr/share/doc/weir-gateway/libraries"
    grep -q '^==== tokio v' "$stage/usr/share/doc/weir-gateway/libraries" || { say "cargo does not tell the libraries"; exit 1; }
    squeeze /usr/share/doc/weir-gateway/libraries
    mkdir -p "$stage/var/lib/weir"

    # The one file that explains every setting, with a Pi's profile.
    mkdir -p "$stage/etc/weir"
    sed 's/^profile = "server"$/profile = "pi"/' deploy/gateway.toml >"$stage/etc/weir/gateway.toml"
    grep -qx 'profile = "pi"' "$stage/etc/weir/gateway.toml" || { say "deploy/gateway.toml says no profile"; exit 1; }
    chmod 644 "$stage/etc/weir/gateway.toml"

    changelog=$stage/usr/share/doc/weir-gateway/changelog
    printf 'weir-gateway (%s) stable; urgency=medium\n\n  * Built from commit %s.\n\n -- Weir <weir@example.com>  %s\n' \
        "$VERSION" "$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
        "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" >"$changelog"
    chmod 644 "$changelog"
    squeeze /usr/share/doc/weir-gateway/changelog

    mkdir -p "$stage/DEBIAN"
    for script in postinst prerm postrm; do
        install -m 755 "$tree/$script" "$stage/DEBIAN/$script"
    done
    echo /etc/weir/gateway.toml >"$stage/DEBIAN/conffiles"
    size=$(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f1)
    # shellcheck disable=SC2086
    needed=$(depends $programs)
    sed -e "s/@version@/$VERSION/" -e "s/@arch@/$arch/" -e "s/@size@/$size/" -e "s/@depends@/$needed/" \
        "$tree/control.in" >"$stage/DEBIAN/control"
    (cd "$stage" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n' | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
    chmod 644 "$stage"/DEBIAN/control "$stage"/DEBIAN/conffiles "$stage"/DEBIAN/md5sums
    find "$stage" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

    rm -f "$out"/weir-gateway_*_"$arch.deb"
    deb=$out/weir-gateway_${VERSION}_$arch.deb
    dpkg-deb --root-owner-group -Zxz --build "$stage" "$deb" >/dev/null
    say "$arch: weir-gateway $(stat -c %s "$gateway" | numfmt --to=iec), weir-provision $(stat -c %s "$provision" | numfmt --to=iec), both stripped; package $(stat -c %s "$deb" | numfmt --to=iec), $(sed -n 's/^Depends: //p' "$stage/DEBIAN/control")"
    echo "$deb"
}

[ $# -gt 0 ] || { say "say for what: arm64, armhf"; exit 2; }
for arch; do package "$arch"; done
