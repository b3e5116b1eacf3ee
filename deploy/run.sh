#!/bin/sh
# Serves from this checkout in front of $HOMESERVER. For trying; for production see docs/operations.md, "Installing".
# Everything installed beforehand: `make run` sees to that. Any MEDIA_SCANNER__... that is set already stays as it is;
# /etc/media-scanner.yaml, of an installation, does not count.
set -eu

cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
user=media-scanner
home=/var/lib/$user
database=/var/lib/clamav
command=$PWD/.venv/bin/media-scanner

say() { echo "run: $*" >&2; }

is_root() { [ "$(id -u)" = 0 ]; }

# As scanner/clamd/home.py sees it: files that name what is bad, the system's or those that our freshclam brought.
has_signatures() {
    for file in "$database"/* "$database/$user/database"/*; do
        case "${file##*/}" in
            bytecode.*) ;;
            *.c[vlu]d | *.db | *.[chlmn]db | *.[hm]sb | *.yar | *.yara) return 0 ;;
        esac
    done
    return 1
}

as_user() { setpriv --reuid="$user" --regid="$user" --init-groups "$@"; }

# Debian's AppArmor profile lets clamd have its files below the database folder and nowhere else that would last.
make_user() {
    id "$user" >/dev/null 2>&1 ||
        useradd --system --user-group --home-dir "$home" --no-create-home --shell /usr/sbin/nologin "$user"
    install -d -m 700 -o "$user" -g "$user" "$home" "$database/$user"
}

user_can_serve() { as_user "$PWD/.venv/bin/python" -c 'import aiohttp, scanner' 2>/dev/null; }

: "${MEDIA_SCANNER__HOMESERVER__URL:=${HOMESERVER:-http://127.0.0.1:8008}}"
: "${MEDIA_SCANNER__SERVER__LISTEN:=127.0.0.1:8080}"
export MEDIA_SCANNER__HOMESERVER__URL MEDIA_SCANNER__SERVER__LISTEN

has_signatures || export MEDIA_SCANNER__CLAMAV__ACCEPT_TEST_SIGNATURES="${MEDIA_SCANNER__CLAMAV__ACCEPT_TEST_SIGNATURES:-true}"

if is_root; then
    make_user
    if user_can_serve; then
        export HOME="$home" MEDIA_SCANNER__STATE_DIR="${MEDIA_SCANNER__STATE_DIR:-$home}"
        exec setpriv --reuid="$user" --regid="$user" --init-groups "$command" serve --config /dev/null
    fi
    say "serving as root: the user $user cannot read this checkout,"
    say "or run its Python; in /opt, say, it could ($PWD)"
fi
export MEDIA_SCANNER__STATE_DIR="${MEDIA_SCANNER__STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/$user}"
exec "$command" serve --config /dev/null
