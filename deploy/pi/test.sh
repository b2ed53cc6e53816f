#!/bin/sh
# What `make test` does here: the arm64 gateway is built, packaged and checked, so that the end-to-end tests have it, too.
# (armhf only by `make pi`: it is the same code once more, and as much time.) Where no cross compiler can be had, it says so
# and goes on, unless WEIR_PI=arm64 asks for it.
set -eu
cd "$(dirname "$0")/../.."

skip() {
    [ "$1" = 3 ] && [ -z "${WEIR_PI:-}" ] || exit 1
    echo "pi: skipped, see above; the tests of the arm64 gateway will say so, too" >&2
    exit 0
}
package=$(deploy/pi/package.sh arm64) || skip $?
once=$(cksum <"$package")
again=$(deploy/pi/package.sh arm64 2>/dev/null)
[ "$once" = "$(cksum <"$again")" ] || { echo "pi: one commit has made two different packages" >&2; exit 1; }
deploy/pi/check.sh "$package" || skip $?
