"""What all tests share: no test fails because the machine was slow; databases to test with."""

from hypothesis import settings
from tests.servers.postgres import (  # noqa: F401  (fixtures, found by name)
    own_postgres,
    postgres_server,
    postgres_url,
)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ("tests.servers.mariadb",)
