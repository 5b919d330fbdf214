"""`ultra` from the outside: what is printed, where, and with which exit code."""

import http.client
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ultraengine.cli.exits import MEANINGS, Exit
from ultraengine.cli.main import VERBS

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Dev

Ultra = Callable[..., tuple[int, str, str]]
OPEN = (
    '{"accounts": [{"id": "al", "asset": "USD/2", "min_balance": null},'
    ' {"id": "shop", "asset": "USD/2"}]}'
)
NOBODY = "http://127.0.0.1:9"


def pay(name: str, amount: str, source: str = "al", target: str = "shop") -> str:
    item = {"id": name, "from": source, "to": target, "amount": amount}
    return msgspec.json.encode({"transfers": [item]}).decode()


def test_help_names_every_verb_and_every_exit_code(ultra: Ultra) -> None:
    code, out, _ = ultra("--help")
    assert code == 0
    assert all(re.search(rf"^    {verb}\s", out, re.MULTILINE) for verb in VERBS)
    assert all(f"{exit_code.value:>3}  {meaning}" in out for exit_code, meaning in MEANINGS.items())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(ultra: Ultra, verb: str) -> None:
    code, out, _ = ultra(verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: ultra {verb}")


def test_every_exit_code_has_a_meaning_that_the_documents_repeat() -> None:
    text = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    assert set(MEANINGS) == set(Exit)
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in text


def test_the_version_is_the_packages(ultra: Ultra) -> None:
    code, out, _ = ultra("--version")
    assert (code, out.split()[0]) == (0, "ultra")


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("send", "--nonsense"), ("log",)])
def test_a_wrong_command_line_ends_with_two(ultra: Ultra, arguments: tuple[str, ...]) -> None:
    code, _, err = ultra(*arguments)
    assert code == Exit.USAGE
    assert "usage: ultra" in err


def test_the_banner_says_where_it_listens_and_that_it_is_not_production(dev: "Dev") -> None:
    assert "not for production" in dev.banner
    assert f"curl -s {dev.url}/v1/commands" in dev.banner
    assert str(dev.data) in dev.banner


def test_a_taken_port_and_an_impossible_directory_are_explained(
    ultra: Ultra, dev: "Dev", tmp_path: Path
) -> None:
    port = dev.url.rpartition(":")[2]
    code, _, err = ultra("dev", "--data", tmp_path / "data", "--port", port)
    assert (code, f"cannot listen on 127.0.0.1:{port}" in err) == (Exit.USAGE, True)
    (tmp_path / "file").write_text("")
    code, _, err = ultra("dev", "--data", tmp_path / "file" / "data", "--port", "0")
    assert (code, "cannot keep data" in err) == (Exit.USAGE, True)
    assert ultra("dev", "--ephemeral", "--port", "99999")[0] == Exit.USAGE


def test_settings_of_serve_are_reported_together(
    ultra: Ultra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRA_PORT", "x")
    monkeypatch.setenv("ULTRA_NONSENSE", "1")
    code, _, err = ultra("serve")
    assert code == Exit.USAGE
    assert "ULTRA_PORT: 'x' is not an integer" in err
    assert "ULTRA_NONSENSE: no such setting" in err


def test_send_prints_the_reply_and_get_reads_it_back(ultra: Ultra, dev: "Dev") -> None:
    to = ("--key", "verbs-1", "--url", dev.url)
    code, out, _ = ultra("send", "ledger.open_accounts", "--data", OPEN, "--id", "o-1", *to)
    assert code == Exit.OK
    assert msgspec.json.decode(out)["id"] == "o-1"
    code, out, _ = ultra("send", "ledger.create_transfers", "--data", pay("t1", "125"), *to)
    assert (code, msgspec.json.decode(out)["outcome"]) == (Exit.OK, "accepted")
    code, out, _ = ultra("get", "ledger/verbs-1/accounts/shop", "--url", dev.url)
    assert (code, msgspec.json.decode(out)["balance"]) == (Exit.OK, "125")
    code, out, _ = ultra(
        "get", "/v1/ledger/verbs-1/accounts?limit=1", "--position", "--url", dev.url
    )
    answer = msgspec.json.decode(out)
    assert len(answer["value"]["accounts"]) == 1
    assert answer["offset"] >= 1


def test_a_rejection_prints_the_reply_and_ends_with_its_own_code(ultra: Ultra, dev: "Dev") -> None:
    to = ("--key", "verbs-2", "--url", dev.url)
    ultra("send", "ledger.open_accounts", "--data", OPEN, *to)
    data = pay("t1", "1", "shop", "al")
    code, out, err = ultra("send", "ledger.create_transfers", "--data", data, *to)
    assert code == Exit.REJECTED
    assert msgspec.json.decode(out)["error"]["code"] == "exceeds_balance"
    assert "exceeds_balance" in err


def test_a_refusal_says_what_is_wrong(ultra: Ultra, dev: "Dev") -> None:
    code, out, err = ultra(
        "send", "ledger.open_accounts", "--key", "k", "--data", "{}", "--url", dev.url
    )
    assert code == Exit.REFUSED
    assert msgspec.json.decode(out)["outcome"] == "refused"
    assert "MALFORMED" in err


def test_data_comes_from_a_file_or_from_standard_input(
    ultra: Ultra, dev: "Dev", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = ("--key", "verbs-3", "--url", dev.url)
    (tmp_path / "open.json").write_text(OPEN)
    kind = "ledger.open_accounts"
    assert ultra("send", kind, "--data", f"@{tmp_path}/open.json", *to)[0] == Exit.OK
    monkeypatch.setattr(sys, "stdin", io.StringIO(pay("t1", "5")))
    assert ultra("send", "ledger.create_transfers", "--data", "-", *to)[0] == Exit.OK


def test_a_file_of_commands_gets_a_reply_on_each_line(
    ultra: Ultra, dev: "Dev", tmp_path: Path
) -> None:
    def line(name: str, kind: str, data: Any) -> bytes:
        return msgspec.json.encode({"id": name, "type": kind, "key": "verbs-4", "data": data})

    commands = [
        line("1", "ledger.open_accounts", msgspec.json.decode(OPEN)),
        b"",
        line("2", "ledger.create_transfers", msgspec.json.decode(pay("t1", "5"))),
        line("3", "ledger.create_transfers", msgspec.json.decode(pay("t2", "9", "shop", "al"))),
    ]
    (tmp_path / "commands.jsonl").write_bytes(b"\n".join(commands))
    code, out, err = ultra("send", "--file", tmp_path / "commands.jsonl", "--url", dev.url)
    replies = [msgspec.json.decode(text) for text in out.splitlines()]
    assert [(reply["id"], reply["outcome"]) for reply in replies] == [
        ("1", "accepted"),
        ("2", "accepted"),
        ("3", "rejected"),
    ]
    assert (code, err) == (Exit.REJECTED, "3 commands: 2 accepted, 1 rejected\n")
    (tmp_path / "bad.jsonl").write_bytes(line("4", "ledger.nonsense", {}) + b"\n")
    assert ultra("send", "--file", tmp_path / "bad.jsonl", "--url", dev.url)[0] == Exit.REFUSED
    (tmp_path / "broken.jsonl").write_bytes(b"\n{nonsense\n")
    code, _, err = ultra("send", "--file", tmp_path / "broken.jsonl", "--url", dev.url)
    assert (code, "line 2" in err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("send",), "a command has a type"),
        (("send", "a.b", "--key", "k"), "a command has a type"),
        (("send", "a.b", "--file", "x"), "leave out the type"),
        (("send", "a.b", "--key", "k", "--data", "{"), "not JSON"),
        (("send", "a.b", "--key", "k", "--data", "@/no/such/file"), "not JSON"),
        (("send", "--file", "/no/such/file"), "cannot read"),
        (("get", "limits", "--url", "localhost"), "no address"),
        (("get", "limits", "--api-key-file", "/no/such/file"), "cannot read the API key"),
        (("import", "x", "--map", "/no/such/file"), "cannot read the mapping"),
        (("log", "verify", "/no/such/directory"), "is no directory"),
        (("new", "domain", "Not-A-Name"), ""),
    ],
)
def test_wrong_arguments_end_with_two_and_a_sentence(
    ultra: Ultra, arguments: tuple[str, ...], part: str
) -> None:
    code, out, err = ultra(*arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert err.startswith("ultra: ")
    assert part in err


def test_integers_that_cannot_travel_are_explained(ultra: Ultra, dev: "Dev") -> None:
    data = '{"n": 99999999999999999999999}'
    code, _, err = ultra("send", "a.b", "--key", "k", "--data", data, "--url", dev.url)
    assert (code, "decimal strings" in err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    "arguments", [("get", "limits"), ("send", "a.b", "--key", "k", "--data", "{}"), ("status",)]
)
def test_without_an_engine_every_verb_says_so_and_ends_with_three(
    ultra: Ultra, arguments: tuple[str, ...]
) -> None:
    code, _, err = ultra(*arguments, "--url", NOBODY, "--timeout", "0.05")
    assert code == Exit.UNREACHABLE
    assert "no engine answers at http://127.0.0.1:9" in err
    assert "ultra dev" in err


def test_status_is_for_people_and_for_programs(ultra: Ultra, dev: "Dev") -> None:
    code, out, _ = ultra("status", "--url", dev.url)
    assert code == Exit.OK
    assert "state " in out
    code, out, _ = ultra("status", "-o", "json", "--url", dev.url)
    assert msgspec.json.decode(out)["state"] == "serving"


def test_the_status_lists_the_consumers_of_the_feed_with_their_lag(
    ultra: Ultra, dev: "Dev"
) -> None:
    code, out, _ = ultra("status", "--url", dev.url)
    assert (code, "consumer " in out) == (Exit.OK, False)
    host, _, port = dev.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port))
    kind = {"Content-Type": "application/json"}
    connection.request("PUT", "/v1/feed/consumers/mail", b'{"offset": 1}', kind)
    answer = msgspec.json.decode(connection.getresponse().read())
    assert answer == {"shard": 0, "name": "mail", "offset": 1}
    connection.close()
    for _ in range(200):
        _, out, _ = ultra("status", "-o", "json", "--url", dev.url)
        status = msgspec.json.decode(out)
        if status["consumers"]:
            break
    (slot,) = status["consumers"]
    lag = status["applied_end"] - 1
    assert slot == {"name": "mail", "offset": 1, "lag": lag}
    _, out, _ = ultra("status", "--url", dev.url)
    assert ["mail", "0", "1"] in [line.split()[:3] for line in out.splitlines()]
    assert (dev.data / "archive").is_dir()


def test_an_unknown_path_is_refused(ultra: Ultra, dev: "Dev") -> None:
    code, _, err = ultra("get", "no/such/thing", "--url", dev.url)
    assert (code, "NOT_FOUND" in err) == (Exit.REFUSED, True)


def test_the_repl_carries_out_lines_from_a_pipe(
    ultra: Ultra, dev: "Dev", monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"ledger.open_accounts repl-1 {OPEN}",
        f"ledger.create_transfers repl-1 {pay('t1', '5')}",
        f"ledger.create_transfers repl-1 {pay('t2', '9', 'shop', 'al')}",
        "ledger/repl-1/accounts/shop",
        "outcome repl-1 nothing",
        "types",
        "paths",
        "help",
        "nonsense",
        'a.b k {"n": 99999999999999999999999}',
        "quit",
        "ledger/repl-1/never-read",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    code, out, err = ultra("repl", "--url", dev.url)
    assert code == Exit.OK
    assert '"balance": "5"' in out
    assert '"state": "unknown"' in out
    assert "\nledger.reverse_transfers\n" in out
    assert "ledger/{key}/accounts/{id}" in out
    assert "exceeds_balance" in err
    assert "'nonsense' is neither" in err
    assert "decimal strings" in err
    assert "never-read" not in out + err


def test_the_repl_starts_without_an_engine_and_says_so(
    ultra: Ultra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("types\n"))
    code, _, err = ultra("repl", "--url", NOBODY, "--timeout", "0.05")
    assert code == Exit.OK
    assert "UNREACHABLE" in err


def test_an_import_prints_its_counts_and_reports_what_it_did_not_book(
    ultra: Ultra, dev: "Dev", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.toml").write_text(
        'name = "small"\n[table]\ncolumns = ["who", "paid"]\n'
        '[[needs]]\ntype = "ledger.open_accounts"\nkey = "small"\nonce = "{who}"\n'
        'items = "accounts"\n'
        'item = { id = "{who}", asset = "USD/2", min_balance = "{null}" }\n'
        '[row]\ntype = "ledger.create_transfers"\nkey = "small"\nitems = "transfers"\n'
        'item = { id = "t-{line}", from = "{who}", to = "shop", amount = "{paid|minor:2}" }\n'
    )
    (tmp_path / "till.csv").write_text("who,paid\nshop,0.01\nal,1.50\nal,x\nal,2\n")
    line = ("import", "till.csv", "--map", "map.toml", "--url", dev.url)
    code, out, err = ultra(*line, "--dry-run")
    assert code == Exit.FINDINGS
    assert "not sent (dry run)" in out
    assert "'x' is not a decimal number" in err
    code, out, _ = ultra(*line, "-o", "json")
    counts = msgspec.json.decode(out)
    assert code == Exit.FINDINGS
    assert (counts["booked"], counts["bad"], counts["rejected"]) == (2, 1, 1)
    lines = (tmp_path / "small-report.jsonl").read_bytes().splitlines()
    report = [msgspec.json.decode(text) for text in lines]
    assert [(row["line"], row["kind"]) for row in report] == [(2, "rejected"), (4, "bad")]
    code, out, _ = ultra(*line)
    assert "booked before" in out
    assert "small-report.jsonl" in out
    code, _, err = ultra(*line, "--rejected-max", "1")
    assert (code, "stopped" in err) == (Exit.FINDINGS, True)
    (tmp_path / "map.toml").write_text("name = 'small'\n")
    code, _, err = ultra(*line)
    assert (code, "map.toml" in err) == (Exit.USAGE, True)


def test_an_import_without_an_engine_says_how_to_go_on(
    ultra: Ultra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.toml").write_text(
        'name = "small"\n[table]\ncolumns = ["n"]\n'
        '[row]\ntype = "counter.add"\nkey = "k"\ndata = { amount = "{n|int}" }\n'
    )
    (tmp_path / "till.csv").write_text("n\n1\n")
    line = ("import", "till.csv", "--map", "map.toml", "--url", NOBODY, "--timeout", "0.05")
    code, _, err = ultra(*line)
    assert code == Exit.UNREACHABLE
    assert "The same command line goes on where this one stopped." in err
    code, _, err = ultra("import", "none.csv", *line[2:])
    assert (code, "none.csv" in err) == (Exit.USAGE, True)


def test_new_domain_lists_what_it_wrote(ultra: Ultra, tmp_path: Path) -> None:
    code, out, _ = ultra("new", "domain", "library", "--directory", tmp_path)
    assert code == Exit.OK
    written = [Path(text) for text in out.splitlines()]
    assert written
    assert all(path.exists() for path in written)
    assert ultra("new", "domain", "library", "--directory", tmp_path)[0] == Exit.USAGE


def test_settings_of_a_gateway_are_reported_together(
    ultra: Ultra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULTRA_KEYLESS", "perhaps")
    monkeypatch.setenv("ULTRA_SHARD_ADDRESS", "http://shop:8080")
    code, _, err = ultra("gateway")
    assert code == 2
    for variable in ("ULTRA_MAP", "ULTRA_HOP_KEY", "ULTRA_KEYLESS", "ULTRA_SHARD_ADDRESS"):
        assert f"\n  {variable}: " in err
    assert "ULTRA_SHARD_ADDRESS" in ultra("gateway", "--help")[1]
