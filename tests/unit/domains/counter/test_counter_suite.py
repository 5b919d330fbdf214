"""The counter passes the contract of domains."""

from hypothesis import strategies as st

from ultraengine.domains.counter.domain import INT64_MAX
from ultraengine.testing.domain_suite import DomainSuite
from ultraengine.testing.rehearsal import command

SMALL = st.integers(-20, 20)


class TestCounterDomain(DomainSuite):
    domain = "ultraengine.domains.counter:DOMAIN"
    commands = st.builds(
        command,
        st.just("counter.add"),
        st.fixed_dictionaries(
            {"delta": SMALL | st.just(INT64_MAX)},
            optional={"minimum": SMALL, "maximum": SMALL},
        ),
        key=st.sampled_from(["a", "b"]),
        tenant=st.sampled_from(["one", "two"]),
    )
