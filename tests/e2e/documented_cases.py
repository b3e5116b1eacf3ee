"""What the documented commands do when they are run as they stand: their output's shape, and their files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = Any


@dataclass(frozen=True)
class Case:
    """What a command must show.

    `lines` are patterns, each of one whole line of standard output. `documents` are the shapes of the JSON
    there: the same keys, types in the place of values, and of a list the one shape of its items. `leaves` are
    files that are there afterwards, each with a pattern of its content.
    """

    lines: tuple[str, ...] = ()
    documents: tuple[Shape, ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    codes: frozenset[int] = frozenset({0})


_KEY = r"[A-Za-z0-9+/]{43}"
_FOUND_NOTHING_FAILED = frozenset(
    {0, 1}
)  # documented: 1 where something failed, such as this machine's memory
_READY: Shape = {"ready": bool, "mode": str, "reasons": dict, "warnings": dict}
_FINDING: Shape = dict.fromkeys(("group", "subject", "name", "status", "found", "advice"), str)
_SCANNED: Shape = {
    "path": str,
    "result": str,
    "signatures": [str],
    "reason": (str, type(None)),
    "info": str,
    "found": [{"signature": str, "path": str}],
}
_CLEAN, _INFECTED = r"/\S+/letter\.txt: clean", r"/\S+/invoice\.com: infected \S*Eicar\S*"
_CONTENT: Shape = {
    **dict.fromkeys(("sha256", "sha1", "md5", "state", "last_seen", "mime_type"), str),
    **dict.fromkeys(("held", "encrypted"), bool),
    **dict.fromkeys(("detections", "size"), int),
    "signatures": [str],
    "media": [str],
    "sources": [str],
}
_STATUS = "200"
_CHECKED = (r"server:", r"  listen: 127\.0\.0\.1:\d+", r"  url: http://127\.0\.0\.1:\d+", r"  level: info")
_CLAMD = (r"clamd embedded", r"\S ok +test virus +.*", r"\S \w+ +transport +.*")
_KEYS = (r"keys", r"\S \w+ +request secret .*", rf".*{_KEY}.*")
_HOMESERVER = (r"homeserver http://\S+", r"\S ok +answers +Synapse/\S+.*", r"\S ok +clock +.*")
_MACHINE = (r"machine", r"\S \w+ +memory +.*")
_SERVICE = (r"service 127\.0\.0\.1:\d+", r"\S ok +service +runs, and is ready")

CASES: Mapping[str, Case] = {
    # -- installing ------------------------------------------------------------------------------
    "git clone REPOSITORY /opt/media-scanner && cd /opt/media-scanner": Case(
        leaves={"opt/media-scanner/deploy/run.sh": "^#!/bin/sh"}
    ),
    "git clone REPOSITORY media-scanner && cd media-scanner": Case(
        leaves={"media-scanner/docker-compose.yml": "^services:"}
    ),
    "install -m 644 deploy/clamd/clamd.conf /etc/clamav/clamd.conf": Case(
        leaves={"etc/clamav/clamd.conf": "^AlertExceedsMax yes"}
    ),
    "install -D -m 644 deploy/systemd/clamav-daemon.conf"
    " /etc/systemd/system/clamav-daemon.service.d/media-scanner.conf": Case(
        leaves={"etc/systemd/system/clamav-daemon.service.d/media-scanner.conf": r"^\[Service\]"}
    ),
    "install -m 644 deploy/config/media-scanner.yaml /etc/media-scanner.yaml": Case(
        leaves={"etc/media-scanner.yaml": "^homeserver:"}
    ),
    "editor /etc/media-scanner.yaml": Case(
        leaves={"etc/media-scanner.yaml": r"^  url: http://127\.0\.0\.1:"}
    ),
    "ln -s /opt/media-scanner/.venv/bin/media-scanner /usr/local/bin/": Case(
        leaves={"usr/local/bin/media-scanner": "^#!.*python"}
    ),
    "install -m 644 deploy/systemd/media-scanner.service /etc/systemd/system/media-scanner.service": Case(
        leaves={"etc/systemd/system/media-scanner.service": "^ExecStart=/opt/media-scanner/"}
    ),
    "install -D -m 644 deploy/systemd/embedded-clamd.conf"
    " /etc/systemd/system/media-scanner.service.d/embedded-clamd.conf": Case(
        leaves={"etc/systemd/system/media-scanner.service.d/embedded-clamd.conf": r"^\[Service\]"}
    ),
    "install -m 644 deploy/clamd/clamd.conf /etc/clamav/clamd.conf && systemctl restart clamav-daemon": Case(
        leaves={"etc/clamav/clamd.conf": "^AlertEncrypted yes"}
    ),
    "install -d -m 700 -o media-scanner /var/lib/media-scanner": Case(),
    "echo HOMESERVER_URL=http://host.docker.internal:8008 >.env": Case(
        leaves={"media-scanner/.env": "^HOMESERVER_URL=http://host.docker.internal:8008$"}
    ),
    "cat deploy/apparmor/local-usr.sbin.clamd >>/etc/apparmor.d/local/usr.sbin.clamd": Case(
        leaves={"etc/apparmor.d/local/usr.sbin.clamd": "^/memfd:"}
    ),
    # -- configuration and keys ------------------------------------------------------------------
    "media-scanner --help": Case(lines=(r"Usage: media-scanner .*", r"  serve +.*", r"  doctor +.*")),
    "media-scanner COMMAND --help": Case(lines=(r"Usage: media-scanner scan .*", r"  --config .*")),
    "media-scanner --version": Case(
        lines=(r"media-scanner \S+", r"clamd \S.*", r"libmagic \S+", r"Python \S+", r"aiohttp \S+")
    ),
    "media-scanner --install-completion": Case(
        lines=(r"bash completion installed in .*",), leaves={".bashrc": "bash_completions"}
    ),
    "media-scanner check-config": Case(lines=_CHECKED),
    "media-scanner check-config --config FILE": Case(lines=_CHECKED),
    "media-scanner check-config --config /etc/media-scanner.yaml": Case(lines=_CHECKED),
    "media-scanner config show": Case(
        lines=(r"state_dir: .* # environment", r"  media_size: \d+ +# default", r"  url: .* # environment")
    ),
    "media-scanner config schema": Case(
        documents=(
            {
                "$defs": dict,
                "additionalProperties": bool,
                "description": str,
                "properties": dict,
                "title": str,
                "type": str,
            },
        )
    ),
    "media-scanner config import FILE": Case(
        lines=(r"server:", r"  listen: 127\.0\.0\.1:8080", r"  url: https://matrix\.org")
    ),
    "media-scanner keys generate": Case(codes=frozenset({2})),
    "media-scanner keys generate SECRET": Case(lines=(_KEY,), leaves={"secret": r"^\S{43}=?$"}),
    "media-scanner keys show-public --config FILE": Case(lines=(_KEY,)),
    "media-scanner keys show-public --config /etc/media-scanner.yaml": Case(lines=(_KEY,)),
    "media-scanner keys rotate": Case(lines=(_KEY,)),
    "media-scanner verdict forget --all": Case(leaves={"var/lib/media-scanner/verdict-epoch": "."}),
    # -- doctor ----------------------------------------------------------------------------------
    "media-scanner doctor": Case(
        lines=(*_CLAMD, *_HOMESERVER, *_KEYS, *_MACHINE, *_SERVICE), codes=_FOUND_NOTHING_FAILED
    ),
    "media-scanner doctor --config /etc/media-scanner.yaml": Case(
        lines=(*_CLAMD, *_HOMESERVER, *_KEYS, *_MACHINE, *_SERVICE), codes=_FOUND_NOTHING_FAILED
    ),
    "media-scanner doctor --json": Case(
        documents=({"version": str, "status": str, "findings": [_FINDING]},), codes=_FOUND_NOTHING_FAILED
    ),
    "media-scanner doctor clamd": Case(lines=_CLAMD),
    "media-scanner doctor clamd keys": Case(lines=(*_CLAMD, *_KEYS)),
    "media-scanner doctor keys": Case(lines=(*_KEYS, r"\S \w+ +disk space +.*")),
    "media-scanner doctor machine": Case(lines=_MACHINE, codes=_FOUND_NOTHING_FAILED),
    "media-scanner doctor homeserver": Case(lines=_HOMESERVER),
    "media-scanner doctor homeserver --access-token-file FILE": Case(
        lines=(*_HOMESERVER, r"\S warning +upload limit +users may upload 50 MiB.*")
    ),
    # -- files -----------------------------------------------------------------------------------
    "media-scanner scan FILE": Case(lines=(_CLEAN,)),
    "media-scanner scan --config /etc/media-scanner.yaml FILE": Case(lines=(_CLEAN,)),
    "media-scanner scan --config /etc/media-scanner.yaml FILE DIR": Case(
        lines=(_CLEAN, _INFECTED), codes=frozenset({1})
    ),
    "some-command | media-scanner scan -": Case(lines=(r"-: clean",)),
    "media-scanner scan -i DIR": Case(lines=(_INFECTED,), codes=frozenset({1})),
    "media-scanner scan --json DIR": Case(documents=(_SCANNED, {"summary": dict}), codes=frozenset({1})),
    "file --brief --mime-type FILE": Case(lines=("text/plain",)),
    "echo SIGNATURE >>/var/lib/clamav/local.ign2": Case(leaves={"var/lib/clamav/local.ign2": r"^\S+$"}),
    'echo "$(sha256sum FILE | cut -c-64):$(stat -c %s FILE):Own.Name" >>/var/lib/clamav/own.hsb': Case(
        leaves={"var/lib/clamav/own.hsb": r"^[0-9a-f]{64}:[0-9]+:Own\.Name$"}
    ),
    # -- the quarantine --------------------------------------------------------------------------
    "media-scanner quarantine list --since 7d": Case(
        lines=(r"LAST SEEN .*", r"\S+ \S+ 275a021bbfb6 Win\.Test\.EICAR_HDB-1 +68 B +1 kept")
    ),
    "media-scanner quarantine show SHA256": Case(
        lines=(r"SHA-256 +275a021b.*", r"state +kept", r"\S+ \S+  download  mxc://example\.org/abc")
    ),
    "media-scanner quarantine export SHA256 --to sample.zip --key-file SOC_KEY": Case(
        lines=(r"sample\.zip: 275a021b\w+, 68 bytes",)
    ),
    "media-scanner quarantine verify --key-file SOC_KEY": Case(
        lines=(r"samples opened: 1, seen from outside: 0; problems: 0",)
    ),
    "media-scanner quarantine rescan SHA256 --key-file SOC_KEY": Case(
        lines=(r"275a021bbfb6 +then +infected Win\.Test\.EICAR_HDB-1", r" +now +infected \S*(?i:eicar)\S*")
    ),
    "media-scanner quarantine rescan --all --key-file SOC_KEY --json": Case(
        documents=({"sha256": str, "differs": bool, "then": dict, "now": dict},)
    ),
    "media-scanner quarantine list --signature 'Win.*' --media 'mxc://example.org/*' --json": Case(
        documents=(_CONTENT,)
    ),
    "media-scanner quarantine list --csv >detections.csv": Case(
        leaves={"detections.csv": r"275a021bbfb6\w+,.*,kept,mxc://example\.org/abc,download,no$"}
    ),
    "media-scanner quarantine stats --since 24h": Case(lines=(r"contents +1", r"states +kept +1")),
    "media-scanner quarantine hold SHA256 --reason 'case 17'": Case(lines=(r"275a021b\w+: held",)),
    "media-scanner quarantine hold SHA256 --end --reason 'case 17 is closed'": Case(
        lines=(r"275a021b\w+: held no longer",)
    ),
    "media-scanner quarantine purge --older-than 90d --dry-run": Case(
        lines=(r"would be purged: samples: 0 \(0 B\), records: 1",)
    ),
    "media-scanner quarantine purge --yes": Case(lines=(r"purged: samples: 0 \(0 B\), records: 1",)),
    "media-scanner quarantine delete SHA256 --reason 'not ours to keep' --yes": Case(
        lines=(r"275a021b\w+: deleted",)
    ),
    # -- asking over HTTP ------------------------------------------------------------------------
    "curl http://127.0.0.1:8081/health/ready": Case(documents=(_READY,)),
    "curl -s http://127.0.0.1:8081/health/ready": Case(documents=(_READY,)),
    "curl -s http://127.0.0.1:8081/metrics"
    " | grep -E '(rejected_total|queue_length|scans_in_flight|buffer_)'": Case(
        lines=(
            r"media_scanner_requests_rejected_total\{.*\} \S+",
            r"media_scanner_engine_queue_length\S* \S+",
            r"media_scanner_scans_in_flight \S+",
            r"media_scanner_buffer_bytes\{.*\} \S+",
            r"media_scanner_buffer_limit_bytes\{.*\} \S+",
        )
    ),
    "curl -s http://127.0.0.1:8081/metrics | grep -E 'scan_duration_seconds_(sum|count)'": Case(
        lines=(
            r'media_scanner_scan_duration_seconds_sum\{.*"fetch".*\} \S+',
            r'media_scanner_scan_duration_seconds_count\{.*"engine".*\} \S+',
        )
    ),
    "curl https://ADDRESS/_matrix/media_proxy/unstable/public_key": Case(documents=({"public_key": str},)),
    "curl -so /dev/null -w '%{http_code}\\n' -H \"Authorization: Bearer $TOKEN\""
    " HOMESERVER/_matrix/client/v1/media/download/SERVER/MEDIA": Case(lines=(_STATUS,)),
    "curl -so /dev/null -w '%{http_code}\\n' -H \"Authorization: Bearer $TOKEN\""
    " https://SERVER/_matrix/client/v1/media/download/SERVER/MEDIA": Case(lines=(_STATUS,)),
    'curl -sI -H "Authorization: Bearer $TOKEN"'
    " HOMESERVER/_matrix/client/v1/media/download/SERVER/MEDIA | head -1": Case(lines=(r"HTTP/1\.1 200 OK",)),
    "ss -ltnp 'sport = :8080'": Case(lines=(r"State .*", r"LISTEN .*127\.0\.0\.1:\d+ .*")),
    "ip -brief address": Case(lines=(r"lo +\S+ +127\.0\.0\.1/8.*",)),
}


def differences(case: Case, code: int, printed: str) -> Iterator[str]:
    """In what a run is not as its case has it; `printed` is standard output."""
    if code not in case.codes:
        yield f"exit code {code}"
    lines = [line.rstrip() for line in printed.splitlines()]
    for pattern in case.lines:
        if not any(re.fullmatch(pattern, line) for line in lines):
            yield f"no line like {pattern!r}"
    if case.documents:
        shown = list(_documents(printed))
        yield from (f"unlike every shape: {each}" for each in shown if not _like_any(case.documents, each))
        yield from (
            f"nothing like {each}" for each in case.documents if not any(like(each, x) for x in shown)
        )


def like(shape: Shape, value: object) -> bool:
    """Whether JSON has a shape, as `Case` tells."""
    if isinstance(shape, dict):
        return (
            isinstance(value, dict)
            and shape.keys() == value.keys()
            and all(like(shape[key], value[key]) for key in shape)
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(like(shape[0], item) for item in value)
    return isinstance(value, shape)


def _like_any(shapes: tuple[Shape, ...], value: object) -> bool:
    return any(like(shape, value) for shape in shapes)


def _documents(text: str) -> Iterator[object]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        yield document
