"""The ledger's reads, as `GET /v1/ledger/{key}/…` serves them."""

from typing import Final

from ultraengine.domains.ledger import read_accounts, read_entries, read_transfers
from ultraengine.domains.ledger.asof import offset_of
from ultraengine.model.domain import QuerySpec

QUERIES: Final = (
    QuerySpec(
        path="{key}/accounts",
        params=read_accounts.AccountsParams,
        result=read_accounts.AccountsView,
        summary="Accounts of a book in the order of their opening, page by page.",
        capture=read_accounts.capture_accounts,
        render=read_accounts.render_accounts,
    ),
    QuerySpec(
        path="{key}/accounts/{id}",
        params=read_accounts.AccountParams,
        result=read_accounts.AccountView,
        summary="One account: balance, held amounts, available amount; now or as of a point.",
        capture=read_accounts.capture_account,
        render=read_accounts.render_account,
        etag=read_accounts.account_etag,
        as_of=offset_of,
    ),
    QuerySpec(
        path="{key}/accounts/{id}/entries",
        params=read_entries.EntriesParams,
        result=read_entries.EntriesView,
        summary="Postings of an account with running balances, newest first, page by page.",
        capture=read_entries.capture_entries,
        render=read_entries.render_entries,
        as_of=offset_of,
    ),
    QuerySpec(
        path="{key}/accounts/{id}/statement",
        params=read_entries.StatementParams,
        result=read_entries.Statement,
        summary="A period of an account: opening balance, entries, closing balance.",
        capture=read_entries.capture_statement,
        render=read_entries.render_statement,
    ),
    QuerySpec(
        path="{key}/transfers/{id}",
        params=read_transfers.TransferParams,
        result=read_transfers.TransferView,
        summary="One transfer, hold or reversal, and what became of it.",
        capture=read_transfers.capture_transfer,
        render=read_transfers.render_transfer,
    ),
    QuerySpec(
        path="{key}/holds",
        params=read_transfers.HoldsParams,
        result=read_transfers.HoldsView,
        summary="Open holds of a book, oldest first, page by page.",
        capture=read_transfers.capture_holds,
    ),
    QuerySpec(
        path="{key}/trial-balance",
        params=read_accounts.TrialParams,
        result=read_accounts.TrialBalance,
        summary="Debits and credits per asset, posted and pending; now or as of a point.",
        capture=read_accounts.capture_trial,
        render=read_accounts.render_trial,
        as_of=offset_of,
    ),
)
