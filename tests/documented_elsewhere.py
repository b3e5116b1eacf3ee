"""Documented commands that no test runs by their words, and the test that shows what they promise.

`SHOWN_BY`: another test runs what the command runs. `NOT_RUN`: cannot be run here; why, and what is
checked instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_E2E, _DEPLOY, _BENCH = "tests/e2e", "tests/deploy", "tests/bench"
_DEMO = f"{_E2E}/test_demo.py::test_the_demo_shows_what_it_promises_and_ends_with_0"
_README = f"{_E2E}/test_documented_commands.py::test_make_run_of_the_readme_scans_for_its_curl_until_ctrl_c"
_BENCH_RUN = f"{_BENCH}/test_bench.py::test_a_short_run_keeps_figures_and_finds_no_wrong_verdict"
_PUBLISH = f"{_BENCH}/test_publish.py::test_publishing_replaces_what_was_made_and_leaves_the_rest"
_MAKE = "tests/test_documented_commands.py::test_make_knows_every_target_and_variable_that_is_documented"
_GUIDE = (
    "tests/cli/test_config.py::test_commands_of_the_migration_guide_lead_to_a_configuration_with_the_old_key"
)
_EXTENDING = f"{_E2E}/test_extending.py"
_MODULE = f"{_E2E}/test_synapse_module.py"
_REMOTE = f"{_MODULE}::test_files_are_scanned_by_the_running_service"
_INSTALLED = f"{_MODULE}::test_the_environment_has_synapse_and_the_module_and_nothing_else_of_ours"
_CLIENT = f"{_E2E}/test_scan_file.py::test_the_example_uploads_what_is_clean"
_GREETING = (
    "tests/cli/test_serve.py::test_it_says_where_it_listens_how_old_the_signatures_are_and_what_to_try"
)
_WORKSTATION = (
    "tests/cli/test_quarantine_store.py::test_credentials_and_a_bucket_are_all_that_a_workstation_needs"
)
_BUCKET = (
    f"{_E2E}/test_radosgw.py::test_the_policy_that_is_printed_gives_the_scanner_what_it_needs_and_no_more"
)
_UNIT = f"{_DEPLOY}/test_systemd.py::test_the_unit_is_valid"
_CLAMDS_UNIT = f"{_DEPLOY}/test_systemd.py::test_what_is_added_to_debians_clamd_is_valid"
_COMPOSE = f"{_DEPLOY}/test_images.py::test_the_compose_file_is_one"
_CONTAINERS = f"{_DEPLOY}/test_containers.py::test_the_services_scan_together_and_the_scanner_outlives_clamd"
_LOOP = "tests/test_media.py::test_twenty_megabytes_do_not_hold_the_event_loop"
_PACKAGES = "tests/test_bootstrap.py::test_bootstrap_installs_clamd_and_neither_starts_nor_enables_a_service"

_SIGNED = "tests/cli/test_statements.py::test_what_is_said_is_filed_with_an_audit_record"
_APPROVED = "tests/cli/test_quarantine_actions.py::test_release_counts_once_a_colleague_approved"
_LISTED = "tests/cli/test_verdict.py::test_list_shows_who_said_what_and_until_when_on_80_columns"
_CUT = "tests/cli/test_audit.py::test_end_that_was_cut_off_is_found_by_a_head_from_elsewhere"
_VERIFIED = "tests/cli/test_audit.py::test_chain_that_is_whole_is_verified"

SHOWN_BY: Mapping[str, str] = {
    "media-scanner keys generate --kind signing ANALYST_KEY": (
        "tests/cli/test_keys.py::test_signing_key_has_a_public_key_of_its_own_kind"
    ),
    "media-scanner keys show-public --kind audit": (
        "tests/cli/test_keys.py::test_public_half_of_what_signs_the_audit_chain_is_shown"
    ),
    "media-scanner quarantine release SHA256 --reason 'a false positive' --key ANALYST_KEY": _APPROVED,
    "media-scanner quarantine approve ID --key APPROVER_KEY": _APPROVED,
    "media-scanner verdict deny SHA256 --reason 'seen elsewhere' --expires 7d --key ANALYST_KEY": _SIGNED,
    "media-scanner verdict allow SHA256 --reason 'our own installer' --expires 2999-12-31"
    " --key ANALYST_KEY": _LISTED,
    "media-scanner verdict list": _LISTED,
    "media-scanner verdict forget SHA256 --reason 'mended' --key ANALYST_KEY": (
        "tests/cli/test_verdict.py::test_what_was_said_is_taken_back_for_as_long_as_it_would_hold"
    ),
    "media-scanner audit tail -n 50": (
        "tests/cli/test_audit.py::test_last_records_are_told_on_a_line_each_and_harmless"
    ),
    "media-scanner audit verify": _VERIFIED,
    "media-scanner audit verify --head NUMBER:SHA256": _CUT,
    "audit verify --head": _CUT,
    "media-scanner doctor s3": "tests/cli/test_doctor.py::test_a_bucket_that_is_away_is_told_at_once",
    "media-scanner doctor s3 --maintenance-profile soc": _BUCKET,
    "media-scanner doctor --print-policy >policy.json": (
        "tests/cli/test_doctor.py::test_the_policy_for_the_bucket_is_printed_and_the_bucket_let_alone"
    ),
    "make demo": _DEMO,
    "make demo ONCE=1 PICTURE=docs/demo.svg": _DEMO,
    "make demo SIGNATURES=installed": _DEMO,
    "make run": _README,
    "HOMESERVER=https://matrix.example.org make run": _README,
    'curl -H "Authorization: Bearer $TOKEN"'
    " http://127.0.0.1:8080/_matrix/media_proxy/unstable/scan/SERVER/MEDIA": _README,
    "make bench": _BENCH_RUN,
    "make bench BARS=1": _BENCH_RUN,
    "make bench BUDGET=60": _BENCH_RUN,
    "make bench BENCH_ARGS='--scale 1'": _BENCH_RUN,
    "make bench BENCH_ARGS=\"--only 'burst-100x20m' --rounds 1\"": _BENCH_RUN,
    "make bench BENCH_ARGS='--rounds 4 --seconds 1.5'": _BENCH_RUN,
    "MEDIA_SCANNER__LIMITS__MEMORY=192MiB make bench": _BENCH_RUN,
    "python -m tests.bench run --rounds 2 --seconds 1": _BENCH_RUN,
    ".venv/bin/python -m tests.bench scenarios": f"{_BENCH}/test_bench.py::test_every_scenario_is_listed",
    "make bench-docs": _PUBLISH,
    "media-scanner config import config.yaml >/etc/media-scanner.yaml": _GUIDE,
    "media-scanner keys import-pickle config.yaml request_secret": _GUIDE,
    "export AWS_PROFILE=soc": _WORKSTATION,
    "media-scanner quarantine list --bucket NAME --endpoint-url https://s3.example.org"
    " --prefix matrix/": _WORKSTATION,
    "media-scanner serve": _GREETING,
    "media-scanner serve --config FILE": _GREETING,
    "scan --remote": _REMOTE,
    "media-scanner scan --remote": _REMOTE,
    "media-scanner scan --remote http://127.0.0.1:8081 DIR": _REMOTE,
    "media-scanner keys generate /etc/media-scanner-inspect-secret": (
        "tests/cli/test_keys.py::test_generated_secret_is_its_owners_alone_and_its_public_key_is_printed"
    ),
    "/opt/venvs/matrix-synapse/bin/pip install --no-deps /opt/media-scanner": _INSTALLED,
    "sha256sum plan.pdf >>/var/lib/media-scanner/banned-hashes": _EXTENDING,
    "media-scanner scan --config /etc/media-scanner.yaml plan.pdf": _EXTENDING,
    "HOMESERVER=https://matrix.example.org SCANNER=https://scanner.example.org"
    " python docs/examples/scan_before_upload.py plan.pdf": _CLIENT,
}


@dataclass(frozen=True)
class Instead:
    """Why a command is not run, and the test that checks what can be checked of it."""

    reason: str
    checked_by: str


_NO_INIT = "no systemd runs here as init"
_NO_DOCKER = "there is no Docker here"
_ITSELF = "it would run this test, or remove what it runs on"
_NETWORK = "it asks the network"
_OWN_SERVERS = "the admin's own servers"
_NO_SUCH_USER = "this machine has no such user"

_PROXIES = f"{_DEPLOY}/test_reverse_proxies.py::test_its_own_checker_has_nothing_to_say_against_the_file"
_AT_PLACE = "would replace this machine's configuration"

NOT_RUN: Mapping[str, Instead] = {
    "install -m 644 deploy/reverse-proxy/nginx.conf /etc/nginx/conf.d/matrix.conf && nginx -t": Instead(
        _AT_PLACE, _PROXIES
    ),
    "install -m 644 deploy/reverse-proxy/Caddyfile /etc/caddy/Caddyfile"
    " && caddy validate --config /etc/caddy/Caddyfile": Instead(_AT_PLACE, _PROXIES),
    "install -m 644 deploy/reverse-proxy/haproxy.cfg /etc/haproxy/haproxy.cfg"
    " && haproxy -c -f /etc/haproxy/haproxy.cfg": Instead(_AT_PLACE, _PROXIES),
    "jq .bucket_policy policy.json >bucket.json && aws s3api put-bucket-policy"
    " --bucket quarantine --policy file://bucket.json": Instead(_OWN_SERVERS, _BUCKET),
    "jq .lifecycle policy.json >rules.json && aws s3api put-bucket-lifecycle-configuration"
    " --bucket quarantine --lifecycle-configuration file://rules.json": Instead(_OWN_SERVERS, _BUCKET),
    "make check": Instead(_ITSELF, _MAKE),
    "make test": Instead(_ITSELF, _MAKE),
    "make test-long": Instead(_ITSELF, _MAKE),
    "make clean": Instead(_ITSELF, _MAKE),
    "make lock": Instead(_NETWORK, _MAKE),
    "python -m tests.bench.event_loop_lag": Instead("a measurement of minutes", _LOOP),
    ".venv/bin/python -m tests.bench.event_loop_lag": Instead("a measurement of minutes", _LOOP),
    "clamdscan --fdpass": Instead("what the reference runs; a name, and nothing to do", _BENCH_RUN),
    "aa-complain /usr/sbin/clamd": Instead("changes this machine's AppArmor", "tests/clamd/test_home.py"),
    "apparmor_parser -r /etc/apparmor.d/usr.sbin.clamd": Instead(
        "changes this machine's AppArmor",
        "tests/clamd/test_home.py::test_debians_apparmor_profile_allows_every_path",
    ),
    "apt-get install clamav-daemon": Instead("changes this machine", _PACKAGES),
    "apt-get install clamav-freshclam": Instead("changes this machine", _PACKAGES),
    "apt-get install file": Instead("changes this machine", _PACKAGES),
    "apt-get install python3 git make": Instead("changes this machine", _PACKAGES),
    "freshclam": Instead(
        _NETWORK,
        f"{_E2E}/test_signatures.py::test_first_signatures_arrive_while_everybody_is_refused_already",
    ),
    "systemctl enable --now clamav-freshclam clamav-daemon": Instead(_NO_INIT, _CLAMDS_UNIT),
    "systemctl enable --now media-scanner": Instead(_NO_INIT, _UNIT),
    "systemctl edit media-scanner": Instead(_NO_INIT, _UNIT),
    "systemctl status clamav-daemon": Instead(_NO_INIT, _CLAMDS_UNIT),
    "systemctl reload media-scanner": Instead(
        _NO_INIT, f"{_E2E}/test_reload.py::test_observe_mode_comes_and_goes"
    ),
    "journalctl -u clamav-daemon --grep 'Malformed|ERROR'": Instead(
        _NO_INIT, f"{_E2E}/test_signatures.py::test_a_reload_that_kept_the_old_engine_is_seen_and_mended"
    ),
    "docker compose up --build --detach": Instead(_NO_DOCKER, _CONTAINERS),
    "docker compose ps": Instead(
        _NO_DOCKER, f"{_DEPLOY}/test_containers.py::test_a_scanner_that_hangs_is_not_healthy"
    ),
    "docker compose restart scanner": Instead(_NO_DOCKER, _COMPOSE),
    "docker compose build --pull && docker compose up --detach": Instead(_NO_DOCKER, _COMPOSE),
    "install -m 600 -o matrix-synapse /etc/media-scanner-inspect-secret"
    " /etc/matrix-synapse/media-scanner-secret": Instead(_NO_SUCH_USER, _INSTALLED),
    "chown media-scanner /etc/media-scanner-inspect-secret": Instead(_NO_SUCH_USER, _INSTALLED),
    "sudo -u media-scanner media-scanner scan FILE": Instead(
        _NO_SUCH_USER,
        "tests/cli/test_scan.py::test_a_service_that_is_closed_to_us_is_said_to_be_and_left_alone",
    ),
    "curl https://SERVER/.well-known/element/element.json": Instead(_OWN_SERVERS, "tests/test_docs.py"),
}
