"""docs/deploy: what the compose file names is there, and what it sets is known."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from listener.environment import VARIABLES
from listener.settings import load
from listener.storage.postgres.location import read_location

FOLDER = Path(__file__).parents[2] / "docs" / "deploy"
ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
# Made by whoever deploys, and never committed.
OWN = {"pos.pem", "listener.env", "postgres.env"}


def environment(name: str) -> dict[str, str]:
    """Read an example as Compose does."""
    lines = (FOLDER / f"{name}.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_there_are_two_listeners_a_primary_a_standby_and_a_proxy() -> None:
    assert set(SERVICES) == {"listener-a", "listener-b", "proxy", "primary", "standby"}
    assert SERVICES["listener-a"] == SERVICES["listener-b"]


def test_every_file_that_is_mounted_or_built_from_is_there() -> None:
    for service in SERVICES.values():
        named = [volume.split(":")[0] for volume in service.get("volumes", ())]
        files = [Path(name) for name in named if name.startswith(".")]
        assert all((FOLDER / path).is_file() or path.name in OWN for path in files)
        assert all(name.startswith(".") or name in COMPOSE["volumes"] for name in named)
        if "env_file" in service:
            assert (FOLDER / f"{service['env_file']}.example").is_file()
    build = SERVICES["listener-a"]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    ignored = set((FOLDER / ".gitignore").read_text().splitlines())
    assert ignored == OWN


def test_the_listeners_are_set_by_settings_that_exist_and_know_no_other_password() -> None:
    found = environment("listener.env") | SERVICES["listener-a"]["environment"]
    # A variable that is unknown keeps a listener from starting.
    assert {name for name in found if name.startswith("LISTENER_")} == set(found)
    assert set(found) <= set(VARIABLES)
    settings = load(None, found)
    assert settings.merchants
    hosts = read_location(settings.database).hosts
    assert [host for host, _ in hosts] == ["primary", "standby"]


def test_the_scripts_are_given_every_variable_that_they_use() -> None:
    given = set(environment("postgres.env")) | {"PGDATA", "POSTGRES_USER"}
    for name in ("primary.sh", "standby.sh"):
        text = (FOLDER / name).read_text()
        own = set(re.findall(r"(?:export |: \"\$\{| \"\$\{)([A-Z_]+)(?:=|:=)", text))
        assert set(re.findall(r"\$\{?([A-Z_]{3,})", text)) <= given | own


def test_the_proxy_asks_the_listeners_of_the_compose_file_at_their_port() -> None:
    config = (FOLDER / "haproxy.cfg").read_text()
    addresses = set(re.findall(r'server \w "\$\{LISTENER_\w-([^}]+)\}"', config))
    port = SERVICES["listener-a"]["environment"]["LISTENER_PORT"]
    assert addresses == {f"listener-a:{port}", f"listener-b:{port}"}
    mounted = [volume.split(":")[1] for volume in SERVICES["proxy"]["volumes"]]
    (shown,) = re.findall(r"PROXY_CERTIFICATE-([^}]+)}", config)
    assert shown in mounted
    (public,) = re.findall(r'PROXY_BIND-:(\d+)}"', config)
    assert SERVICES["proxy"]["ports"] == [f"{public}:{public}"]


def test_the_image_has_what_the_wheel_is_built_from() -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text()
    forced = project.partition("wheel.force-include]")[2].partition("[")[0]
    wanted = set(re.findall(r'^"([^"]+)" =', forced, re.MULTILINE))
    assert wanted | {"listener", "pyproject.toml", "README.md", "LICENSE"} <= let_in
    assert all((ROOT / path).exists() for path in let_in)


@pytest.mark.parametrize("page", ["README.md"])
def test_what_the_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (FOLDER / page).read_text())
    assert links
    for link in links:
        assert urlsplit(link).scheme or (FOLDER / link).exists(), link
