# shellcheck shell=sh disable=SC2154
# Read by the scripts here, which have said where to $work. Installs Debian packages where that needs no password; otherwise only tells the caller.
apt_install() {
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "installing $* with apt-get"
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$work/apt.log" 2>&1 && return 0
        # A fresh container has no package lists yet.
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
            >"$work/apt.log" 2>&1 && return 0
        say "apt-get could not; its words are in $work/apt.log"
    fi
    return 1
}
