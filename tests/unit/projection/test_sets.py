"""The life of a set: what is planned for what is there."""

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.projection.sets import (
    NEXT,
    Create,
    Drop,
    Occasion,
    Pause,
    Plan,
    Serve,
    Unpark,
    Wanted,
    plan,
)
from ultraengine.projection.target import Parked, ProjectionSet, Request, SetState

NOW = Instant(1_000_000_000)
GRACE_S = 60.0
PARKED = Parked(ShardId(0), Offset(7), 0, "poison", NOW)
BUILDING, SERVING, RETIRED = SetState.BUILDING, SetState.SERVING, SetState.RETIRED


def one(state: SetState, build: int = 1, version: int = 1, **more: Any) -> ProjectionSet:
    return ProjectionSet("shop", version, build, state, NOW, NOW, **more)


def planned(
    *sets: ProjectionSet,
    asked: tuple[Request, ...] = (),
    ready: tuple[ProjectionSet, ...] = (),
    version: int = 1,
    now: Instant = NOW,
) -> Plan:
    requests = [("shop", request) for request in asked]
    return plan([Wanted("shop", version)], sets, requests, ready, now, GRACE_S)


def test_a_projection_without_a_set_is_built() -> None:
    assert planned().actions == (Create("shop", 1, "first"),)


def test_what_is_being_built_and_what_serves_is_followed_serving_first() -> None:
    build, serving = one(BUILDING, 2), one(SERVING)
    found = planned(build, serving)
    assert found.actions == ()
    assert found.follow == (serving, build)


def test_a_build_that_has_caught_up_serves() -> None:
    build = one(BUILDING)
    assert planned(build, ready=(build,)).actions == (Serve(build),)


@pytest.mark.parametrize("change", [{"parked": PARKED}, {"paused": True}])
def test_a_build_that_stands_still_is_neither_followed_nor_served(change: dict[str, Any]) -> None:
    build = one(BUILDING, **change)
    assert planned(build, ready=(build,)) == Plan((), ())


def test_a_raised_version_builds_beside_what_serves() -> None:
    serving = one(SERVING, 3)
    found = planned(serving, version=2)
    assert found.actions == (Create("shop", 4, "version"),)
    assert found.follow == ()


def test_an_older_program_leaves_newer_sets_alone() -> None:
    serving, build = one(SERVING, version=3), one(BUILDING, 2, version=4)
    found = planned(serving, build, version=2)
    assert found.actions == ()
    assert found.follow == ()
    assert found.newer == (serving, build)


def test_an_older_program_does_not_start_beside_a_newer_first_build() -> None:
    assert planned(one(BUILDING, version=2), version=1).actions == ()


def test_a_request_goes_back_to_an_older_version_on_purpose() -> None:
    found = planned(one(SERVING, version=3), asked=(Request.REBUILD,), version=2)
    assert found.actions == (Create("shop", 2, "asked"),)


def test_a_replaced_set_is_dropped_after_its_grace_and_not_before() -> None:
    retired, serving = one(RETIRED), one(SERVING, 2)
    end = Instant(NOW + int(GRACE_S * 1e6))
    assert planned(retired, serving, now=Instant(end - 1)).actions == ()
    assert planned(retired, serving, now=end).actions == (Drop(retired, Occasion.GRACE_OVER),)


def test_a_request_builds_anew_beside_what_serves() -> None:
    found = planned(one(SERVING, 5), asked=(Request.REBUILD, Request.REBUILD))
    assert found.actions == (Create("shop", 6, "asked"),)


def test_a_request_for_what_is_being_built_already_changes_nothing() -> None:
    assert planned(one(SERVING), one(BUILDING, 2), asked=(Request.REBUILD,)).actions == ()


def test_a_request_replaces_a_build_that_is_stuck() -> None:
    stuck, serving = one(BUILDING, 2, parked=PARKED), one(SERVING)
    assert planned(serving, stuck, asked=(Request.REBUILD,)).actions == (
        Create("shop", 3, "asked"),
    )
    anew = one(BUILDING, 3)
    found = planned(serving, stuck, anew)
    assert found.actions == (Drop(stuck, Occasion.SUPERSEDED),)
    assert found.follow == (serving, anew)


def test_a_build_of_an_older_version_is_dropped() -> None:
    old = one(BUILDING, 2, version=1)
    found = planned(one(SERVING, 1, version=1), old, version=2)
    assert set(found.actions) == {
        Create("shop", 3, "version"),
        Drop(old, Occasion.SUPERSEDED),
    }
    assert found.follow == ()


def test_a_pause_stops_all_sets_and_a_pause_of_the_build_only_that() -> None:
    serving, build, retired = one(SERVING), one(BUILDING, 2), one(RETIRED, 3)
    sets = (serving, build, retired)
    all_of_it = planned(*sets, asked=(Request.PAUSE,))
    assert all_of_it.actions == (Pause(serving, True), Pause(build, True))
    assert planned(*sets, asked=(Request.PAUSE_BUILD,)).actions == (Pause(build, True),)


def test_the_last_of_several_requests_counts() -> None:
    serving = one(SERVING)
    assert planned(serving, asked=(Request.PAUSE, Request.RESUME)).actions == ()
    found = planned(serving, asked=(Request.RESUME, Request.PAUSE))
    assert found.actions == (Pause(serving, True),)


def test_a_build_that_is_paused_at_the_moment_it_is_ready_does_not_serve() -> None:
    build = one(BUILDING)
    found = planned(build, ready=(build,), asked=(Request.PAUSE_BUILD,))
    assert found == Plan((Pause(build, True),), ())


def test_going_on_takes_sets_out_of_pause_and_park() -> None:
    paused, parked = one(SERVING, paused=True), one(BUILDING, 2, parked=PARKED)
    found = planned(paused, parked, asked=(Request.RESUME,))
    assert found.actions == (Pause(paused, False), Unpark(parked))


def test_sets_that_nobody_declares_are_left_alone_and_told() -> None:
    other = msgspec.structs.replace(one(RETIRED), projection="other")
    found = plan([Wanted("shop", 1)], [one(SERVING), other], [], [], Instant(10**15), 0.0)
    assert found.actions == ()
    assert found.unknown == (other,)


def test_requests_for_one_projection_do_not_touch_another() -> None:
    sets = [one(SERVING), msgspec.structs.replace(one(SERVING), projection="audit")]
    wanted = [Wanted("shop", 1), Wanted("audit", 1)]
    found = plan(wanted, sets, [("audit", Request.PAUSE)], [], NOW, GRACE_S)
    assert found.actions == (Pause(sets[1], True),)


@pytest.mark.parametrize(("state", "occasion"), list(product(SetState, Occasion)))
def test_only_the_pairs_of_the_table_can_happen(state: SetState, occasion: Occasion) -> None:
    allowed = {
        (BUILDING, Occasion.CAUGHT_UP): SERVING,
        (SERVING, Occasion.REPLACED): RETIRED,
        (RETIRED, Occasion.GRACE_OVER): None,
        (BUILDING, Occasion.SUPERSEDED): None,
    }
    if (state, occasion) in allowed:
        assert NEXT[state, occasion] is allowed[state, occasion]
    else:
        assert (state, occasion) not in NEXT


SETS = st.lists(
    st.builds(
        lambda state, version, parked, paused: (state, version, parked, paused),
        st.sampled_from(SetState),
        st.integers(1, 3),
        st.sampled_from([None, PARKED]),
        st.booleans(),
    ),
    max_size=5,
)


@given(
    SETS,
    st.lists(st.sampled_from(Request), max_size=3),
    st.integers(1, 3),
    st.booleans(),
)
def test_plans_carried_out_again_and_again_come_to_rest_and_never_drop_what_serves(
    kinds: list[Any], asked: list[Request], version: int, ready: bool
) -> None:
    sets: dict[int, ProjectionSet] = {}
    for build, (state, of_version, parked, paused) in enumerate(kinds, 1):
        is_second = state is SERVING and any(of.state is SERVING for of in sets.values())
        sets[build] = one(
            RETIRED if is_second else state, build, of_version, parked=parked, paused=paused
        )
    requests = tuple(asked)
    for _ in range(6):
        caught_up = tuple(sets.values()) if ready else ()
        found = planned(*sets.values(), asked=requests, ready=caught_up, version=version)
        requests = ()
        if not found.actions:
            break
        for action in found.actions:
            match action:
                case Create(_, build, _):
                    assert build not in sets
                    sets[build] = one(BUILDING, build, version)
                case Drop(of, _):
                    assert of.state is not SERVING
                    del sets[of.build]
                case Serve(of):
                    for other in list(sets.values()):
                        if other.state is SERVING:
                            sets[other.build] = msgspec.structs.replace(other, state=RETIRED)
                    sets[of.build] = msgspec.structs.replace(of, state=SERVING)
                case Pause(of, is_paused):
                    sets[of.build] = msgspec.structs.replace(sets[of.build], paused=is_paused)
                case Unpark(of):
                    sets[of.build] = msgspec.structs.replace(sets[of.build], parked=None)
    assert planned(*sets.values(), ready=caught_up, version=version).actions == ()
    assert sum(of.state is SERVING for of in sets.values()) <= 1
    for of in found.follow:
        assert of.version == version
