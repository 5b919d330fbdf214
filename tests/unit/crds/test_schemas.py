"""Rules for the CRDs that need no API server: descriptions, bounds, columns, tables of tests."""

import re
from collections import Counter

import pytest
from tests.e2e.api.limits import ITEMS, limits
from tests.e2e.api.rules import CASES
from tests.e2e.api.whole import PLURALS, at, whole
from tests.servers.crds import FILES, GROUP, Field, crd, fields, rules, version

KINDS = list(FILES)
FIELDS = [field for kind in KINDS for field in fields(kind)]
OWN = [field for field in FIELDS if field.path and field.path[0] in ("spec", "status")]
COLUMNS = {
    "UltraEngine": ["Ready", "Available", "Shards", "Desired", "Moved", "Version", "Age"],
    "Shard": ["Engine", "Shard", "Ready", "Leader", "Epoch", "Slots", "Age"],
    "Snapshot": ["Engine", "Shard", "Ready", "Age"],
}


def named(field: Field) -> str:
    return f"{field.kind}.{field.name}"


@pytest.mark.parametrize("field", FIELDS, ids=named)
def test_every_field_says_in_sentences_what_it_is_for(field: Field) -> None:
    text = field.schema.get("description", "")
    if field.path == ("metadata",):
        return  # The API server has its own and takes no other.
    assert re.match(r"[A-Z]", text), field
    assert text.endswith("."), field


@pytest.mark.parametrize("field", OWN, ids=named)
def test_every_list_map_text_and_number_is_bounded(field: Field) -> None:
    schema = field.schema
    match schema.get("type"):
        case "array":
            assert {"maxItems", "x-kubernetes-list-type"} <= schema.keys()
        case "object" if "additionalProperties" in schema:
            assert "maxProperties" in schema
        case "string":
            assert "maxLength" in schema or "enum" in schema
        case "integer":
            # What the operator reports is not refused for being large.
            wanted = {"minimum", "maximum"} if field.path[0] == "spec" else {"minimum"}
            assert wanted <= schema.keys()
        case kind:
            assert kind == "object" or schema["x-kubernetes-int-or-string"] is True


@pytest.mark.parametrize("field", FIELDS, ids=named)
def test_no_field_is_a_float_or_a_boolean_or_takes_whatever_comes(field: Field) -> None:
    assert field.schema.get("type") not in {"number", "boolean"}
    assert "x-kubernetes-preserve-unknown-fields" not in field.schema
    assert "nullable" not in field.schema


@pytest.mark.parametrize("field", OWN, ids=named)
def test_a_number_that_may_pass_two_to_the_53rd_is_a_text(field: Field) -> None:
    if field.schema.get("type") == "integer" and "maximum" in field.schema:
        assert field.schema["maximum"] < 2**53
    if field.path[-1] in {"epoch", "offset"}:
        assert field.schema["type"] == "string"


@pytest.mark.parametrize("field", OWN, ids=named)
def test_enums_are_camel_case(field: Field) -> None:
    for value in field.schema.get("enum", ()):
        assert re.fullmatch(r"[A-Z][A-Za-z]+", value)


@pytest.mark.parametrize("field", OWN, ids=named)
def test_a_list_of_named_things_is_a_map_by_its_keys(field: Field) -> None:
    items = field.schema.get("items", {})
    if "name" in items.get("properties", {}) or "type" in items.get("properties", {}):
        assert field.schema["x-kubernetes-list-type"] == "map"
    for key in field.schema.get("x-kubernetes-list-map-keys", ()):
        assert key in items["required"]


@pytest.mark.parametrize("field", OWN, ids=named)
def test_the_whole_objects_of_the_tests_have_the_field(field: Field) -> None:
    assert at(whole(field.kind), field.path) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_is_in_the_table_of_tests_once(kind: str) -> None:
    written = Counter(
        (".".join(rule.path).replace(".[]", "[]"), case.message)
        for rule in rules(kind)
        for case in CASES
        if case.kind == kind and rule.message.startswith(case.message)
        and case.where == ".".join(rule.path).replace(".[]", "[]")
    )  # fmt: skip
    tested = Counter((case.where, case.message) for case in CASES if case.kind == kind)
    assert written == tested
    assert sum(tested.values()) == len(rules(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_names_the_field_it_is_about(kind: str) -> None:
    for rule in rules(kind):
        assert re.match(r"(spec\.[a-zA-Z.]+|metadata\.name|resources\.requests)\b", rule.message)


def test_every_limit_has_a_value_within_and_one_beyond() -> None:
    table = {limit.name for limit in limits()}
    words = {
        "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems",
        "maxProperties", "type",
    }  # fmt: skip
    for field in OWN:
        for word in words & field.schema.keys():
            assert f"{named(field)}.{word}" in table
        for name in field.schema.get("required", ()):
            assert f"{named(field)}.required.{name}" in table
        for value in field.schema.get("enum", ()):
            assert f"{named(field)}.enum.{value}" in table
    assert all(limit.within != limit.beyond for limit in limits())


def test_every_list_knows_how_its_items_are_made() -> None:
    assert ITEMS.keys() == {one.name for one in OWN if one.schema.get("type") == "array"}


@pytest.mark.parametrize("kind", KINDS)
def test_names_columns_and_subresources_are_as_promised(kind: str) -> None:
    spec, only = crd(kind)["spec"], version(kind)
    assert spec["group"] == GROUP
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["kind"] == kind
    assert spec["names"]["plural"] == PLURALS[kind]
    assert spec["names"]["categories"] == ["ultra"]
    # kubectl looks for a category first: one with the name of a kind hides that kind's objects.
    own = {spec["names"][one] for one in ("singular", "plural")} | {*spec["names"]["shortNames"]}
    assert own.isdisjoint(spec["names"]["categories"])
    assert only["name"] == "v1alpha1"
    narrow = [one["name"] for one in only["additionalPrinterColumns"] if not one.get("priority")]
    assert narrow == COLUMNS[kind]
    assert len(only["additionalPrinterColumns"]) > len(narrow)
    assert only["subresources"]["status"] == {}
    assert ("scale" in only["subresources"]) == (kind != "Snapshot")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_column_shows_is_a_field(kind: str) -> None:
    names = {field.name for field in fields(kind)} | {"metadata.creationTimestamp"}
    for column in version(kind)["additionalPrinterColumns"]:
        path = re.sub(r"\[(\?\(@\.type==\"[A-Za-z]+\"\)|0)\]", "[]", column["jsonPath"])
        assert path.removeprefix(".") in names
        assert column["description"].endswith(".")


def test_a_crd_fits_into_the_annotation_of_client_side_apply() -> None:
    for kind, file in FILES.items():
        assert len(str(crd(kind)).encode()) < 256 * 1024, file
