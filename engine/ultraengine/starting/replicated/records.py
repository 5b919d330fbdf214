"""Where the record of a replicated shard is kept, by the settings."""

from collections.abc import Mapping

from ultraengine.config import Config, ConfigErrors
from ultraengine.ports import RecordStore
from ultraengine_adapters.kubernetes.record_store import (
    ApiServer,
    LeaseRecordStore,
    pod_namespace,
)
from ultraengine_adapters.local.record_store import DirectoryRecordStore


def record_store(config: Config, environ: Mapping[str, str]) -> RecordStore:
    """Where the record of a replicated shard is kept.  Raises `ConfigErrors`, OSError."""
    if config.record is not None:
        return DirectoryRecordStore(config.record)
    try:
        api, namespace = ApiServer.of_pod(environ), pod_namespace()
    except (KeyError, ValueError, OSError) as error:
        raise ConfigErrors(
            [f"ULTRA_RECORD_LEASE: this is no pod with an account: {error}"]
        ) from error
    return LeaseRecordStore(api, namespace, config.record_lease or "")
