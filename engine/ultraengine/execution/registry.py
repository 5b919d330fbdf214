"""All domains of an engine, compiled once: type -> handler, and admission of commands.

Admission is everything before the log that needs a domain: dispatch by type, version and
tenant; the scope; the strict schema; ``prepare``; canonical bytes.  What fails here is
*refused* and leaves no trace (`docs/api.md`).
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any, Final, Literal

import msgspec

from ultraengine.execution.carried import CARRIED, decode_parts
from ultraengine.execution.pipeline import AdmissionHook, AfterHook, Hooks, Run, compile_run
from ultraengine.execution.system import is_system
from ultraengine.model.command import SYSTEM_DOMAIN, Command, fingerprint, identity_hash
from ultraengine.model.domain import CommandSpec, Domain, Recorded
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.ids import NAME_PATTERN, Instant, SlotId, is_name, slot_of, split_type
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.model.pointer import split_place

Codec = Literal["json", "msgpack"]
_encode: Final = msgspec.msgpack.Encoder().encode
_Raw: Final = msgspec.Raw
_matches_name: Final = re.compile(NAME_PATTERN).fullmatch
# Bound once: what is looked up or wrapped per command costs more than what it does.

SLOTS_CACHED_MAX: Final = 65_536
_NO_SLOT: Final = SlotId(-1)


class Handler:
    """One command type at one version, ready to run."""

    __slots__ = (
        "decode_json",
        "decode_msgpack",
        "domain",
        "domain_index",
        "domain_name",
        "due",
        "focus",
        "items",
        "prepare",
        "recorded",
        "run",
        "scopes",
        "spec",
        "type",
    )

    def __init__(self, domain: Domain, domain_index: int, spec: CommandSpec, hooks: Hooks) -> None:
        self.domain = domain
        self.domain_index = domain_index
        self.domain_name = domain.name
        self.spec = spec
        self.type = f"{domain.name}.{spec.name}@{spec.version}"
        self.focus: Callable[[Any, str, str], Any] = spec.focus or domain.focus
        self.due: Callable[[Any], Instant | None] = domain.due
        # Who takes the lanes away decides, and so evolves, in a way of their own: all of it counts.
        fast = spec.lane is not None or spec.single is not None
        self.recorded: Recorded | None = spec.recorded if fast else None
        self.run: Run = compile_run(spec, domain.evolve, hooks.before)
        self.decode_json = msgspec.json.Decoder(spec.data).decode
        self.decode_msgpack = msgspec.msgpack.Decoder(spec.data).decode
        self.prepare = spec.prepare
        self.items = spec.items
        self.scopes = frozenset({f"{domain.name}:{spec.scope}", f"*:{spec.scope}"})

    def decode(self, command: Command) -> Any:
        """The typed data of a logged command."""
        return self.decode_msgpack(command.data)


class Admitted(msgspec.Struct, eq=False, gc=False):
    """A command that may be logged, with what admission already knows about it.

    Invisible to the cycle collector: nothing that it holds knows of it.
    """

    command: Command
    payload: Any
    handler: Handler | None
    """None for the engine's own ``system.*`` commands, which belong to no slot."""
    slot: SlotId = _NO_SLOT
    identity: bytes = b""
    """`model.command.identity_hash`; empty for the engine's own commands."""

    @property
    def fingerprint(self) -> int:
        """Content fingerprint (`model.command.fingerprint`); only retries are asked for it."""
        return fingerprint(self.command)


class Registry:
    """The compiled domains.  Immutable after construction.

    Raises `InvariantBroken` for domains that contradict each other or the Protocol.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        *,
        hooks: Hooks | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.domains: tuple[Domain, ...] = tuple(domains)
        self.limits = limits
        self._items_max = limits.items_per_command_max
        hooks = hooks or Hooks()
        self.after: tuple[AfterHook, ...] = hooks.after
        self._admission: tuple[AdmissionHook, ...] = hooks.admission
        self.domain_index = {domain.name: n for n, domain in enumerate(self.domains)}
        if len(self.domain_index) != len(self.domains) or SYSTEM_DOMAIN in self.domain_index:
            raise InvariantBroken(
                "domain names are unique and not 'system'",
                names=[domain.name for domain in self.domains],
            )
        # The unions are values here, which a type checker cannot follow.
        kinds: list[Any] = [domain.events for domain in self.domains]
        self.events = tuple(msgspec.msgpack.Decoder(GenericAlias(list, (kind,))) for kind in kinds)
        """By domain index: decoder of an outcome's events."""
        self.decoders: dict[str, Callable[[bytes], Sequence[Any]]] = {
            domain.name: decoder.decode
            for domain, decoder in zip(self.domains, self.events, strict=True)
        }
        self.decoders[CARRIED] = decode_parts
        """By domain name: the same, as functions; and of what a moved slot has brought along."""
        self.expiries = tuple(
            msgspec.msgpack.Decoder(GenericAlias(list, (GenericAlias(tuple, (str, str, kind)),)))
            for kind in kinds
        )
        """By domain index: decoder of a tick's (tenant, key, event) triples."""
        self._slots: dict[tuple[str, str], SlotId] = {}
        """Slots of keys that were seen and are well-formed; a cache."""
        self._by_type: dict[str, Handler] = {}
        self._by_tenant: dict[tuple[str, str], Handler] = {}
        for index, domain in enumerate(self.domains):
            for spec in sorted(domain.commands, key=lambda spec: spec.version):
                self._add(Handler(domain, index, spec, hooks))
        self.handlers = {domain.name: domain.version for domain in self.domains}
        self.handlers_digest = handlers_digest(self.handlers)

    def _add(self, handler: Handler) -> None:
        bare = handler.type.partition("@")[0]
        if split_type(handler.type) is None:
            raise InvariantBroken("a command type is domain.verb_noun@version", type=handler.type)
        tenants = handler.spec.tenants
        if tenants is None:
            if handler.type in self._by_type:
                raise InvariantBroken("a command type has one handler", type=handler.type)
            self._by_type[bare] = self._by_type[handler.type] = handler
            return
        for tenant in sorted(tenants):
            if (tenant, handler.type) in self._by_tenant:
                raise InvariantBroken(
                    "a command type has one handler per tenant", type=handler.type, tenant=tenant
                )
            self._by_tenant[tenant, bare] = self._by_tenant[tenant, handler.type] = handler

    @property
    def handlers_all(self) -> list[Handler]:
        """Every handler once, by type then tenant, for documents and doctors."""
        seen = {
            id(handler): handler for handler in (*self._by_type.values(), *self._by_tenant.values())
        }
        return sorted(
            seen.values(), key=lambda handler: (handler.type, sorted(handler.spec.tenants or ()))
        )

    def handler(self, type_name: str, tenant: str) -> Handler | None:
        """The handler of a command type, with or without ``@version``, for a tenant."""
        if self._by_tenant:
            special = self._by_tenant.get((tenant, type_name))
            if special is not None:
                return special
        return self._by_type.get(type_name)

    def admit(
        self,
        *,
        id: str,
        type: str,
        key: str,
        data: bytes | msgspec.Raw,
        codec: Codec,
        tenant: str,
        principal: str,
        scopes: frozenset[str],
        expected_version: int | None = None,
        issued_at: int | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Admitted:
        """Check everything that is checked before the log.

        Raises `EngineError`: MALFORMED with a pointer, UNKNOWN_TYPE, FORBIDDEN, TOO_LARGE, or
        what an admission hook raises.
        """
        return self.take(
            self.permitted(type, tenant, scopes),
            id,
            key,
            data,
            codec,
            tenant,
            principal,
            expected_version,
            issued_at,
            correlation_id,
            traceparent,
        )

    def permitted(self, type_name: str, tenant: str, scopes: frozenset[str]) -> Handler:
        """The handler of a type for a caller; the same for all commands of one request.

        Raises `EngineError`: UNKNOWN_TYPE, FORBIDDEN.
        """
        handler = self.handler(type_name, tenant)
        if handler is None:
            raise EngineError(f"no handler for {type_name!r}", code="UNKNOWN_TYPE", pointer="/type")
        if handler.scopes.isdisjoint(scopes):
            wanted = min(handler.scopes - {f"*:{handler.spec.scope}"})
            raise EngineError(f"this needs the scope {wanted}", code="FORBIDDEN")
        return handler

    def take(
        self,
        handler: Handler,
        id: str,
        key: str,
        data: bytes | msgspec.Raw,
        codec: Codec,
        tenant: str,
        principal: str,
        expected_version: int | None,
        issued_at: int | None,
        correlation_id: str | None,
        traceparent: str | None,
    ) -> Admitted:
        """``admit`` for a `permitted` handler.  Raises as it does, but for the handler."""
        if _matches_name(id) is None:
            raise Malformed("an id is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer="/id")
        slot = self._slots.get((tenant, key))
        if slot is None:
            slot = self._slot(tenant, key)
        try:
            payload = (handler.decode_json if codec == "json" else handler.decode_msgpack)(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _undecodable(error) from error
        if handler.items is not None and len(handler.items(payload)) > self._items_max:
            raise self._too_many(len(handler.items(payload)))
        if handler.prepare is not None:
            payload = handler.prepare(payload)
        command = Command(
            id,
            handler.type,
            key,
            _Raw(_encode(payload)),
            tenant,
            principal,
            expected_version,
            issued_at,
            correlation_id,
            traceparent,
        )
        for hook in self._admission:
            hook(command, payload)
        return Admitted(command, payload, handler, slot, identity_hash(tenant, id))

    def _slot(self, tenant: str, key: str) -> SlotId:
        if not is_name(key):
            raise Malformed("a key is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer="/key")
        if len(self._slots) >= SLOTS_CACHED_MAX:
            self._slots.clear()
        slot = self._slots[tenant, key] = slot_of(tenant, key)
        return slot

    def _too_many(self, count: int) -> EngineError:
        return EngineError(
            f"{count} items are more than items_per_command_max ({self._items_max})",
            code="TOO_LARGE",
            pointer="/data",
        )

    def restore(self, command: Command) -> Admitted:
        """A logged command, ready to be decided again.

        Raises `EngineError` UNKNOWN_TYPE when this build has no handler for it.
        """
        if is_system(command):
            return Admitted(command, None, None)
        handler = self.handler(command.type, command.tenant)
        if handler is None:
            raise EngineError(f"no handler for {command.type!r}", code="UNKNOWN_TYPE")
        return Admitted(
            command,
            handler.decode(command),
            handler,
            slot_of(command.tenant, command.key),
            identity_hash(command.tenant, command.id),
        )


def _undecodable(error: msgspec.DecodeError | UnicodeDecodeError) -> Malformed:
    if isinstance(error, msgspec.ValidationError):
        detail, pointer = split_place(str(error), under="/data")
        return Malformed(detail, pointer=pointer)
    return Malformed(str(error), pointer="/data")


def handlers_digest(handlers: dict[str, int]) -> bytes:
    """Eight bytes that name a set of handler versions (`log/FORMAT.md`, field handlers)."""
    lines = "".join(f"{name}={version}\n" for name, version in sorted(handlers.items()))
    return hashlib.blake2b(lines.encode(), digest_size=8).digest()
