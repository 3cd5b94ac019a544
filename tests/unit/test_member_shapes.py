"""What a member of a body must look like is told in a sentence, never as a pattern."""

import pytest
from pydantic import BaseModel

from listener.pos.events import AckBody
from listener.web.shapes.bodies import SHAPES, CancelBody, DecideBody, PayBody, SaleBody


def _patterned(schema: dict[str, object]) -> bool:
    options = schema.get("anyOf", [schema])
    assert isinstance(options, list)
    return any("pattern" in option for option in options)


@pytest.mark.parametrize("model", [SaleBody, PayBody, CancelBody, DecideBody, AckBody])
def test_every_member_with_a_pattern_has_a_sentence(model: type[BaseModel]) -> None:
    members = model.model_json_schema(by_alias=True)["properties"]
    assert not [name for name, one in members.items() if _patterned(one) and name not in SHAPES]


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_sentence_says_what_a_member_must_be(name: str) -> None:
    assert SHAPES[name].startswith("must ")
    assert not set("^$\\") & set(SHAPES[name])
