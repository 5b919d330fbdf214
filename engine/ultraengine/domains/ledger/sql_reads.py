"""The ledger asked through SQL: lists, statements, trial balances (`docs/query.md`).

The tables hold what the engine's own reads (`queries.py`) say, so a statement or a trial balance
is the same from memory and from a database that has come as far; a test compares them.  What
only the tables can do: filters, any order that has an index, totals by day.

Business time: the balance at a moment is the sum of all days before its day (``daily_balance``)
and of the postings of that day up to it.  Logged time: the last entry up to it has the balance.
"""

from typing import Final

from ultraengine.domains.ledger.sql_lists import LISTS
from ultraengine.domains.ledger.sql_statement import STATEMENT
from ultraengine.domains.ledger.sql_trial import TRIAL_BALANCE, TURNOVER
from ultraengine.model.reads import Computed, Read

SQL_READS: Final[tuple[Read | Computed, ...]] = (*LISTS, STATEMENT, TRIAL_BALANCE, TURNOVER)
