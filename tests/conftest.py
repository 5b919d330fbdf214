"""What all tests share: no test fails because the machine was slow; databases to test with."""

import gc

import structlog
from hypothesis import settings
from tests.servers.postgres import (  # noqa: F401  (fixtures, found by name)
    own_postgres,
    postgres_server,
    postgres_url,
)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# The default draws every local variable of every frame around a logged exception, for seconds.
PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
]
structlog.configure(processors=PROCESSORS)

pytest_plugins = ("tests.servers.mariadb", "tests.servers.s3")


def pytest_collection_finish() -> None:
    """What ten thousand tests consist of stays until the end: let no collection walk it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """A test before may have started what configures the lines of a process."""
    if structlog.get_config()["processors"] is not PROCESSORS:
        structlog.reset_defaults()
        structlog.configure(processors=PROCESSORS)
