"""docs/api against the code: every public name, argument, member and default is there."""

import dataclasses
import inspect
import re
from pathlib import Path

from listener.pos import client
from listener.pos.client import (
    SNAPSHOT,
    Cause,
    Event,
    FilePositions,
    Follower,
    FollowStatus,
    Timing,
    follow,
)

PAGE = (Path(__file__).parents[2] / "docs" / "api" / "pos-client.md").read_text()
SECTIONS = {
    part.split("\n", 1)[0].strip(): part.split("\n", 1)[1] for part in PAGE.split("\n## ")[1:]
}


def rows(section: str) -> dict[str, list[str]]:
    """Return the cells of each row whose first cell is a name."""
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", SECTIONS[section], re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


def test_every_public_name_has_a_section_and_nothing_else_has() -> None:
    assert set(SECTIONS) == set(client.__all__)


def test_every_argument_is_there_with_its_default() -> None:
    parameters = inspect.signature(Follower).parameters
    assert list(inspect.signature(follow).parameters) == list(parameters)
    told = rows("Follower")
    for name, parameter in parameters.items():
        default = told[name][1].strip("`")
        given = "" if parameter.default is parameter.empty else parameter.default
        assert default == (given if given == "" else repr(given).replace("'", '"')), name
    members = {name for name in vars(Follower) if not name.startswith("_")}
    assert set(told) == {*parameters, *members}


def test_every_member_of_the_status_is_there_and_every_cause() -> None:
    assert set(rows("FollowStatus")) == {field.name for field in dataclasses.fields(FollowStatus)}
    assert set(rows("Cause")) == set(Cause)


def test_every_wait_is_there_with_its_default() -> None:
    told = rows("Timing")
    assert set(told) == {field.name for field in dataclasses.fields(Timing)}
    for name, (default, _) in told.items():
        value = getattr(Timing(), name)
        assert default == ("`random.random`" if callable(value) else f"{value:g}"), name


def test_every_member_of_an_event_is_there() -> None:
    told = set(re.findall(r"`(\w+)`", SECTIONS["Event"]))
    data = Event.model_fields["data"].annotation
    assert data is not None
    assert {*Event.model_fields, *data.model_fields} <= told
    assert SNAPSHOT in SECTIONS["SNAPSHOT"]
    assert list(inspect.signature(FilePositions).parameters) == ["path"]
