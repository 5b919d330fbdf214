"""One API server for all tests of this folder, and operators that are started on it."""

from tests.e2e.api.operators import operators  # noqa: F401  (a fixture)
from tests.servers.kubernetes import api_server, empty_api_server  # noqa: F401  (fixtures)
