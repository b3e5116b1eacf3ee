"""The scripts that `make` runs, of `deploy/`: on this machine, and on overlays of it that are thrown away."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
BOOTSTRAP = CHECKOUT / "deploy" / "bootstrap.sh"
RUN = CHECKOUT / "deploy" / "run.sh"
PATIENTLY = CHECKOUT / "deploy" / "patiently.sh"

OWN_NAMESPACES = ["unshare", "--mount", "--pid", "--fork"]

# A mount and a process namespace of its own: what a maintainer script writes, starts or kills stays in there.
ENTER_OVERLAY = """
set -eu
top=$1 shared=$2 script=$3
mount -t tmpfs -o mode=755 tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/machine"
mount -t overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" overlay "$top/machine"
cd "$top/machine"
mount -t proc proc proc
mount --rbind /dev dev
cp --dereference /etc/resolv.conf /etc/hosts etc/
mkdir -p tmp "./$shared"
chmod 1777 tmp
mount --bind "$shared" "./$shared"
exec chroot . sh -euc "$script"
"""

# As systemd's machines answer Debian's maintainer scripts, with everything that they ask for written down.
WITHOUT_CLAMAV = """
dpkg --purge --force-depends clamav-daemon clamav-freshclam >/dev/null 2>&1
rm -f /usr/sbin/policy-rc.d
mkdir -p /run/systemd/system
mv /usr/bin/systemctl /usr/bin/systemctl.real
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
case "$*" in
    *--root=*) exec /usr/bin/systemctl.real "$@" ;;
    *LoadState*) echo LoadState=loaded ;;
    *is-enabled*) echo enabled ;;
    *is-active*) exit 3 ;;
    *start*) echo "started: $*" >>/asked ;;
esac
END
chmod 755 /usr/bin/systemctl
"""

WHAT_IS_THERE = """
[ ! -e /asked ] || cat /asked
command -v clamd
find /etc/systemd/system -type l -name 'clamav-*' -printf 'enabled: %f\\n'
find /etc/rc?.d -name 'S*clamav-*' -printf 'enabled: %f\\n'
[ ! -e /usr/sbin/policy-rc.d ] || cat /usr/sbin/policy-rc.d
"""

WHICH_PROXIES_ARE_THERE = """
[ ! -e /asked ] || cat /asked
ls /usr/sbin/nginx /usr/bin/caddy /usr/sbin/haproxy
for name in nginx caddy haproxy; do
    find /etc/systemd/system -type l -name "$name.*" -printf 'enabled: %f\\n'
    find /etc/rc?.d -name "S*$name" -printf 'enabled: %f\\n'
done
"""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Both outputs of `command` as one, and how it ended."""
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def in_overlay(folder: Path, script: str, shared: Path = CHECKOUT) -> str:
    """What `script` prints with only `shared` being the real folder; fails where it fails."""
    top = folder / "overlay"
    top.mkdir()
    ran = run(*OWN_NAMESPACES, "sh", "-c", ENTER_OVERLAY, "sh", top, shared, script)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


needs_overlay = pytest.mark.skipif(
    os.geteuid() != 0 or run(*OWN_NAMESPACES, "true").returncode != 0, reason="needs root and namespaces"
)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_overlay
def test_debians_package_alone_starts_and_enables_a_clamd(tmp_path: Path) -> None:
    """The control: without this, the next test would pass whatever the bootstrap did."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends clamav-daemon"
    told = in_overlay(tmp_path, WITHOUT_CLAMAV + install + WHAT_IS_THERE)
    assert "started: --quiet --system start clamav-daemon.service" in told
    assert "started: start clamav-freshclam.service" in told
    assert "enabled: clamav-daemon.service" in told


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_overlay
def test_bootstrap_installs_clamd_and_neither_starts_nor_enables_a_service(tmp_path: Path) -> None:
    told = in_overlay(tmp_path, f"{WITHOUT_CLAMAV} {BOOTSTRAP} {WHAT_IS_THERE}")
    assert "/usr/sbin/clamd" in told.splitlines()
    assert "started:" not in told
    assert "enabled:" not in told
    assert "put this here" not in told


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_overlay
def test_bootstrap_for_tests_neither_starts_nor_enables_a_reverse_proxy(tmp_path: Path) -> None:
    without = WITHOUT_CLAMAV.replace("clamav-daemon clamav-freshclam", "nginx nginx-common caddy haproxy")
    told = in_overlay(tmp_path, f"{without} {BOOTSTRAP} --tests {WHICH_PROXIES_ARE_THERE}")
    assert {"/usr/sbin/nginx", "/usr/bin/caddy", "/usr/sbin/haproxy"} <= set(told.splitlines())
    assert "started:" not in told
    assert "enabled:" not in told


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(300)
@needs_overlay
def test_bootstrap_gives_the_machine_its_own_policy_back(tmp_path: Path) -> None:
    """Also where a bootstrap before it was killed half way."""
    policy = """
printf '#!/bin/sh\\n# of the machine\\nexit 0\\n' >/usr/sbin/policy-rc.d.kept-by-media-scanner
printf "#!/bin/sh\\n# media-scanner's bootstrap put this here\\nexit 0\\n" >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d*
"""
    told = in_overlay(tmp_path, f"{WITHOUT_CLAMAV} {policy} {BOOTSTRAP} {WHAT_IS_THERE}")
    assert "started:" not in told
    assert "# of the machine" in told
    assert "put this here" not in told


@pytest.mark.real
def test_bootstrap_has_nothing_to_do_and_to_say_where_everything_is_there() -> None:
    ran = run(BOOTSTRAP, "--tests")
    assert (ran.returncode, ran.stdout) == (0, "")


def program(folder: Path, name: str, body: str) -> Path:
    """An executable shell script."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_bootstrap_without_root_or_sudo_says_what_root_has_to_run(tmp_path: Path) -> None:
    program(tmp_path, "id", "echo 1000")
    for name in ("sh", "grep", "python3"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    ran = run(BOOTSTRAP, "--tests", PATH=str(tmp_path))
    assert ran.returncode == 1
    assert f"sh {BOOTSTRAP} --install " in ran.stdout
    assert " zip unzip p7zip-full " in ran.stdout


def test_bootstrap_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = program(tmp_path, "python3", "exit 1")
    ran = run(BOOTSTRAP, PYTHON=str(old))
    assert ran.returncode == 1
    assert "not Python 3.11" in ran.stdout


def checkout_of_fakes(folder: Path) -> Path:
    """A checkout whose `media-scanner` tells as whom and with what it was started."""
    program(folder, ".venv/bin/python", "[ -r deploy/run.sh ]")
    program(folder, ".venv/bin/media-scanner", 'echo "user: $(id -un)"; echo "command: $*"; env')
    program(folder, "deploy/run.sh", RUN.read_text())
    return folder


@pytest.mark.skipif(os.geteuid() == 0, reason="as root, run.sh makes a user: the next tests")
def test_run_serves_as_whoever_runs_it(tmp_path: Path) -> None:
    ran = run(checkout_of_fakes(tmp_path) / "deploy" / "run.sh")
    assert "command: serve --config /dev/null" in ran.stdout


@pytest.mark.real
@needs_overlay
def test_run_as_root_serves_as_a_user_made_for_it(tmp_path: Path) -> None:
    checkout = checkout_of_fakes(tmp_path / "checkout")
    script = f"""
cp -r {checkout} /srv/checkout
HOMESERVER=http://homeserver.test:1 /srv/checkout/deploy/run.sh
stat --format '%U %a %n' /var/lib/clamav/media-scanner
"""
    told = in_overlay(tmp_path, script, shared=checkout).splitlines()
    assert "user: media-scanner" in told
    assert "command: serve --config /dev/null" in told
    assert "MEDIA_SCANNER__HOMESERVER__URL=http://homeserver.test:1" in told
    assert "MEDIA_SCANNER__STATE_DIR=/var/lib/media-scanner" in told
    assert "media-scanner 700 /var/lib/clamav/media-scanner" in told


@pytest.mark.real
@needs_overlay
def test_run_stays_root_and_says_so_where_its_user_cannot_read_the_checkout(tmp_path: Path) -> None:
    checkout = checkout_of_fakes(tmp_path / "checkout")
    checkout.chmod(0o700)
    told = in_overlay(tmp_path, f"{checkout}/deploy/run.sh", shared=checkout)
    assert "serving as root: the user media-scanner cannot read this checkout" in told
    assert "user: root" in told


@pytest.mark.real
@needs_overlay
@pytest.mark.parametrize(
    ("signatures", "accepted"), [("", True), ("main.cvd", False), ("own.ndb", False), ("bytecode.cvd", True)]
)
def test_run_accepts_test_signatures_only_where_there_are_no_others(
    tmp_path: Path, signatures: str, accepted: bool
) -> None:
    checkout = checkout_of_fakes(tmp_path / "checkout")
    database = "rm -rf /var/lib/clamav; mkdir /var/lib/clamav"
    script = f"{database}; touch /var/lib/clamav/{signatures}; {checkout}/deploy/run.sh"
    told = in_overlay(tmp_path, script, shared=checkout)
    assert ("MEDIA_SCANNER__CLAMAV__ACCEPT_TEST_SIGNATURES=true" in told) is accepted


def test_patience_shows_that_a_silent_command_goes_on(tmp_path: Path) -> None:
    """The pipe that is read to its end shows that nothing goes on after it."""
    program(tmp_path, "sleep", "exec /bin/sleep 0.05")
    ran = run(PATIENTLY, "Installing", "/bin/sleep", "0.5", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ran.returncode == 0
    assert re.fullmatch(r"Installing \.{2,10}\n", ran.stdout)


def test_patience_ends_as_the_command_ends() -> None:
    ran = run(PATIENTLY, "Installing", "sh", "-c", "echo no such package; exit 3")
    assert (ran.returncode, ran.stdout) == (3, "Installing no such package\n\n")
