CREATE TABLE [ledger_account__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [min_balance] decimal(38, 0),
  [max_balance] decimal(38, 0),
  [metadata] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [balance] decimal(38, 0) NOT NULL,
  [pending_in] decimal(38, 0) NOT NULL,
  [pending_out] decimal(38, 0) NOT NULL,
  [version] bigint NOT NULL,
  [closed] bit NOT NULL,
  [opened_at] datetime2(6) NOT NULL,
  [changed_at] datetime2(6) NOT NULL,
  [shard] bigint NOT NULL,
  [log_offset] bigint NOT NULL,
  CONSTRAINT [ledger_account__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [account]),
  CONSTRAINT [ledger_account__v1_b1_held] CHECK ([pending_in] >= 0 AND [pending_out] >= 0),
  CONSTRAINT [ledger_account__v1_b1_available] CHECK ([min_balance] IS NULL OR [balance] - [pending_out] >= [min_balance]),
  CONSTRAINT [ledger_account__v1_b1_room] CHECK ([max_balance] IS NULL OR [balance] + [pending_in] <= [max_balance]),
  CONSTRAINT [ledger_account__v1_b1_limits] CHECK (([min_balance] IS NULL OR [min_balance] <= 0) AND ([max_balance] IS NULL OR [max_balance] >= 0)),
  CONSTRAINT [ledger_account__v1_b1_version] CHECK ([version] >= 1),
  CONSTRAINT [ledger_account__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_account__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_account__v1_b1_account_end] CHECK ([account] NOT LIKE N'% '),
  CONSTRAINT [ledger_account__v1_b1_metadata_json] CHECK (ISJSON(CONCAT('[', [metadata], ']')) = 1)
)
;
CREATE INDEX [ledger_account__v1_b1_asset] ON [ledger_account__v1_b1] ([tenant], [book], [asset])
;
CREATE TYPE [ledger_account__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL, [min_balance] decimal(38, 0), [max_balance] decimal(38, 0), [metadata] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL, [balance] decimal(38, 0) NOT NULL, [pending_in] decimal(38, 0) NOT NULL, [pending_out] decimal(38, 0) NOT NULL, [version] bigint NOT NULL, [closed] bit NOT NULL, [opened_at] datetime2(6) NOT NULL, [changed_at] datetime2(6) NOT NULL, [shard] bigint NOT NULL, [log_offset] bigint NOT NULL)
;
CREATE TABLE [ledger_transfer__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [transfer] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [source] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [target] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [amount] decimal(38, 0) NOT NULL,
  [status] nvarchar(8) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [code] nvarchar(128) COLLATE Latin1_General_100_BIN2,
  [reference] nvarchar(512) COLLATE Latin1_General_100_BIN2,
  [reverses] nvarchar(128) COLLATE Latin1_General_100_BIN2,
  [hold_timeout_s] bigint,
  [effective_at] datetime2(6) NOT NULL,
  [booked_at] datetime2(6) NOT NULL,
  [shard] bigint NOT NULL,
  [log_offset] bigint NOT NULL,
  [event] bigint NOT NULL,
  [command_id] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [principal] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [correlation_id] nvarchar(256) COLLATE Latin1_General_100_BIN2,
  CONSTRAINT [ledger_transfer__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [transfer]),
  CONSTRAINT [ledger_transfer__v1_b1_amount] CHECK ([amount] > 0),
  CONSTRAINT [ledger_transfer__v1_b1_sides] CHECK ([source] <> [target]),
  CONSTRAINT [ledger_transfer__v1_b1_status] CHECK ([status] IN ('posted', 'pending', 'reversal')),
  CONSTRAINT [ledger_transfer__v1_b1_reversal] CHECK (([status] = 'reversal' AND [reverses] IS NOT NULL) OR ([status] <> 'reversal' AND [reverses] IS NULL)),
  CONSTRAINT [ledger_transfer__v1_b1_hold] CHECK (([status] = 'pending' AND [hold_timeout_s] IS NOT NULL AND [hold_timeout_s] >= 0) OR ([status] <> 'pending' AND [hold_timeout_s] IS NULL)),
  CONSTRAINT [ledger_transfer__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_transfer__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_transfer__v1_b1_transfer_end] CHECK ([transfer] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_transfer__v1_b1_booked] ON [ledger_transfer__v1_b1] ([tenant], [book], [booked_at])
;
CREATE INDEX [ledger_transfer__v1_b1_reference] ON [ledger_transfer__v1_b1] ([tenant], [book], [reference])
;
CREATE TYPE [ledger_transfer__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [transfer] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [source] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [target] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [amount] decimal(38, 0) NOT NULL, [status] nvarchar(8) COLLATE Latin1_General_100_BIN2 NOT NULL, [code] nvarchar(128) COLLATE Latin1_General_100_BIN2, [reference] nvarchar(512) COLLATE Latin1_General_100_BIN2, [reverses] nvarchar(128) COLLATE Latin1_General_100_BIN2, [hold_timeout_s] bigint, [effective_at] datetime2(6) NOT NULL, [booked_at] datetime2(6) NOT NULL, [shard] bigint NOT NULL, [log_offset] bigint NOT NULL, [event] bigint NOT NULL, [command_id] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [principal] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [correlation_id] nvarchar(256) COLLATE Latin1_General_100_BIN2)
;
CREATE PARTITION FUNCTION [ledger_entry__v1_b1_function] (datetime2(6)) AS RANGE RIGHT FOR VALUES ()
;
CREATE PARTITION SCHEME [ledger_entry__v1_b1_scheme] AS PARTITION [ledger_entry__v1_b1_function] ALL TO ([PRIMARY])
;
CREATE TABLE [ledger_entry__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [version] bigint NOT NULL,
  [transfer] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [counterparty] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [amount] decimal(38, 0) NOT NULL,
  [balance] decimal(38, 0) NOT NULL,
  [effective_at] datetime2(6) NOT NULL,
  [booked_at] datetime2(6) NOT NULL,
  [shard] bigint NOT NULL,
  [log_offset] bigint NOT NULL,
  [event] bigint NOT NULL,
  CONSTRAINT [ledger_entry__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [account], [version], [booked_at]),
  CONSTRAINT [ledger_entry__v1_b1_amount] CHECK ([amount] <> 0),
  CONSTRAINT [ledger_entry__v1_b1_sides] CHECK ([account] <> [counterparty]),
  CONSTRAINT [ledger_entry__v1_b1_version] CHECK ([version] >= 2),
  CONSTRAINT [ledger_entry__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_entry__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_entry__v1_b1_account_end] CHECK ([account] NOT LIKE N'% ')
) ON [ledger_entry__v1_b1_scheme]([booked_at])
;
CREATE INDEX [ledger_entry__v1_b1_effective] ON [ledger_entry__v1_b1] ([tenant], [book], [account], [effective_at])
;
CREATE TYPE [ledger_entry__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [version] bigint NOT NULL, [transfer] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [counterparty] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [amount] decimal(38, 0) NOT NULL, [balance] decimal(38, 0) NOT NULL, [effective_at] datetime2(6) NOT NULL, [booked_at] datetime2(6) NOT NULL, [shard] bigint NOT NULL, [log_offset] bigint NOT NULL, [event] bigint NOT NULL)
;
CREATE TABLE [ledger_hold__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [transfer] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [source] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [target] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [amount] decimal(38, 0) NOT NULL,
  [posted_amount] decimal(38, 0) NOT NULL,
  [status] nvarchar(8) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [expires_at] datetime2(6),
  [booked_at] datetime2(6) NOT NULL,
  [resolved_at] datetime2(6),
  [shard] bigint NOT NULL,
  [log_offset] bigint NOT NULL,
  CONSTRAINT [ledger_hold__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [transfer]),
  CONSTRAINT [ledger_hold__v1_b1_amount] CHECK ([amount] > 0),
  CONSTRAINT [ledger_hold__v1_b1_sides] CHECK ([source] <> [target]),
  CONSTRAINT [ledger_hold__v1_b1_status] CHECK ([status] IN ('pending', 'posted', 'voided', 'expired')),
  CONSTRAINT [ledger_hold__v1_b1_posted] CHECK (([status] = 'posted' AND [posted_amount] > 0 AND [posted_amount] <= [amount]) OR ([status] <> 'posted' AND [posted_amount] = 0)),
  CONSTRAINT [ledger_hold__v1_b1_resolved] CHECK (([status] = 'pending' AND [resolved_at] IS NULL) OR ([status] <> 'pending' AND [resolved_at] IS NOT NULL)),
  CONSTRAINT [ledger_hold__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_hold__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_hold__v1_b1_transfer_end] CHECK ([transfer] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_hold__v1_b1_open] ON [ledger_hold__v1_b1] ([tenant], [book], [status], [expires_at])
;
CREATE INDEX [ledger_hold__v1_b1_booked] ON [ledger_hold__v1_b1] ([tenant], [book], [booked_at])
;
CREATE INDEX [ledger_hold__v1_b1_resolved] ON [ledger_hold__v1_b1] ([tenant], [book], [resolved_at])
;
CREATE TYPE [ledger_hold__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [transfer] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [source] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [target] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [amount] decimal(38, 0) NOT NULL, [posted_amount] decimal(38, 0) NOT NULL, [status] nvarchar(8) COLLATE Latin1_General_100_BIN2 NOT NULL, [expires_at] datetime2(6), [booked_at] datetime2(6) NOT NULL, [resolved_at] datetime2(6), [shard] bigint NOT NULL, [log_offset] bigint NOT NULL)
;
CREATE TABLE [ledger_daily_balance__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [paid_in] decimal(38, 0) NOT NULL,
  [paid_out] decimal(38, 0) NOT NULL,
  [entries] bigint NOT NULL,
  [debits] decimal(38, 0) NOT NULL,
  CONSTRAINT [ledger_daily_balance__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [account], [day]),
  CONSTRAINT [ledger_daily_balance__v1_b1_paid] CHECK ([paid_in] >= 0 AND [paid_out] >= 0),
  CONSTRAINT [ledger_daily_balance__v1_b1_entries] CHECK ([entries] >= 1),
  CONSTRAINT [ledger_daily_balance__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_daily_balance__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_daily_balance__v1_b1_account_end] CHECK ([account] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_daily_balance__v1_b1_day] ON [ledger_daily_balance__v1_b1] ([day], [tenant], [book])
;
CREATE TYPE [ledger_daily_balance__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [paid_in] decimal(38, 0) NOT NULL, [paid_out] decimal(38, 0) NOT NULL, [entries] bigint NOT NULL, [debits] decimal(38, 0) NOT NULL)
;
CREATE TABLE [ledger_day_close__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [balance] decimal(38, 0) NOT NULL,
  [version] bigint NOT NULL,
  CONSTRAINT [ledger_day_close__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [account], [day]),
  CONSTRAINT [ledger_day_close__v1_b1_version] CHECK ([version] >= 1),
  CONSTRAINT [ledger_day_close__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_day_close__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_day_close__v1_b1_account_end] CHECK ([account] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_day_close__v1_b1_day] ON [ledger_day_close__v1_b1] ([day], [tenant], [book])
;
CREATE TYPE [ledger_day_close__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [balance] decimal(38, 0) NOT NULL, [version] bigint NOT NULL)
;
CREATE TABLE [ledger_day_held__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [pending_in] decimal(38, 0) NOT NULL,
  [pending_out] decimal(38, 0) NOT NULL,
  CONSTRAINT [ledger_day_held__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [account], [day]),
  CONSTRAINT [ledger_day_held__v1_b1_held] CHECK ([pending_in] >= 0 AND [pending_out] >= 0),
  CONSTRAINT [ledger_day_held__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_day_held__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_day_held__v1_b1_account_end] CHECK ([account] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_day_held__v1_b1_day] ON [ledger_day_held__v1_b1] ([day], [tenant], [book])
;
CREATE TYPE [ledger_day_held__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [pending_in] decimal(38, 0) NOT NULL, [pending_out] decimal(38, 0) NOT NULL)
;
CREATE TABLE [ledger_late_account__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [since] datetime2(6) NOT NULL,
  [until] datetime2(6) NOT NULL,
  CONSTRAINT [ledger_late_account__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [account]),
  CONSTRAINT [ledger_late_account__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_late_account__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_late_account__v1_b1_account_end] CHECK ([account] NOT LIKE N'% ')
)
;
CREATE TYPE [ledger_late_account__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [account] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [since] datetime2(6) NOT NULL, [until] datetime2(6) NOT NULL)
;
CREATE TABLE [ledger_asset_booked__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [span] bigint NOT NULL,
  [start] datetime2(6) NOT NULL,
  [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [accounts] bigint NOT NULL,
  [debits] decimal(38, 0) NOT NULL,
  [credits] decimal(38, 0) NOT NULL,
  CONSTRAINT [ledger_asset_booked__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [span], [start], [asset]),
  CONSTRAINT [ledger_asset_booked__v1_b1_double_entry] CHECK ([debits] = [credits]),
  CONSTRAINT [ledger_asset_booked__v1_b1_accounts] CHECK ([accounts] >= 0),
  CONSTRAINT [ledger_asset_booked__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_booked__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_booked__v1_b1_asset_end] CHECK ([asset] NOT LIKE N'% ')
)
;
CREATE TYPE [ledger_asset_booked__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [span] bigint NOT NULL, [start] datetime2(6) NOT NULL, [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL, [accounts] bigint NOT NULL, [debits] decimal(38, 0) NOT NULL, [credits] decimal(38, 0) NOT NULL)
;
CREATE TABLE [ledger_asset_shift__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [span] bigint NOT NULL,
  [start] datetime2(6) NOT NULL,
  [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [debits] decimal(38, 0) NOT NULL,
  [credits] decimal(38, 0) NOT NULL,
  CONSTRAINT [ledger_asset_shift__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [span], [start], [asset]),
  CONSTRAINT [ledger_asset_shift__v1_b1_double_entry] CHECK ([debits] = [credits]),
  CONSTRAINT [ledger_asset_shift__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_shift__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_shift__v1_b1_asset_end] CHECK ([asset] NOT LIKE N'% ')
)
;
CREATE TYPE [ledger_asset_shift__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [span] bigint NOT NULL, [start] datetime2(6) NOT NULL, [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL, [debits] decimal(38, 0) NOT NULL, [credits] decimal(38, 0) NOT NULL)
;
CREATE TABLE [ledger_asset_day__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [paid_in] decimal(38, 0) NOT NULL,
  [paid_out] decimal(38, 0) NOT NULL,
  [entries] bigint NOT NULL,
  [accounts] bigint NOT NULL,
  CONSTRAINT [ledger_asset_day__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [asset], [day]),
  CONSTRAINT [ledger_asset_day__v1_b1_double_entry] CHECK ([paid_in] = [paid_out]),
  CONSTRAINT [ledger_asset_day__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_day__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_day__v1_b1_asset_end] CHECK ([asset] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_asset_day__v1_b1_day] ON [ledger_asset_day__v1_b1] ([day])
;
CREATE TYPE [ledger_asset_day__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [paid_in] decimal(38, 0) NOT NULL, [paid_out] decimal(38, 0) NOT NULL, [entries] bigint NOT NULL, [accounts] bigint NOT NULL)
;
CREATE TABLE [ledger_asset_close__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [accounts] bigint NOT NULL,
  [debits] decimal(38, 0) NOT NULL,
  [credits] decimal(38, 0) NOT NULL,
  CONSTRAINT [ledger_asset_close__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [asset], [day]),
  CONSTRAINT [ledger_asset_close__v1_b1_double_entry] CHECK ([debits] = [credits]),
  CONSTRAINT [ledger_asset_close__v1_b1_accounts] CHECK ([accounts] >= 0),
  CONSTRAINT [ledger_asset_close__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_close__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_close__v1_b1_asset_end] CHECK ([asset] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_asset_close__v1_b1_day] ON [ledger_asset_close__v1_b1] ([day])
;
CREATE TYPE [ledger_asset_close__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [accounts] bigint NOT NULL, [debits] decimal(38, 0) NOT NULL, [credits] decimal(38, 0) NOT NULL)
;
CREATE TABLE [ledger_asset_held__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [pending_debits] decimal(38, 0) NOT NULL,
  [pending_credits] decimal(38, 0) NOT NULL,
  CONSTRAINT [ledger_asset_held__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [book], [asset], [day]),
  CONSTRAINT [ledger_asset_held__v1_b1_double_entry] CHECK ([pending_debits] = [pending_credits]),
  CONSTRAINT [ledger_asset_held__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_held__v1_b1_book_end] CHECK ([book] NOT LIKE N'% '),
  CONSTRAINT [ledger_asset_held__v1_b1_asset_end] CHECK ([asset] NOT LIKE N'% ')
)
;
CREATE INDEX [ledger_asset_held__v1_b1_day] ON [ledger_asset_held__v1_b1] ([day])
;
CREATE TYPE [ledger_asset_held__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [book] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [asset] nvarchar(20) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [pending_debits] decimal(38, 0) NOT NULL, [pending_credits] decimal(38, 0) NOT NULL)
;
CREATE OR ALTER VIEW [ledger_account] AS SELECT [tenant], [book], [account], [asset], [min_balance], [max_balance], [metadata], [balance], [pending_in], [pending_out], [version], [closed], [opened_at], [changed_at], [shard], [log_offset] FROM [ledger_account__v1_b1]
;
CREATE OR ALTER VIEW [ledger_transfer] AS SELECT [tenant], [book], [transfer], [source], [target], [amount], [status], [code], [reference], [reverses], [hold_timeout_s], [effective_at], [booked_at], [shard], [log_offset], [event], [command_id], [principal], [correlation_id] FROM [ledger_transfer__v1_b1]
;
CREATE OR ALTER VIEW [ledger_entry] AS SELECT [tenant], [book], [account], [version], [transfer], [counterparty], [amount], [balance], [effective_at], [booked_at], [shard], [log_offset], [event] FROM [ledger_entry__v1_b1]
;
CREATE OR ALTER VIEW [ledger_hold] AS SELECT [tenant], [book], [transfer], [source], [target], [amount], [posted_amount], [status], [expires_at], [booked_at], [resolved_at], [shard], [log_offset] FROM [ledger_hold__v1_b1]
;
CREATE OR ALTER VIEW [ledger_daily_balance] AS SELECT [tenant], [book], [account], [day], [paid_in], [paid_out], [entries], [debits] FROM [ledger_daily_balance__v1_b1]
;
CREATE OR ALTER VIEW [ledger_day_close] AS SELECT [tenant], [book], [account], [day], [balance], [version] FROM [ledger_day_close__v1_b1]
;
CREATE OR ALTER VIEW [ledger_day_held] AS SELECT [tenant], [book], [account], [day], [pending_in], [pending_out] FROM [ledger_day_held__v1_b1]
;
CREATE OR ALTER VIEW [ledger_late_account] AS SELECT [tenant], [book], [account], [since], [until] FROM [ledger_late_account__v1_b1]
;
CREATE OR ALTER VIEW [ledger_asset_booked] AS SELECT [tenant], [book], [span], [start], [asset], [accounts], [debits], [credits] FROM [ledger_asset_booked__v1_b1]
;
CREATE OR ALTER VIEW [ledger_asset_shift] AS SELECT [tenant], [book], [span], [start], [asset], [debits], [credits] FROM [ledger_asset_shift__v1_b1]
;
CREATE OR ALTER VIEW [ledger_asset_day] AS SELECT [tenant], [book], [asset], [day], [paid_in], [paid_out], [entries], [accounts] FROM [ledger_asset_day__v1_b1]
;
CREATE OR ALTER VIEW [ledger_asset_close] AS SELECT [tenant], [book], [asset], [day], [accounts], [debits], [credits] FROM [ledger_asset_close__v1_b1]
;
CREATE OR ALTER VIEW [ledger_asset_held] AS SELECT [tenant], [book], [asset], [day], [pending_debits], [pending_credits] FROM [ledger_asset_held__v1_b1]
;
INSERT INTO [ledger_account__v1_b1] ([tenant], [book], [account], [asset], [min_balance], [max_balance], [metadata], [balance], [pending_in], [pending_out], [version], [closed], [opened_at], [changed_at], [shard], [log_offset]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13, @P14, @P15, @P16)
;
MERGE INTO [ledger_account__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [account], [asset], [min_balance], [max_balance], [metadata], [balance], [pending_in], [pending_out], [version], [closed], [opened_at], [changed_at], [shard], [log_offset] FROM @rows) AS [new] ([tenant], [book], [account], [asset], [min_balance], [max_balance], [metadata], [balance], [pending_in], [pending_out], [version], [closed], [opened_at], [changed_at], [shard], [log_offset]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[account] = [new].[account] AND DATALENGTH([held].[account]) = DATALENGTH([new].[account]) WHEN MATCHED THEN UPDATE SET [asset] = [new].[asset], [min_balance] = [new].[min_balance], [max_balance] = [new].[max_balance], [metadata] = [new].[metadata], [balance] = [new].[balance], [pending_in] = [new].[pending_in], [pending_out] = [new].[pending_out], [version] = [new].[version], [closed] = [new].[closed], [opened_at] = [new].[opened_at], [changed_at] = [new].[changed_at], [shard] = [new].[shard], [log_offset] = [new].[log_offset] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [account], [asset], [min_balance], [max_balance], [metadata], [balance], [pending_in], [pending_out], [version], [closed], [opened_at], [changed_at], [shard], [log_offset]) VALUES ([new].[tenant], [new].[book], [new].[account], [new].[asset], [new].[min_balance], [new].[max_balance], [new].[metadata], [new].[balance], [new].[pending_in], [new].[pending_out], [new].[version], [new].[closed], [new].[opened_at], [new].[changed_at], [new].[shard], [new].[log_offset]);
;
UPDATE [ledger_account__v1_b1] SET [asset] = @P1, [min_balance] = @P2, [max_balance] = @P3, [metadata] = @P4, [balance] = @P5, [pending_in] = @P6, [pending_out] = @P7, [version] = @P8, [closed] = @P9, [opened_at] = @P10, [changed_at] = @P11, [shard] = @P12, [log_offset] = @P13 WHERE [tenant] = @P14 AND [book] = @P15 AND [account] = @P16
;
INSERT INTO [ledger_transfer__v1_b1] ([tenant], [book], [transfer], [source], [target], [amount], [status], [code], [reference], [reverses], [hold_timeout_s], [effective_at], [booked_at], [shard], [log_offset], [event], [command_id], [principal], [correlation_id]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13, @P14, @P15, @P16, @P17, @P18, @P19)
;
INSERT INTO [ledger_entry__v1_b1] ([tenant], [book], [account], [version], [transfer], [counterparty], [amount], [balance], [effective_at], [booked_at], [shard], [log_offset], [event]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13)
;
INSERT INTO [ledger_hold__v1_b1] ([tenant], [book], [transfer], [source], [target], [amount], [posted_amount], [status], [expires_at], [booked_at], [resolved_at], [shard], [log_offset]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13)
;
MERGE INTO [ledger_hold__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [transfer], [source], [target], [amount], [posted_amount], [status], [expires_at], [booked_at], [resolved_at], [shard], [log_offset] FROM @rows) AS [new] ([tenant], [book], [transfer], [source], [target], [amount], [posted_amount], [status], [expires_at], [booked_at], [resolved_at], [shard], [log_offset]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[transfer] = [new].[transfer] AND DATALENGTH([held].[transfer]) = DATALENGTH([new].[transfer]) WHEN MATCHED THEN UPDATE SET [source] = [new].[source], [target] = [new].[target], [amount] = [new].[amount], [posted_amount] = [new].[posted_amount], [status] = [new].[status], [expires_at] = [new].[expires_at], [booked_at] = [new].[booked_at], [resolved_at] = [new].[resolved_at], [shard] = [new].[shard], [log_offset] = [new].[log_offset] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [transfer], [source], [target], [amount], [posted_amount], [status], [expires_at], [booked_at], [resolved_at], [shard], [log_offset]) VALUES ([new].[tenant], [new].[book], [new].[transfer], [new].[source], [new].[target], [new].[amount], [new].[posted_amount], [new].[status], [new].[expires_at], [new].[booked_at], [new].[resolved_at], [new].[shard], [new].[log_offset]);
;
UPDATE [ledger_hold__v1_b1] SET [source] = @P1, [target] = @P2, [amount] = @P3, [posted_amount] = @P4, [status] = @P5, [expires_at] = @P6, [booked_at] = @P7, [resolved_at] = @P8, [shard] = @P9, [log_offset] = @P10 WHERE [tenant] = @P11 AND [book] = @P12 AND [transfer] = @P13
;
INSERT INTO [ledger_daily_balance__v1_b1] ([tenant], [book], [account], [day], [paid_in], [paid_out], [entries], [debits]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8)
;
MERGE INTO [ledger_daily_balance__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [account], [day], [paid_in], [paid_out], [entries], [debits] FROM @rows) AS [new] ([tenant], [book], [account], [day], [paid_in], [paid_out], [entries], [debits]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[account] = [new].[account] AND DATALENGTH([held].[account]) = DATALENGTH([new].[account]) AND [held].[day] = [new].[day] WHEN MATCHED THEN UPDATE SET [paid_in] = [held].[paid_in] + [new].[paid_in], [paid_out] = [held].[paid_out] + [new].[paid_out], [entries] = [held].[entries] + [new].[entries], [debits] = [held].[debits] + [new].[debits] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [account], [day], [paid_in], [paid_out], [entries], [debits]) VALUES ([new].[tenant], [new].[book], [new].[account], [new].[day], [new].[paid_in], [new].[paid_out], [new].[entries], [new].[debits]);
;
UPDATE [ledger_daily_balance__v1_b1] SET [paid_in] = [paid_in] + @P1, [paid_out] = [paid_out] + @P2, [entries] = [entries] + @P3, [debits] = [debits] + @P4 WHERE [tenant] = @P5 AND [book] = @P6 AND [account] = @P7 AND [day] = @P8
;
INSERT INTO [ledger_day_close__v1_b1] ([tenant], [book], [account], [day], [balance], [version]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6)
;
MERGE INTO [ledger_day_close__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [account], [day], [balance], [version] FROM @rows) AS [new] ([tenant], [book], [account], [day], [balance], [version]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[account] = [new].[account] AND DATALENGTH([held].[account]) = DATALENGTH([new].[account]) AND [held].[day] = [new].[day] WHEN MATCHED THEN UPDATE SET [balance] = [new].[balance], [version] = [new].[version] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [account], [day], [balance], [version]) VALUES ([new].[tenant], [new].[book], [new].[account], [new].[day], [new].[balance], [new].[version]);
;
UPDATE [ledger_day_close__v1_b1] SET [balance] = @P1, [version] = @P2 WHERE [tenant] = @P3 AND [book] = @P4 AND [account] = @P5 AND [day] = @P6
;
INSERT INTO [ledger_day_held__v1_b1] ([tenant], [book], [account], [day], [pending_in], [pending_out]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6)
;
MERGE INTO [ledger_day_held__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [account], [day], [pending_in], [pending_out] FROM @rows) AS [new] ([tenant], [book], [account], [day], [pending_in], [pending_out]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[account] = [new].[account] AND DATALENGTH([held].[account]) = DATALENGTH([new].[account]) AND [held].[day] = [new].[day] WHEN MATCHED THEN UPDATE SET [pending_in] = [new].[pending_in], [pending_out] = [new].[pending_out] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [account], [day], [pending_in], [pending_out]) VALUES ([new].[tenant], [new].[book], [new].[account], [new].[day], [new].[pending_in], [new].[pending_out]);
;
UPDATE [ledger_day_held__v1_b1] SET [pending_in] = @P1, [pending_out] = @P2 WHERE [tenant] = @P3 AND [book] = @P4 AND [account] = @P5 AND [day] = @P6
;
INSERT INTO [ledger_late_account__v1_b1] ([tenant], [book], [account], [since], [until]) VALUES (@P1, @P2, @P3, @P4, @P5)
;
MERGE INTO [ledger_late_account__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [account], [since], [until] FROM @rows) AS [new] ([tenant], [book], [account], [since], [until]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[account] = [new].[account] AND DATALENGTH([held].[account]) = DATALENGTH([new].[account]) WHEN MATCHED THEN UPDATE SET [since] = CASE WHEN [new].[since] < [held].[since] THEN [new].[since] ELSE [held].[since] END, [until] = CASE WHEN [new].[until] > [held].[until] THEN [new].[until] ELSE [held].[until] END WHEN NOT MATCHED THEN INSERT ([tenant], [book], [account], [since], [until]) VALUES ([new].[tenant], [new].[book], [new].[account], [new].[since], [new].[until]);
;
UPDATE [ledger_late_account__v1_b1] SET [since] = CASE WHEN @P1 < [since] THEN @P1 ELSE [since] END, [until] = CASE WHEN @P2 > [until] THEN @P2 ELSE [until] END WHERE [tenant] = @P3 AND [book] = @P4 AND [account] = @P5
;
INSERT INTO [ledger_asset_booked__v1_b1] ([tenant], [book], [span], [start], [asset], [accounts], [debits], [credits]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8)
;
SELECT [tenant], [book], [account], [asset] FROM [ledger_account__v1_b1] WHERE ([tenant] = @P1 AND [book] = @P2 AND [account] = @P3) OR ([tenant] = @P4 AND [book] = @P5 AND [account] = @P6)
;
MERGE INTO [ledger_asset_booked__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [span], [start], [asset], [accounts], [debits], [credits] FROM @rows) AS [new] ([tenant], [book], [span], [start], [asset], [accounts], [debits], [credits]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[span] = [new].[span] AND [held].[start] = [new].[start] AND [held].[asset] = [new].[asset] AND DATALENGTH([held].[asset]) = DATALENGTH([new].[asset]) WHEN MATCHED THEN UPDATE SET [accounts] = [held].[accounts] + [new].[accounts], [debits] = [held].[debits] + [new].[debits], [credits] = [held].[credits] + [new].[credits] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [span], [start], [asset], [accounts], [debits], [credits]) VALUES ([new].[tenant], [new].[book], [new].[span], [new].[start], [new].[asset], [new].[accounts], [new].[debits], [new].[credits]);
;
UPDATE [ledger_asset_booked__v1_b1] SET [accounts] = [accounts] + @P1, [debits] = [debits] + @P2, [credits] = [credits] + @P3 WHERE [tenant] = @P4 AND [book] = @P5 AND [span] = @P6 AND [start] = @P7 AND [asset] = @P8
;
INSERT INTO [ledger_asset_shift__v1_b1] ([tenant], [book], [span], [start], [asset], [debits], [credits]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7)
;
SELECT [tenant], [book], [account], [asset] FROM [ledger_account__v1_b1] WHERE ([tenant] = @P1 AND [book] = @P2 AND [account] = @P3) OR ([tenant] = @P4 AND [book] = @P5 AND [account] = @P6)
;
MERGE INTO [ledger_asset_shift__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [book], [span], [start], [asset], [debits], [credits] FROM @rows) AS [new] ([tenant], [book], [span], [start], [asset], [debits], [credits]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[book] = [new].[book] AND DATALENGTH([held].[book]) = DATALENGTH([new].[book]) AND [held].[span] = [new].[span] AND [held].[start] = [new].[start] AND [held].[asset] = [new].[asset] AND DATALENGTH([held].[asset]) = DATALENGTH([new].[asset]) WHEN MATCHED THEN UPDATE SET [debits] = [held].[debits] + [new].[debits], [credits] = [held].[credits] + [new].[credits] WHEN NOT MATCHED THEN INSERT ([tenant], [book], [span], [start], [asset], [debits], [credits]) VALUES ([new].[tenant], [new].[book], [new].[span], [new].[start], [new].[asset], [new].[debits], [new].[credits]);
;
UPDATE [ledger_asset_shift__v1_b1] SET [debits] = [debits] + @P1, [credits] = [credits] + @P2 WHERE [tenant] = @P3 AND [book] = @P4 AND [span] = @P5 AND [start] = @P6 AND [asset] = @P7
;
DELETE FROM [ledger_asset_day__v1_b1] WHERE [day] IN (@P1, @P2, @P3)
;
INSERT INTO [ledger_asset_day__v1_b1] ([tenant], [book], [asset], [day], [paid_in], [paid_out], [entries], [accounts]) SELECT d.[tenant], d.[book], a.[asset], d.[day], SUM(d.[paid_in]), SUM(d.[paid_out]), SUM(d.[entries]), COUNT(*) FROM (SELECT c.[tenant], c.[book], c.[account], c.[day], c.[paid_in], c.[paid_out], c.[entries] FROM [ledger_daily_balance__v1_b1] c WHERE [day] IN (@P1, @P2, @P3)) d JOIN [ledger_account__v1_b1] a ON a.[tenant] = d.[tenant] AND a.[book] = d.[book] AND a.[account] = d.[account] GROUP BY d.[tenant], d.[book], a.[asset], d.[day]
;
DELETE FROM [ledger_asset_close__v1_b1] WHERE [day] IN (@P1, @P2, @P3)
;
INSERT INTO [ledger_asset_close__v1_b1] ([tenant], [book], [asset], [day], [accounts], [debits], [credits]) SELECT s.[tenant], s.[book], s.[asset], s.[day], SUM(s.[opened]), SUM((CASE WHEN s.[balance] < 0 THEN 0 - s.[balance] ELSE 0 END - CASE WHEN s.[was] < 0 THEN 0 - s.[was] ELSE 0 END)), SUM((CASE WHEN s.[balance] > 0 THEN s.[balance] ELSE 0 END - CASE WHEN s.[was] > 0 THEN s.[was] ELSE 0 END)) FROM (SELECT d.[tenant], d.[book], a.[asset], d.[day], d.[balance], CASE WHEN p.[day] IS NULL THEN 1 ELSE 0 END AS [opened], COALESCE(p.[balance], 0) AS [was] FROM (SELECT c.[tenant], c.[book], c.[account], c.[day], c.[balance] FROM [ledger_day_close__v1_b1] c WHERE [day] IN (@P1, @P2, @P3)) d JOIN [ledger_account__v1_b1] a ON a.[tenant] = d.[tenant] AND a.[book] = d.[book] AND a.[account] = d.[account] LEFT JOIN [ledger_day_close__v1_b1] p ON p.[tenant] = d.[tenant] AND p.[book] = d.[book] AND p.[account] = d.[account] AND p.[day] = (SELECT MAX(q.[day]) FROM [ledger_day_close__v1_b1] q WHERE q.[tenant] = d.[tenant] AND q.[book] = d.[book] AND q.[account] = d.[account] AND q.[day] < d.[day])) s GROUP BY s.[tenant], s.[book], s.[asset], s.[day]
;
DELETE FROM [ledger_asset_held__v1_b1] WHERE [day] IN (@P1, @P2, @P3)
;
INSERT INTO [ledger_asset_held__v1_b1] ([tenant], [book], [asset], [day], [pending_debits], [pending_credits]) SELECT s.[tenant], s.[book], s.[asset], s.[day], SUM((s.[pending_out] - s.[was_out])), SUM((s.[pending_in] - s.[was_in])) FROM (SELECT d.[tenant], d.[book], a.[asset], d.[day], d.[pending_out], d.[pending_in], COALESCE(p.[pending_out], 0) AS [was_out], COALESCE(p.[pending_in], 0) AS [was_in] FROM (SELECT c.[tenant], c.[book], c.[account], c.[day], c.[pending_in], c.[pending_out] FROM [ledger_day_held__v1_b1] c WHERE [day] IN (@P1, @P2, @P3)) d JOIN [ledger_account__v1_b1] a ON a.[tenant] = d.[tenant] AND a.[book] = d.[book] AND a.[account] = d.[account] LEFT JOIN [ledger_day_held__v1_b1] p ON p.[tenant] = d.[tenant] AND p.[book] = d.[book] AND p.[account] = d.[account] AND p.[day] = (SELECT MAX(q.[day]) FROM [ledger_day_held__v1_b1] q WHERE q.[tenant] = d.[tenant] AND q.[book] = d.[book] AND q.[account] = d.[account] AND q.[day] < d.[day])) s GROUP BY s.[tenant], s.[book], s.[asset], s.[day]
;
DROP TABLE IF EXISTS [ledger_account__v1_b1]
;
DROP TABLE IF EXISTS [ledger_transfer__v1_b1]
;
DROP TABLE IF EXISTS [ledger_entry__v1_b1]
;
DROP TABLE IF EXISTS [ledger_hold__v1_b1]
;
DROP TABLE IF EXISTS [ledger_daily_balance__v1_b1]
;
DROP TABLE IF EXISTS [ledger_day_close__v1_b1]
;
DROP TABLE IF EXISTS [ledger_day_held__v1_b1]
;
DROP TABLE IF EXISTS [ledger_late_account__v1_b1]
;
DROP TABLE IF EXISTS [ledger_asset_booked__v1_b1]
;
DROP TABLE IF EXISTS [ledger_asset_shift__v1_b1]
;
DROP TABLE IF EXISTS [ledger_asset_day__v1_b1]
;
DROP TABLE IF EXISTS [ledger_asset_close__v1_b1]
;
DROP TABLE IF EXISTS [ledger_asset_held__v1_b1]
;
CREATE TABLE [probe_fact__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [n] bigint NOT NULL,
  [amount] decimal(38, 0) NOT NULL,
  [total] decimal(38, 0) NOT NULL,
  [text] nvarchar(4000) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [time] datetime2(6) NOT NULL,
  [day] date NOT NULL,
  [flag] bit NOT NULL,
  [json] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [blob] varbinary(64) NOT NULL,
  [maybe_integer] bigint,
  [maybe_amount] decimal(38, 0),
  [maybe_text] nvarchar(16) COLLATE Latin1_General_100_BIN2,
  [maybe_time] datetime2(6),
  [maybe_day] date,
  [maybe_flag] bit,
  [maybe_json] nvarchar(max) COLLATE Latin1_General_100_BIN2,
  [maybe_blob] varbinary(64),
  CONSTRAINT [probe_fact__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [n]),
  CONSTRAINT [probe_fact__v1_b1_room] CHECK ([maybe_amount] IS NULL OR [amount] - [maybe_amount] >= 0),
  CONSTRAINT [probe_fact__v1_b1_word] CHECK ([maybe_text] IS NULL OR [maybe_text] <> 'forbidden'),
  CONSTRAINT [probe_fact__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [probe_fact__v1_b1_json_json] CHECK (ISJSON(CONCAT('[', [json], ']')) = 1),
  CONSTRAINT [probe_fact__v1_b1_maybe_json_json] CHECK (ISJSON(CONCAT('[', [maybe_json], ']')) = 1)
)
;
CREATE INDEX [probe_fact__v1_b1_by_text] ON [probe_fact__v1_b1] ([tenant], [maybe_text])
;
CREATE TYPE [probe_fact__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [n] bigint NOT NULL, [amount] decimal(38, 0) NOT NULL, [total] decimal(38, 0) NOT NULL, [text] nvarchar(4000) COLLATE Latin1_General_100_BIN2 NOT NULL, [time] datetime2(6) NOT NULL, [day] date NOT NULL, [flag] bit NOT NULL, [json] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL, [blob] varbinary(64) NOT NULL, [maybe_integer] bigint, [maybe_amount] decimal(38, 0), [maybe_text] nvarchar(16) COLLATE Latin1_General_100_BIN2, [maybe_time] datetime2(6), [maybe_day] date, [maybe_flag] bit, [maybe_json] nvarchar(max) COLLATE Latin1_General_100_BIN2, [maybe_blob] varbinary(64))
;
CREATE PARTITION FUNCTION [probe_visit__v1_b1_function] (datetime2(6)) AS RANGE RIGHT FOR VALUES ()
;
CREATE PARTITION SCHEME [probe_visit__v1_b1_scheme] AS PARTITION [probe_visit__v1_b1_function] ALL TO ([PRIMARY])
;
CREATE TABLE [probe_visit__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [n] bigint NOT NULL,
  [at] datetime2(6) NOT NULL,
  [shard] bigint NOT NULL,
  CONSTRAINT [probe_visit__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [n], [at]),
  CONSTRAINT [probe_visit__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% ')
) ON [probe_visit__v1_b1_scheme]([at])
;
CREATE TYPE [probe_visit__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [n] bigint NOT NULL, [at] datetime2(6) NOT NULL, [shard] bigint NOT NULL)
;
CREATE TABLE [probe_state__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [name] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [last] decimal(38, 0) NOT NULL,
  [note] nvarchar(128) COLLATE Latin1_General_100_BIN2,
  [paid] decimal(38, 0) NOT NULL,
  [count] bigint NOT NULL,
  [first] datetime2(6) NOT NULL,
  [newest] datetime2(6) NOT NULL,
  [lowest] decimal(38, 0) NOT NULL,
  [highest] decimal(38, 0) NOT NULL,
  CONSTRAINT [probe_state__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [name]),
  CONSTRAINT [probe_state__v1_b1_count] CHECK ([count] >= 0),
  CONSTRAINT [probe_state__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [probe_state__v1_b1_name_end] CHECK ([name] NOT LIKE N'% ')
)
;
CREATE INDEX [probe_state__v1_b1_newest] ON [probe_state__v1_b1] ([tenant], [newest])
;
CREATE TYPE [probe_state__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [name] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL, [last] decimal(38, 0) NOT NULL, [note] nvarchar(128) COLLATE Latin1_General_100_BIN2, [paid] decimal(38, 0) NOT NULL, [count] bigint NOT NULL, [first] datetime2(6) NOT NULL, [newest] datetime2(6) NOT NULL, [lowest] decimal(38, 0) NOT NULL, [highest] decimal(38, 0) NOT NULL)
;
CREATE TABLE [probe_known__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [name] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL,
  CONSTRAINT [probe_known__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [name]),
  CONSTRAINT [probe_known__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [probe_known__v1_b1_name_end] CHECK ([name] NOT LIKE N'% ')
)
;
CREATE TYPE [probe_known__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [name] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL)
;
CREATE TABLE [probe_daily__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [name] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [paid_in] decimal(38, 0) NOT NULL,
  [paid_out] decimal(38, 0) NOT NULL,
  CONSTRAINT [probe_daily__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [name], [day]),
  CONSTRAINT [probe_daily__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% '),
  CONSTRAINT [probe_daily__v1_b1_name_end] CHECK ([name] NOT LIKE N'% ')
)
;
CREATE INDEX [probe_daily__v1_b1_day] ON [probe_daily__v1_b1] ([day])
;
CREATE TYPE [probe_daily__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [name] nvarchar(64) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [paid_in] decimal(38, 0) NOT NULL, [paid_out] decimal(38, 0) NOT NULL)
;
CREATE TABLE [probe_day_total__v1_b1] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [day] date NOT NULL,
  [paid_in] decimal(38, 0) NOT NULL,
  [paid_out] decimal(38, 0) NOT NULL,
  [names] bigint NOT NULL,
  CONSTRAINT [probe_day_total__v1_b1_key] PRIMARY KEY CLUSTERED ([tenant], [day]),
  CONSTRAINT [probe_day_total__v1_b1_balanced] CHECK ([paid_in] = [paid_out]),
  CONSTRAINT [probe_day_total__v1_b1_tenant_end] CHECK ([tenant] NOT LIKE N'% ')
)
;
CREATE TYPE [probe_day_total__v1_b1_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [day] date NOT NULL, [paid_in] decimal(38, 0) NOT NULL, [paid_out] decimal(38, 0) NOT NULL, [names] bigint NOT NULL)
;
CREATE OR ALTER VIEW [probe_fact] AS SELECT [tenant], [n], [amount], [total], [text], [time], [day], [flag], [json], [blob], [maybe_integer], [maybe_amount], [maybe_text], [maybe_time], [maybe_day], [maybe_flag], [maybe_json], [maybe_blob] FROM [probe_fact__v1_b1]
;
CREATE OR ALTER VIEW [probe_visit] AS SELECT [tenant], [n], [at], [shard] FROM [probe_visit__v1_b1]
;
CREATE OR ALTER VIEW [probe_state] AS SELECT [tenant], [name], [last], [note], [paid], [count], [first], [newest], [lowest], [highest] FROM [probe_state__v1_b1]
;
CREATE OR ALTER VIEW [probe_known] AS SELECT [tenant], [name] FROM [probe_known__v1_b1]
;
CREATE OR ALTER VIEW [probe_daily] AS SELECT [tenant], [name], [day], [paid_in], [paid_out] FROM [probe_daily__v1_b1]
;
CREATE OR ALTER VIEW [probe_day_total] AS SELECT [tenant], [day], [paid_in], [paid_out], [names] FROM [probe_day_total__v1_b1]
;
INSERT INTO [probe_fact__v1_b1] ([tenant], [n], [amount], [total], [text], [time], [day], [flag], [json], [blob], [maybe_integer], [maybe_amount], [maybe_text], [maybe_time], [maybe_day], [maybe_flag], [maybe_json], [maybe_blob]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13, @P14, @P15, @P16, @P17, @P18)
;
INSERT INTO [probe_visit__v1_b1] ([tenant], [n], [at], [shard]) VALUES (@P1, @P2, @P3, @P4)
;
INSERT INTO [probe_state__v1_b1] ([tenant], [name], [last], [note], [paid], [count], [first], [newest], [lowest], [highest]) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10)
;
MERGE INTO [probe_state__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [name], [last], [note], [paid], [count], [first], [newest], [lowest], [highest] FROM @rows) AS [new] ([tenant], [name], [last], [note], [paid], [count], [first], [newest], [lowest], [highest]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[name] = [new].[name] AND DATALENGTH([held].[name]) = DATALENGTH([new].[name]) WHEN MATCHED THEN UPDATE SET [last] = [new].[last], [note] = [new].[note], [paid] = [held].[paid] + [new].[paid], [count] = [held].[count] + [new].[count], [first] = CASE WHEN [new].[first] < [held].[first] THEN [new].[first] ELSE [held].[first] END, [newest] = CASE WHEN [new].[newest] > [held].[newest] THEN [new].[newest] ELSE [held].[newest] END, [lowest] = CASE WHEN [new].[lowest] < [held].[lowest] THEN [new].[lowest] ELSE [held].[lowest] END, [highest] = CASE WHEN [new].[highest] > [held].[highest] THEN [new].[highest] ELSE [held].[highest] END WHEN NOT MATCHED THEN INSERT ([tenant], [name], [last], [note], [paid], [count], [first], [newest], [lowest], [highest]) VALUES ([new].[tenant], [new].[name], [new].[last], [new].[note], [new].[paid], [new].[count], [new].[first], [new].[newest], [new].[lowest], [new].[highest]);
;
UPDATE [probe_state__v1_b1] SET [last] = @P1, [note] = @P2, [paid] = [paid] + @P3, [count] = [count] + @P4, [first] = CASE WHEN @P5 < [first] THEN @P5 ELSE [first] END, [newest] = CASE WHEN @P6 > [newest] THEN @P6 ELSE [newest] END, [lowest] = CASE WHEN @P7 < [lowest] THEN @P7 ELSE [lowest] END, [highest] = CASE WHEN @P8 > [highest] THEN @P8 ELSE [highest] END WHERE [tenant] = @P9 AND [name] = @P10
;
INSERT INTO [probe_known__v1_b1] ([tenant], [name]) VALUES (@P1, @P2)
;
MERGE INTO [probe_known__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [name] FROM @rows) AS [new] ([tenant], [name]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[name] = [new].[name] AND DATALENGTH([held].[name]) = DATALENGTH([new].[name]) WHEN NOT MATCHED THEN INSERT ([tenant], [name]) VALUES ([new].[tenant], [new].[name]);
;
INSERT INTO [probe_daily__v1_b1] ([tenant], [name], [day], [paid_in], [paid_out]) VALUES (@P1, @P2, @P3, @P4, @P5)
;
MERGE INTO [probe_daily__v1_b1] WITH (HOLDLOCK) AS [held] USING (SELECT [tenant], [name], [day], [paid_in], [paid_out] FROM @rows) AS [new] ([tenant], [name], [day], [paid_in], [paid_out]) ON [held].[tenant] = [new].[tenant] AND DATALENGTH([held].[tenant]) = DATALENGTH([new].[tenant]) AND [held].[name] = [new].[name] AND DATALENGTH([held].[name]) = DATALENGTH([new].[name]) AND [held].[day] = [new].[day] WHEN MATCHED THEN UPDATE SET [paid_in] = [held].[paid_in] + [new].[paid_in], [paid_out] = [held].[paid_out] + [new].[paid_out] WHEN NOT MATCHED THEN INSERT ([tenant], [name], [day], [paid_in], [paid_out]) VALUES ([new].[tenant], [new].[name], [new].[day], [new].[paid_in], [new].[paid_out]);
;
UPDATE [probe_daily__v1_b1] SET [paid_in] = [paid_in] + @P1, [paid_out] = [paid_out] + @P2 WHERE [tenant] = @P3 AND [name] = @P4 AND [day] = @P5
;
DELETE FROM [probe_day_total__v1_b1] WHERE [day] IN (@P1, @P2, @P3)
;
INSERT INTO [probe_day_total__v1_b1] ([tenant], [day], [paid_in], [paid_out], [names]) SELECT d.[tenant], d.[day], SUM(d.[paid_in]), SUM(d.[paid_out]), COUNT(*) FROM [probe_daily__v1_b1] d WHERE [day] IN (@P1, @P2, @P3) GROUP BY d.[tenant], d.[day]
;
DROP TABLE IF EXISTS [probe_fact__v1_b1]
;
DROP TABLE IF EXISTS [probe_visit__v1_b1]
;
DROP TABLE IF EXISTS [probe_state__v1_b1]
;
DROP TABLE IF EXISTS [probe_known__v1_b1]
;
DROP TABLE IF EXISTS [probe_daily__v1_b1]
;
DROP TABLE IF EXISTS [probe_day_total__v1_b1]
;
CREATE TABLE [ultra_projection_set] (
  [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [build] bigint NOT NULL,
  [version] bigint NOT NULL,
  [state] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [created_at] datetime2(6) NOT NULL,
  [changed_at] datetime2(6) NOT NULL,
  [paused] bit NOT NULL,
  [parked] nvarchar(max) COLLATE Latin1_General_100_BIN2,
  [tables] nvarchar(4000) COLLATE Latin1_General_100_BIN2 NOT NULL,
  CONSTRAINT [ultra_projection_set_key] PRIMARY KEY CLUSTERED ([projection], [build]),
  CONSTRAINT [ultra_projection_set_projection_end] CHECK ([projection] NOT LIKE N'% '),
  CONSTRAINT [ultra_projection_set_parked_json] CHECK (ISJSON(CONCAT('[', [parked], ']')) = 1)
)
;
CREATE TYPE [ultra_projection_set_rows] AS TABLE ([projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [build] bigint NOT NULL, [version] bigint NOT NULL, [state] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL, [created_at] datetime2(6) NOT NULL, [changed_at] datetime2(6) NOT NULL, [paused] bit NOT NULL, [parked] nvarchar(max) COLLATE Latin1_General_100_BIN2, [tables] nvarchar(4000) COLLATE Latin1_General_100_BIN2 NOT NULL)
;
CREATE TABLE [ultra_projection_position] (
  [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [build] bigint NOT NULL,
  [shard] bigint NOT NULL,
  [log_offset] bigint NOT NULL,
  [epoch] bigint NOT NULL,
  [booked_at] datetime2(6) NOT NULL,
  [chain] varbinary(16) NOT NULL,
  CONSTRAINT [ultra_projection_position_key] PRIMARY KEY CLUSTERED ([projection], [build], [shard]),
  CONSTRAINT [ultra_projection_position_projection_end] CHECK ([projection] NOT LIKE N'% ')
)
;
CREATE TYPE [ultra_projection_position_rows] AS TABLE ([projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [build] bigint NOT NULL, [shard] bigint NOT NULL, [log_offset] bigint NOT NULL, [epoch] bigint NOT NULL, [booked_at] datetime2(6) NOT NULL, [chain] varbinary(16) NOT NULL)
;
CREATE TABLE [ultra_projection_ledger] (
  [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [build] bigint NOT NULL,
  [shard] bigint NOT NULL,
  [log_end] bigint NOT NULL,
  [version] bigint NOT NULL,
  [epoch] bigint NOT NULL,
  [booked_at] datetime2(6) NOT NULL,
  [chain] varbinary(16) NOT NULL,
  [rows] bigint NOT NULL,
  CONSTRAINT [ultra_projection_ledger_key] PRIMARY KEY CLUSTERED ([projection], [build], [shard], [log_end]),
  CONSTRAINT [ultra_projection_ledger_projection_end] CHECK ([projection] NOT LIKE N'% ')
)
;
CREATE TYPE [ultra_projection_ledger_rows] AS TABLE ([projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [build] bigint NOT NULL, [shard] bigint NOT NULL, [log_end] bigint NOT NULL, [version] bigint NOT NULL, [epoch] bigint NOT NULL, [booked_at] datetime2(6) NOT NULL, [chain] varbinary(16) NOT NULL, [rows] bigint NOT NULL)
;
CREATE TABLE [ultra_projection_request] (
  [id] bigint NOT NULL,
  [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [request] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [asked_at] datetime2(6) NOT NULL,
  CONSTRAINT [ultra_projection_request_key] PRIMARY KEY CLUSTERED ([id])
)
;
CREATE TYPE [ultra_projection_request_rows] AS TABLE ([id] bigint NOT NULL, [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [request] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL, [asked_at] datetime2(6) NOT NULL)
;
CREATE TABLE [ultra_projection_slice] (
  [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [build] bigint NOT NULL,
  [aggregate] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [slice] date NOT NULL,
  CONSTRAINT [ultra_projection_slice_key] PRIMARY KEY CLUSTERED ([projection], [build], [aggregate], [slice]),
  CONSTRAINT [ultra_projection_slice_projection_end] CHECK ([projection] NOT LIKE N'% '),
  CONSTRAINT [ultra_projection_slice_aggregate_end] CHECK ([aggregate] NOT LIKE N'% ')
)
;
CREATE TYPE [ultra_projection_slice_rows] AS TABLE ([projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [build] bigint NOT NULL, [aggregate] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [slice] date NOT NULL)
;
CREATE TABLE [ultra_projection_index] (
  [projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [name] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [indexed] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [members] nvarchar(4000) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [created_at] datetime2(6) NOT NULL,
  CONSTRAINT [ultra_projection_index_key] PRIMARY KEY CLUSTERED ([projection], [name]),
  CONSTRAINT [ultra_projection_index_projection_end] CHECK ([projection] NOT LIKE N'% '),
  CONSTRAINT [ultra_projection_index_name_end] CHECK ([name] NOT LIKE N'% ')
)
;
CREATE TYPE [ultra_projection_index_rows] AS TABLE ([projection] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [name] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [indexed] nvarchar(24) COLLATE Latin1_General_100_BIN2 NOT NULL, [members] nvarchar(4000) COLLATE Latin1_General_100_BIN2 NOT NULL, [created_at] datetime2(6) NOT NULL)
;
CREATE PARTITION FUNCTION [sharded_function] (datetime2(6)) AS RANGE RIGHT FOR VALUES ()
;
CREATE PARTITION SCHEME [sharded_scheme] AS PARTITION [sharded_function] ALL TO ([PRIMARY])
;
CREATE TABLE [sharded] (
  [tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL,
  [n] bigint NOT NULL,
  [at] datetime2(6) NOT NULL,
  [shard] bigint NOT NULL,
  CONSTRAINT [sharded_key] PRIMARY KEY CLUSTERED ([tenant], [n], [at]),
  CONSTRAINT [sharded_tenant_end] CHECK ([tenant] NOT LIKE N'% ')
) ON [sharded_scheme]([at])
;
CREATE TYPE [sharded_rows] AS TABLE ([tenant] nvarchar(128) COLLATE Latin1_General_100_BIN2 NOT NULL, [n] bigint NOT NULL, [at] datetime2(6) NOT NULL, [shard] bigint NOT NULL)
;
INSERT INTO [probe_fact__v1_b1] ([tenant], [n], [amount], [total], [text], [time], [day], [flag], [json], [blob], [maybe_integer], [maybe_amount], [maybe_text], [maybe_time], [maybe_day], [maybe_flag], [maybe_json], [maybe_blob]) SELECT [tenant], [n], [amount], [total], [text], [time], [day], [flag], [json], [blob], [maybe_integer], [maybe_amount], [maybe_text], [maybe_time], [maybe_day], [maybe_flag], [maybe_json], [maybe_blob] FROM @rows
;
ALTER PARTITION SCHEME [probe_visit__v1_b1_scheme] NEXT USED [PRIMARY]
;
ALTER PARTITION FUNCTION [probe_visit__v1_b1_function]() SPLIT RANGE ('2026-01-01')
;
TRUNCATE TABLE [probe_visit__v1_b1] WITH (PARTITIONS (1))
;
ALTER PARTITION FUNCTION [probe_visit__v1_b1_function]() MERGE RANGE ('2025-12-01')
;
DROP TABLE IF EXISTS [probe_fact__v1_b1]
;
DROP TYPE IF EXISTS [probe_fact__v1_b1_rows]
;
DROP TABLE IF EXISTS [probe_visit__v1_b1]
;
DROP TYPE IF EXISTS [probe_visit__v1_b1_rows]
;
DROP PARTITION SCHEME [probe_visit__v1_b1_scheme]
;
DROP PARTITION FUNCTION [probe_visit__v1_b1_function]
;
DROP TABLE IF EXISTS [probe_state__v1_b1]
;
DROP TYPE IF EXISTS [probe_state__v1_b1_rows]
;
DROP TABLE IF EXISTS [probe_known__v1_b1]
;
DROP TYPE IF EXISTS [probe_known__v1_b1_rows]
;
DROP TABLE IF EXISTS [probe_daily__v1_b1]
;
DROP TYPE IF EXISTS [probe_daily__v1_b1_rows]
;
DROP TABLE IF EXISTS [probe_day_total__v1_b1]
;
DROP TYPE IF EXISTS [probe_day_total__v1_b1_rows]
;
SELECT [n] FROM [probe_fact] ORDER BY [n] OFFSET 0 ROWS FETCH NEXT 10 ROWS ONLY
;
