"""Files out of real packages, by the package managers' own clients. Nothing is installed.

Innocent ones lie in the given folder as files/TYPE/PACKAGE-NAME; the packages themselves count as files, too.
Bombs lie in bombs/: Go's tests have them as text.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# None with media to boot from, which are unscannable (docs/archives.md).
DEBIAN = (
    "calligra-data",
    "debian-policy",
    "developers-reference",
    "freeplane",
    "junit4",
    "krita-data",
    "libapache-poi-java",
    "libcommons-compress-java",
    "libcommons-io-java",
    "libguava-java",
    "libopenoffice-oodoc-perl",
    "libspreadsheet-read-perl",
    "libspreadsheet-readsxc-perl",
    "maint-guide",
    "musescore3-common",
    "openttd-opengfx",
    "python3-docx",
    "python3-pip-whl",
    "python3-setuptools-whl",
    "r-cran-officer",
    "r-cran-openxlsx",
    "r-cran-readr",
    "r-cran-readxl",
    "r-cran-rio",
    "scribus-template",
)
WHEELS = ("music21==10.5.1", "py4j==0.10.9.9", "tabula-py==2.10.0", "virtualenv==21.15.8")
SOURCES = ("odfpy==1.4.1", "python-docx==1.2.0", "python-pptx==1.0.2")
NPM = (
    "android-apidemos@5.0.0",
    "carbone@3.8.2",
    "io.appium.settings@8.0.10",
    "jszip@3.10.2",
    "mammoth@1.13.0",
    "yauzl@3.4.0",
)
# Types worth having; of each so many from one package, and no larger ones.
_TYPES = frozenset(
    {
        "apk",
        "bz2",
        "deb",
        "docx",
        "dotx",
        "epub",
        "gz",
        "iso",
        "jar",
        "kra",
        "mscz",
        "mxl",
        "odg",
        "odp",
        "ods",
        "odt",
        "ott",
        "pdf",
        "pptx",
        "svgz",
        "tar",
        "tar.gz",
        "tgz",
        "whl",
        "xls",
        "xlsm",
        "xlsx",
        "xz",
        "zip",
    }
)
_OF_A_PACKAGE = 20
_GZ_OF_A_PACKAGE = 2
_FROM_GO = ("time-", "utf8-", "unix", "winxp", "subdir", "symlink", "readme", "zip64")
# Else root's apt-get says that it would rather be somebody else.
_APT = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root")
_LARGEST = 6_000_000


def fetch(target: Path) -> None:
    """Fill `target`, an empty folder; raises CalledProcessError where a client fails."""
    with tempfile.TemporaryDirectory() as name:
        packages = Path(name)
        _download(packages)
        _keep_what_go_has(target, next(packages.glob("golang-*.deb")))
        for package in sorted(packages.iterdir()):
            if package.stat().st_size <= _LARGEST:
                _keep(target, package.name, package.read_bytes(), _type(package.name))
            _keep_files(target, package)


def _download(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--disable-pip-version-check"]
    if subprocess.run([*_APT, "download", *DEBIAN], cwd=folder, check=False).returncode:
        subprocess.run([*_APT, "update"], check=True)
        subprocess.run([*_APT, "download", *DEBIAN], cwd=folder, check=True)
    subprocess.run([*_APT, "download", _sources_of_go()], cwd=folder, check=True)
    subprocess.run([*pip, "--only-binary=:all:", *WHEELS], cwd=folder, check=True)
    # A source package says its version by being built half way, here with what requirements-build.txt pins.
    subprocess.run([*pip, "--no-binary=:all:", "--no-build-isolation", *SOURCES], cwd=folder, check=True)
    subprocess.run(["npm", "pack", "--silent", *NPM], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _sources_of_go() -> str:
    """Its package bears its version."""
    depends = subprocess.run(
        ["apt-cache", "depends", "golang-src"], check=True, capture_output=True, text=True
    )
    return depends.stdout.split("Depends: ")[1].split()[0]


def _keep_what_go_has(target: Path, package: Path) -> None:
    """ZIPs by Windows, macOS, WinZip and WinRAR, and two that hold more than they seem to."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["dpkg-deb", "-x", package, name], check=True)
        (folder,) = Path(name).glob("usr/share/go-*/src/archive/zip")
        for path in sorted(folder.glob("testdata/*.zip")):
            if path.name.startswith(_FROM_GO):
                _keep(target, path.name, path.read_bytes(), "zip")
        source = (folder / "reader_test.go").read_text()
    package.unlink()
    (target / "bombs").mkdir()
    for function, bomb in (("rZipBytes", "quine.zip"), ("biggestZipBytes", "4-gib-of-zeros.zip")):
        dump = source.split(f"func {function}() []byte {{")[1].split("`")[1]
        content = b"".join(bytes.fromhex(line.partition(" ")[2]) for line in dump.splitlines())
        (target / "bombs" / bomb).write_bytes(content)


def _keep_files(target: Path, package: Path) -> None:
    kept: Counter[str] = Counter()
    for name, content in _contents(package):
        kind = _type(name)
        if kind in _TYPES and 0 < len(content) <= _LARGEST and kept[kind] < _most(kind):
            kept[kind] += 1
            _keep(target, f"{package.name.split('_')[0]}-{PurePosixPath(name).name}", content, kind)


def _most(kind: str) -> int:
    return _GZ_OF_A_PACKAGE if kind == "gz" else _OF_A_PACKAGE


def _contents(package: Path) -> Iterator[tuple[str, bytes]]:
    if package.suffix == ".deb":
        with tempfile.TemporaryDirectory() as name:
            subprocess.run(["dpkg-deb", "-x", package, name], check=True)
            files = [path for path in sorted(Path(name).rglob("*.*")) if _is_file(path)]
            yield from ((str(path), path.read_bytes()) for path in files)
    elif package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist())
    else:
        with tarfile.open(package) as members:
            for member in members:
                if (file := members.extractfile(member)) is not None:
                    yield member.name, file.read()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _type(name: str) -> str:
    """Its suffix; of a packed tar both."""
    suffixes = PurePosixPath(name).suffixes
    kind = "".join(suffixes[-2:]) if ".tar" in suffixes[-2:-1] else "".join(suffixes[-1:])
    return kind.lstrip(".").lower()


def _keep(target: Path, name: str, content: bytes, kind: str) -> None:
    folder = target / "files" / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
