"""`ultra snapshot …`: what is there, whether it is good, and writing it again in another way."""

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ultraengine.cli.directories import open_secrets, shard_directory
from ultraengine.cli.domains import add_domains, import_domains, import_extensions
from ultraengine.cli.exits import CommandFailed, Exit
from ultraengine.cli.offline import empty_image, shard_number
from ultraengine.cli.output import print_facts, print_json, print_table, say
from ultraengine.execution.registry import Registry
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.shard.image import readable
from ultraengine.snapshot import tools
from ultraengine.snapshot.codec import BINARY, JSON, Codecs
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotError
from ultraengine.snapshot.manifest import SnapshotEntry, plan_load
from ultraengine.snapshot.migrate import NO_MIGRATIONS, Migrations
from ultraengine.snapshot.store import SnapshotOptions
from ultraengine_adapters.local.clock import SystemClock
from ultraengine_adapters.local.disk import LocalDisk
from ultraengine_adapters.local.random import SystemRandom

CODECS = {"binary": BINARY, "json": JSON}


def configure(parser: argparse.ArgumentParser) -> None:
    """The verbs below ``snapshot``."""
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, summary: str, action: Callable[[argparse.Namespace], int]) -> Any:
        child = verbs.add_parser(name, help=summary, description=summary)
        child.add_argument("directory", type=Path, help="data directory, or that of one shard")
        child.add_argument("--secrets", type=Path, help="directory with the keys")
        child.set_defaults(action=action)
        return child

    child = verb("list", "List the verified snapshots.", _list)
    child.add_argument("-o", "--output", choices=("text", "json"), default="text")

    child = verb("verify", "Read every listed snapshot, load it and compare its state.", _verify)
    add_domains(child)

    child = verb("info", "Say what a snapshot is of, and what it consists of.", _info)
    child.add_argument("file", help="name as 'list' shows it")
    child.add_argument("--sections", action="store_true", help="sizes by name (reads all of it)")

    child = verb("compact", "Merge the newest image and its increments into one.", _compact)
    add_domains(child)
    _add_key(child)

    child = verb("convert", "Write a snapshot again with another codec or key.", _convert)
    child.add_argument("file", help="name as 'list' shows it")
    child.add_argument("--codec", choices=sorted(CODECS), default="binary")
    child.add_argument("--uncompressed", action="store_true", help="without LZ4")
    _add_key(child)
    parser.epilog = "compact and convert need the shard's directory for themselves: stop it first."


def _add_key(child: argparse.ArgumentParser) -> None:
    key = child.add_mutually_exclusive_group()
    key.add_argument("--master-key", metavar="NAME", help="secret to encrypt it with (the same)")
    key.add_argument("--plain", action="store_true", help="do not encrypt it, even if it is now")


def run(options: argparse.Namespace) -> int:
    """Carry out the verb; errors of snapshots become messages and exit codes."""
    try:
        return int(options.action(options))
    except SnapshotDamaged as error:
        raise CommandFailed(str(error), code=Exit.DAMAGED) from error
    except BlockingIOError as error:
        raise CommandFailed(
            "a running process owns the directory", advice="Stop it first.", code=Exit.IN_USE
        ) from error
    except InvariantBroken as error:
        advice = "Name the domains that the data was written with: --domain."
        raise CommandFailed(str(error), advice=advice) from error
    except (SnapshotError, OSError, KeyError) as error:
        raise CommandFailed(str(error)) from error


def _tools(options: argparse.Namespace) -> tools.Tools:
    disk = LocalDisk(shard_directory(options.directory))
    codecs = Codecs(import_extensions().snapshot_codecs)
    return tools.Tools(disk=disk, secrets=open_secrets(options.secrets), codecs=codecs)


def _tools_with_domains(options: argparse.Namespace) -> tools.Tools:
    domains, shard = import_domains(options.domain), _shard(options)
    steps = import_extensions().migrations
    return msgspec.structs.replace(
        _tools(options),
        new_image=lambda: empty_image(domains, shard),
        migrations=Migrations(readable(Registry(domains)), steps) if steps else NO_MIGRATIONS,
    )


def _shard(options: argparse.Namespace) -> int:
    return shard_number(shard_directory(options.directory).name)


def _list(options: argparse.Namespace) -> int:
    entries = tools.listed(_tools(options))
    if options.output == "json":
        print_json(entries)
        return Exit.OK
    rows = [["file", "kind", "bytes", "offsets below", "epoch", "taken"]]
    rows += [_row(entry) for entry in entries]
    print_table(rows, right=frozenset({2, 3, 4}))
    return Exit.OK


def _row(entry: SnapshotEntry) -> list[str]:
    taken = datetime.fromtimestamp(entry.created / 1e6, UTC).isoformat(timespec="seconds")
    kind = "full" if entry.full else "increment"
    return [
        entry.file, kind, f"{entry.bytes:,}", str(entry.offset_end), str(entry.epoch), taken,
    ]  # fmt: skip


def _verify(options: argparse.Namespace) -> int:
    found = tools.verify(_tools_with_domains(options))
    for verdict in found.verdicts:
        good = "good, its state too" if verdict.state_compared else "good"
        print(f"{verdict.entry.file}: {verdict.problem or good}")
    if found.usable_end is None:
        print("no snapshot can be loaded: a start replays the whole log")
    else:
        print(f"a start begins at offset {found.usable_end}")
    return Exit.OK if found.good else Exit.DAMAGED


def _info(options: argparse.Namespace) -> int:
    with_tools = _tools(options)
    found = tools.info(with_tools, options.file)
    header, footer = found.header, found.footer
    print_facts(
        {
            "file": found.file,
            "bytes": f"{found.bytes:,}",
            "kind": "full" if header.base is None else "increment",
            "shard": header.position.shard,
            "epoch": header.position.epoch,
            "offsets below": header.position.offset_end,
            "frames below": header.position.sequence_end,
            "handlers": header.position.handlers,
            "chain": header.position.chain.hex(),
            "content hash": footer.content_hash.hex(),
            "state hash": footer.state_hash.hex() if footer.state_hash else None,
            "codec": header.codec,
            "key": header.key_name or None,
            "sections": footer.sections,
            "chunk bytes": f"{footer.chunk_bytes:,}",
        }
    )
    if options.sections:
        rows = [["section", "schema", "sections", "slots", "bytes"]]
        rows += [
            [
                total.name,
                str(total.schema),
                str(total.sections),
                str(total.slots),
                f"{total.chunk_bytes:,}",
            ]
            for total in tools.totals(with_tools, options.file)
        ]
        print()
        print_table(rows, right=frozenset({1, 2, 3, 4}))
    return Exit.OK


def _options(
    options: argparse.Namespace, with_tools: tools.Tools, source: Sequence[SnapshotEntry]
) -> SnapshotOptions:
    """How `source` is written again: under the newest of its keys unless another one is named.

    A key that somebody has forgotten to name must not turn an encrypted state into plain bytes.
    Nothing listed is removed: how many are kept is a setting of the engine's.
    """
    key = options.master_key
    if key is None and not options.plain:
        named = (tools.info(with_tools, one.file).header.key_name for one in reversed(source))
        key = next(filter(None, named), None)
    kept = len(tools.listed(with_tools)) + 1
    return SnapshotOptions(shard=ShardId(_shard(options)), master_key=key, fulls_kept=kept)


def _compact(options: argparse.Namespace) -> int:
    with_tools = _tools_with_domains(options)
    chain = plan_load(tools.listed(with_tools))
    if chain is None:
        raise CommandFailed("there is no snapshot to merge")
    # Whoever has set a codec for the engine has not set another one for this.
    wanted = msgspec.structs.replace(_options(options, with_tools, chain), codec=chain[-1].codec)
    entry = tools.compact(with_tools, wanted, clock=SystemClock(), random=SystemRandom())
    say(f"the newest full image is {entry.file}")
    print_json(entry)
    return Exit.OK


def _convert(options: argparse.Namespace) -> int:
    with_tools = _tools(options)
    source = [one for one in tools.listed(with_tools) if one.file == options.file]
    wanted = msgspec.structs.replace(
        _options(options, with_tools, source),
        codec=CODECS[options.codec],
        compress=not options.uncompressed,
    )
    entry = tools.convert(
        with_tools, options.file, wanted, clock=SystemClock(), random=SystemRandom()
    )
    say(f"written as {entry.file}; the next start loads it")
    print_json(entry)
    return Exit.OK
