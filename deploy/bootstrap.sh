#!/bin/sh
# Installs from Debian's packages what this machine lacks, and nothing that it has.
#
#   deploy/bootstrap.sh            what `make run` needs
#   deploy/bootstrap.sh --tests    and what `make test` needs beside it
#
# The services that come with the packages are neither started nor enabled: media-scanner has a clamd of its own,
# and a second one would cost another gigabyte. Those that were there before are left as they are.
set -eu

PATH=$PATH:/usr/sbin:/sbin
PYTHON=${PYTHON:-python3}
policy=/usr/sbin/policy-rc.d
machines_policy=$policy.kept-by-media-scanner
mark="media-scanner's bootstrap put this here"

say() { echo "bootstrap: $*" >&2; }

command_or() { command -v "$1" >/dev/null 2>&1 || echo "$2"; }

file_or() { [ -e "$1" ] || echo "$2"; }

library_or() { ldconfig -p | grep -q "$1" || echo "$2"; }

missing_to_run() {
    command_or clamd clamav-daemon
    command_or freshclam clamav-freshclam
    library_or libmagic.so.1 libmagic1
    library_or libarchive.so.13 libarchive13
    library_or libseccomp.so.2 libseccomp2
    command_or curl curl # for what README and the demo say to try
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

missing_to_test() {
    command_or node nodejs
    command_or npm npm
    command_or zip zip
    command_or unzip unzip
    command_or 7z p7zip-full
    command_or bsdtar libarchive-tools
    command_or clamdscan clamdscan
    command_or nginx nginx
    command_or caddy caddy
    command_or haproxy haproxy
    # What people pack with, for tests of what is in archives.
    command_or ar binutils
    command_or bzip2 bzip2
    command_or compress ncompress
    command_or cpio cpio
    command_or genisoimage genisoimage
    command_or jar default-jdk-headless
    command_or lz4 lz4
    command_or lzip lzip
    command_or mksquashfs squashfs-tools
    command_or pdfdetach poppler-utils
    command_or qpdf qpdf
    office=/usr/lib/libreoffice/program
    file_or $office/libswlo.so libreoffice-writer-nogui
    file_or $office/libsclo.so libreoffice-calc-nogui
    file_or $office/libsdlo.so libreoffice-impress-nogui
    command_or xz xz-utils
    command_or zstd zstd
}

require_python() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    say "$PYTHON is not Python 3.11 or newer; name another: make PYTHON=/path/to/python3.11 ..."
    exit 1
}

# Everything below runs as root.

services_to_hold() {
    for service in clamav-daemon clamav-freshclam nginx caddy haproxy; do
        [ -e "/lib/systemd/system/$service.service" ] || echo "$service"
    done
}

# Debian's maintainer scripts ask policy-rc.d before they start anything; 101 is "do not". Where there is neither
# an init nor a policy, they would not start anything either.
hold() {
    [ ! -e "$policy" ] || mv "$policy" "$machines_policy"
    cat >"$policy" <<END
#!/bin/sh
# $mark while it installs packages.
for word; do
    for service in $*; do
        case "\$word" in "\$service" | "\$service".*) exit 101 ;; esac
    done
done
[ ! -x $machines_policy ] || exec $machines_policy "\$@"
[ -e /sbin/init ] || exit 101
END
    chmod 755 "$policy"
}

release() {
    if [ -e "$machines_policy" ]; then
        mv "$machines_policy" "$policy"
    elif grep -qs "$mark" "$policy"; then
        rm "$policy"
    fi
}

disable() {
    for service in "$@"; do
        [ -e "/lib/systemd/system/$service.service" ] || continue
        update-rc.d "$service" disable >/dev/null 2>&1 || true
        # It works for maintainer scripts only, and knows one by this variable.
        DPKG_MAINTSCRIPT_PACKAGE=$service deb-systemd-helper disable "$service.service" "$service.socket" \
            >/dev/null 2>&1 || true
        say "$service is neither started nor enabled; to have it:"
        say "    systemctl enable --now $service"
    done
}

install_packages() {
    release # what a run left that was killed half way
    held=$(services_to_hold | tr '\n' ' ')
    trap release EXIT
    trap 'exit 130' HUP INT TERM
    # shellcheck disable=SC2086  # a list of names
    hold $held
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    apt-get -q update >/dev/null || say "apt-get update failed; going on with the lists that are there"
    apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
    # shellcheck disable=SC2086
    disable $held
}

become_root() {
    if [ "$(id -u)" = 0 ]; then
        install_packages "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo sh "$0" --install "$@"; then
        return
    else
        say "these packages are missing, and neither root nor sudo could install them. As root, run:"
        say "    sh $0 --install $*"
        exit 1
    fi
}

main() {
    require_python
    missing=$(
        missing_to_run
        [ "${1:-}" != --tests ] || missing_to_test
    )
    [ -n "$missing" ] || grep -qs "$mark" "$policy" || return 0
    # shellcheck disable=SC2086  # a list of names, one a line
    set -- $missing
    say "installing Debian packages: $*"
    become_root "$@"
}

if [ "${1:-}" = --install ]; then
    shift
    install_packages "$@"
else
    main "$@"
fi
