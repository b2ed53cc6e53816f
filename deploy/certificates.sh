#!/bin/sh
# A small certificate authority for Weir: one authority for servers, one for clients.
#
#   certificates.sh FOLDER                 makes the two authorities, if they are not there
#   certificates.sh FOLDER server HOST…    a server's certificate for these host names and addresses
#   certificates.sh FOLDER client NAME     a client's certificate; NAME is the device's, gateway's or service's id
#
# Needs openssl 1.1.1 or later. Writes FOLDER/{servers,clients}-ca.pem and FOLDER/NAME.{pem,key}.
set -eu
umask 077
usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }
[ $# -ge 1 ] || usage
folder=$1
shift
mkdir -p "$folder"
cd "$folder"

authority() {
    [ -e "$1-ca.pem" ] && return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7300 \
        -keyout "$1-ca.key" -out "$1-ca.pem" -subj "/CN=Weir $1" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
    chmod 644 "$1-ca.pem"
    echo "made $folder/$1-ca.pem"
}

# certificate AUTHORITY NAME USAGE ALTERNATIVE-NAMES
certificate() {
    if [ -e "$2.pem" ]; then
        echo "certificates.sh: $folder/$2.pem is there already; remove it to make another" >&2
        exit 1
    fi
    request=$2.csr
    extensions=$(mktemp)
    trap 'rm -f "$extensions" "$request"' EXIT
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = $3"
        [ -z "$4" ] || echo "subjectAltName = $4"
    } >"$extensions"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$2.key" -out "$request" -subj "/CN=$2" 2>/dev/null
    openssl x509 -req -in "$request" -CA "$1-ca.pem" -CAkey "$1-ca.key" -CAcreateserial -days 825 \
        -extfile "$extensions" -out "$2.pem" 2>/dev/null
    chmod 644 "$2.pem"
    echo "made $folder/$2.pem and $folder/$2.key"
}

authority servers
authority clients
[ $# -ge 1 ] || exit 0
kind=$1
shift
[ $# -ge 1 ] || usage
case $kind in
server)
    name=$1
    names=
    for host in "$@"; do
        case $host in
        *[!0-9.]*) case $host in *:*) names="$names,IP:$host" ;; *) names="$names,DNS:$host" ;; esac ;;
        *) names="$names,IP:$host" ;;
        esac
    done
    certificate servers "$name" serverAuth "${names#,}"
    ;;
client)
    case $1 in *[!A-Za-z0-9_-]*) echo "certificates.sh: a name is 1 to 32 of A-Z a-z 0-9 _ -" >&2; exit 2 ;; esac
    certificate clients "$1" clientAuth ""
    ;;
*) usage ;;
esac
