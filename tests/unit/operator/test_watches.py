"""What kopf is told: one handler for each watched kind, and only labelled objects."""

from ultraengine_operator import names
from ultraengine_operator.cluster import WATCHED
from ultraengine_operator.drivers.watches import registry_of, settings_of


def test_every_watched_kind_has_one_handler_and_pods_are_chosen_by_the_server() -> None:
    registry = registry_of(lambda _event: None)
    assert len(list(registry._watching.get_all_handlers())) == len(WATCHED)
    assert settings_of().watching.label_selectors["", "v1", "pods"] == names.ENGINE
    assert settings_of().peering.standalone
