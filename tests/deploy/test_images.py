"""deploy/Dockerfile, docker-compose.yml and what goes into the images: valid, and of one mind."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scanner.clamd.home import CLAMD_SETTINGS
from scanner.clamd.supervisor import ENVIRONMENT
from scanner.config import Config
from scanner.errors import ConfigError
from tests.deploy.container import COMPOSE, compose
from tests.deploy.dockerfile import CHECKOUT, DOCKERFILE, stages

SAMPLE = CHECKOUT / "deploy" / "config" / "media-scanner.yaml"
CLAMD_CONF = CHECKOUT / "deploy" / "clamd" / "clamd.conf"
PROGRAMS = Path(sys.executable).parent
RUN_STAGES = ("scanner", "clamd")
PUBLISHED = {"HOMESERVER_URL": "http://synapse:8008"}
SERVICES: dict[str, Any] = compose(PUBLISHED)["services"]

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
every_image = pytest.mark.parametrize("stage", RUN_STAGES)


def passes(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- valid ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hadolint_has_nothing_to_say() -> None:
    passes(PROGRAMS / "hadolint", DOCKERFILE)


@pytest.mark.slow
def test_the_compose_file_is_one() -> None:
    passes(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_the_documented_overrides_are_compose_files_about_services_that_exist(
    tmp_path: Path, number: int
) -> None:
    text = re.findall(
        r"```yaml\n(# docker-compose.override.yml\n.*?)```",
        (CHECKOUT / "docs" / "operations.md").read_text(),
        re.DOTALL,
    )[number]
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(text)
    passes(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", override)
    said, tree = yaml.safe_load(text), compose(PUBLISHED)
    assert said.get("services", {}).keys() <= tree["services"].keys()
    assert said.get("networks", {}).keys() <= tree["networks"].keys()
    Config.load(None, _environment(said.get("services", {}).get("scanner", {})))


def test_every_file_that_the_installation_names_is_there() -> None:
    text = (CHECKOUT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"deploy/[\w./-]*\w", text))
    assert {"deploy/clamd/clamd.conf", "deploy/systemd/media-scanner.service"} <= named
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


# -- what is in the images -----------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["build", *RUN_STAGES])
def test_everything_that_is_copied_is_there_and_not_ignored(stage: str) -> None:
    let_in = (CHECKOUT / ".dockerignore").read_text().splitlines()
    for source, _ in stages()[stage].copies():
        assert (CHECKOUT / source).exists(), source
        assert any(f"!{path}" in let_in for path in (Path(source), *Path(source).parents)), source


def test_everything_else_is_ignored() -> None:
    copied = {source for stage in stages().values() for source, _ in stage.copies()}
    lines = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    for path in (line[1:] for line in lines if line.startswith("!")):
        assert any(source == path or source.startswith(f"{path}/") for source in copied), path


def test_nothing_comes_from_an_index_that_is_not_pinned_by_its_hash() -> None:
    commands = [command for text in stages()["build"].all("RUN") for command in text.split("&&")]
    installing = [
        shlex.split(command) for command in commands if re.search(r"pip .*(install|wheel)", command)
    ]
    assert len(installing) == 4
    for words in installing:
        assert {"--require-hashes", "--no-index"} & {*words}, words


@every_image
def test_images_run_as_a_numbered_user_that_they_make(stage: str) -> None:
    user, group = stages()[stage].user
    [run] = stages()[stage].all("RUN")
    assert user == group > 10000
    assert f"groupadd --gid {group} " in run
    assert f"useradd --uid {user} --gid {group} " in run


@every_image
def test_images_end_at_sigterm_and_know_their_health_without_a_shell(stage: str) -> None:
    assert stages()[stage].all("STOPSIGNAL") == ["SIGTERM"]
    assert stages()[stage].healthcheck
    assert stages()[stage].command("CMD")


def test_volumes_start_with_the_owner_that_the_images_give_them() -> None:
    """An empty volume takes the mode and the owner of the directory that it covers."""
    [scanner], [clamd] = (stages()[name].all("RUN") for name in RUN_STAGES)
    own = "install --directory --mode {} --owner {} --group {} {}".format
    assert own(700, 10001, 10001, "/var/lib/media-scanner") in scanner
    assert own(750, 10002, 10002, "/run/clamav") in clamd


def test_clamd_gets_the_allocator_of_the_embedded_one() -> None:
    allocator = {name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC_")}
    assert stages()["clamd"].environment == allocator


# -- configuration -------------------------------------------------------------------------------


def _environment(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def test_the_scanners_configuration_is_valid_and_leads_to_clamd_and_the_homeserver() -> None:
    environment = stages()["scanner"].environment | _environment(SERVICES["scanner"])
    config = Config.load(SAMPLE, environment)
    assert config.homeserver.url == PUBLISHED["HOMESERVER_URL"]
    assert config.clamav.addresses == (f"unix:{clamd_settings()['LocalSocket']}",)
    assert (config.server.listen, config.server.ops_listen) == ("0.0.0.0:8080", "0.0.0.0:8081")
    targets = [volume["target"] for volume in SERVICES["scanner"]["volumes"]]
    assert {str(config.state_dir), "/run/clamav", "/etc/media-scanner.yaml"} <= {*targets}
    assert str(targets[0]) == stages()["scanner"].command("CMD")[-1]


def test_a_misspelt_variable_would_be_noticed() -> None:
    """The control of the test before."""
    with pytest.raises(ConfigError):
        Config.load(SAMPLE, {"MEDIA_SCANNER__HOMESERVER__URI": "http://synapse:8008"})


def test_the_sample_says_what_stands_in_compose() -> None:
    assert (
        f"[{Config.load(SAMPLE, {}).clamav.addresses[0]}]"
        == (SERVICES["scanner"]["environment"]["MEDIA_SCANNER__CLAMAV__ADDRESSES"])
    )


def test_without_a_homeserver_compose_refuses() -> None:
    with pytest.raises(KeyError, match="HOMESERVER_URL"):
        compose({})


def clamd_settings() -> dict[str, str]:
    return _settings(CLAMD_CONF.read_text())


def _settings(text: str) -> dict[str, str]:
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, value in lines}  # noqa: C416  # it checks that there are two words


def test_clamd_has_the_settings_of_the_embedded_one() -> None:
    """Paths and who may connect are its own."""
    own = {"DatabaseDirectory", "TemporaryDirectory", "LocalSocket", "LocalSocketMode"}
    embedded = {name: value for name, value in _settings(CLAMD_SETTINGS).items() if name not in own}
    assert clamd_settings().items() >= embedded.items()
    assert clamd_settings().keys() - embedded.keys() == own | {"User", "FixStaleSocket"}


def test_clamd_has_the_settings_that_the_docs_demand_of_a_clamd_of_your_own() -> None:
    text = (CHECKOUT / "docs" / "configuration.md").read_text()
    demanded = re.findall(
        r"`(\w+)(?: (yes))?`", text.partition("A clamd of your own**")[2].partition("\n- **")[0]
    )
    settings = clamd_settings()
    named = [(name, value) for name, value in demanded if name[:1].isupper()]
    assert len(named) >= 5
    for name, value in named:
        assert settings[name] == (value or settings[name])
    assert settings["MaxFileSize"] == settings["MaxScanSize"]


# -- confinement ---------------------------------------------------------------------------------


@every_service
def test_services_can_neither_gain_rights_nor_write_to_their_image(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "userns_mode", "devices"} & service.keys()


@every_service
def test_services_are_bounded_and_never_swapped_or_dumped(service: dict[str, Any]) -> None:
    assert service["mem_limit"] == service["memswap_limit"]
    assert service["ulimits"]["core"] == 0
    assert service["pids_limit"] > 0
    assert service["logging"]["options"]["max-size"]


def test_ports_are_published_on_the_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"scanner": ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"]}


def test_clamd_has_no_network_and_freshclam_is_not_in_the_homeservers() -> None:
    assert SERVICES["clamd"]["network_mode"] == "none"
    assert SERVICES["freshclam"]["networks"] == ["mirrors"]
    assert SERVICES["scanner"]["networks"] == ["homeserver"]


def test_only_who_has_to_writes_to_a_volume() -> None:
    writers = {
        (volume["source"], name)
        for name, service in SERVICES.items()
        for volume in service["volumes"]
        if not volume.get("read_only")
    }
    assert writers == {("state", "scanner"), ("clamd-socket", "clamd"), ("signatures", "freshclam")}


def test_the_scanner_may_use_clamds_socket() -> None:
    assert SERVICES["scanner"]["group_add"] == [str(stages()["clamd"].user[1])]
    assert clamd_settings()["LocalSocketMode"] == "0660"


def test_whatever_listens_has_time_to_finish() -> None:
    assert SERVICES["scanner"]["stop_grace_period"] == "30s"
