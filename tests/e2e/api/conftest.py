"""One API server for all tests of this folder."""

from tests.servers.kubernetes import api_server, empty_api_server  # noqa: F401  (fixtures)
