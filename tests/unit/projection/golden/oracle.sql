CREATE TABLE "ledger_account__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "account" VARCHAR2(128 CHAR) NOT NULL,
  "asset" VARCHAR2(20 CHAR) NOT NULL,
  "min_balance" NUMBER(38),
  "max_balance" NUMBER(38),
  "metadata" CLOB NOT NULL,
  "balance" NUMBER(38) NOT NULL,
  "pending_in" NUMBER(38) NOT NULL,
  "pending_out" NUMBER(38) NOT NULL,
  "version" NUMBER(19) NOT NULL,
  "closed" NUMBER(1) NOT NULL,
  "opened_at" TIMESTAMP(6) NOT NULL,
  "changed_at" TIMESTAMP(6) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  "log_offset" NUMBER(19) NOT NULL,
  CONSTRAINT "ledger_account__v1_b1_key" PRIMARY KEY ("tenant", "book", "account"),
  CONSTRAINT "ledger_account__v1_b1_held" CHECK ("pending_in" >= 0 AND "pending_out" >= 0),
  CONSTRAINT "ledger_account__v1_b1_available" CHECK ("min_balance" IS NULL OR "balance" - "pending_out" >= "min_balance"),
  CONSTRAINT "ledger_account__v1_b1_room" CHECK ("max_balance" IS NULL OR "balance" + "pending_in" <= "max_balance"),
  CONSTRAINT "ledger_account__v1_b1_limits" CHECK (("min_balance" IS NULL OR "min_balance" <= 0) AND ("max_balance" IS NULL OR "max_balance" >= 0)),
  CONSTRAINT "ledger_account__v1_b1_version" CHECK ("version" >= 1),
  CONSTRAINT "ledger_account__v1_b1_metadata_json" CHECK ("metadata" IS JSON),
  CONSTRAINT "ledger_account__v1_b1_version_range" CHECK ("version" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_account__v1_b1_closed_truth" CHECK ("closed" IN (0, 1)),
  CONSTRAINT "ledger_account__v1_b1_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_account__v1_b1_log_offset_range" CHECK ("log_offset" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_account__v1_b1_asset" ON "ledger_account__v1_b1" ("tenant", "book", "asset")
;
COMMENT ON TABLE "ledger_account__v1_b1" IS 'Accounts as they stand.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."account" IS 'Id of the account.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."asset" IS 'CODE/scale, as in USD/2.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."min_balance" IS 'Lowest balance allowed; null = none.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."max_balance" IS 'Highest balance allowed; null = none.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."metadata" IS 'What was said at the opening, by name.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."balance" IS 'What was paid in without what was paid out.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."pending_in" IS 'Held on its receiving side.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."pending_out" IS 'Held on its paying side.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."version" IS 'Number of its last change; 1 = opened.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."closed" IS 'Whether it takes no transfers.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."opened_at" IS 'Stamped time of the opening.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."changed_at" IS 'Stamped time of the last change.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."shard" IS 'Shard whose log holds it.'
;
COMMENT ON COLUMN "ledger_account__v1_b1"."log_offset" IS 'Offset of the command that changed it last.'
;
CREATE TABLE "ledger_transfer__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "transfer" VARCHAR2(128 CHAR) NOT NULL,
  "source" VARCHAR2(128 CHAR) NOT NULL,
  "target" VARCHAR2(128 CHAR) NOT NULL,
  "amount" NUMBER(38) NOT NULL,
  "status" VARCHAR2(8 CHAR) NOT NULL,
  "code" VARCHAR2(128 CHAR),
  "reference" VARCHAR2(512 CHAR),
  "reverses" VARCHAR2(128 CHAR),
  "hold_timeout_s" NUMBER(19),
  "effective_at" TIMESTAMP(6) NOT NULL,
  "booked_at" TIMESTAMP(6) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  "log_offset" NUMBER(19) NOT NULL,
  "event" NUMBER(19) NOT NULL,
  "command_id" VARCHAR2(128 CHAR) NOT NULL,
  "principal" VARCHAR2(128 CHAR) NOT NULL,
  "correlation_id" VARCHAR2(256 CHAR),
  CONSTRAINT "ledger_transfer__v1_b1_key" PRIMARY KEY ("tenant", "book", "transfer"),
  CONSTRAINT "ledger_transfer__v1_b1_amount" CHECK ("amount" > 0),
  CONSTRAINT "ledger_transfer__v1_b1_sides" CHECK ("source" <> "target"),
  CONSTRAINT "ledger_transfer__v1_b1_status" CHECK ("status" IN ('posted', 'pending', 'reversal')),
  CONSTRAINT "ledger_transfer__v1_b1_reversal" CHECK (("status" = 'reversal' AND "reverses" IS NOT NULL) OR ("status" <> 'reversal' AND "reverses" IS NULL)),
  CONSTRAINT "ledger_transfer__v1_b1_hold" CHECK (("status" = 'pending' AND "hold_timeout_s" IS NOT NULL AND "hold_timeout_s" >= 0) OR ("status" <> 'pending' AND "hold_timeout_s" IS NULL)),
  CONSTRAINT "ledger_transfer__v1_b1_hold_timeout_s_range" CHECK ("hold_timeout_s" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_transfer__v1_b1_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_transfer__v1_b1_log_offset_range" CHECK ("log_offset" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_transfer__v1_b1_event_range" CHECK ("event" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_transfer__v1_b1_booked" ON "ledger_transfer__v1_b1" ("tenant", "book", "booked_at")
;
CREATE INDEX "ledger_transfer__v1_b1_reference" ON "ledger_transfer__v1_b1" ("tenant", "book", "reference")
;
COMMENT ON TABLE "ledger_transfer__v1_b1" IS 'Transfers, holds and reversals as booked; what became of a hold is in `hold`.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."transfer" IS 'Id of the transfer, hold or reversal.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."source" IS 'Account that pays.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."target" IS 'Account that is paid.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."amount" IS 'What moved, or what is held; above 0.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."status" IS 'As booked: posted, pending (a hold) or reversal.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."code" IS 'The caller''s code; numbers as text.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."reference" IS 'The caller''s reference.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."reverses" IS 'Transfer that a reversal moves back.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."hold_timeout_s" IS 'Life of a hold; 0 = no end.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."effective_at" IS 'Business time: that of the command, else that of the booking.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."booked_at" IS 'Stamped time of the booking.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."shard" IS 'Shard whose log holds it.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."log_offset" IS 'Offset of the command that booked it.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."event" IS 'Index of the event among those of its command.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."command_id" IS 'Idempotency key of the command.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."principal" IS 'Who sent the command.'
;
COMMENT ON COLUMN "ledger_transfer__v1_b1"."correlation_id" IS 'The caller''s, if any.'
;
CREATE TABLE "ledger_entry__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "account" VARCHAR2(128 CHAR) NOT NULL,
  "version" NUMBER(19) NOT NULL,
  "transfer" VARCHAR2(128 CHAR) NOT NULL,
  "counterparty" VARCHAR2(128 CHAR) NOT NULL,
  "amount" NUMBER(38) NOT NULL,
  "balance" NUMBER(38) NOT NULL,
  "effective_at" TIMESTAMP(6) NOT NULL,
  "booked_at" TIMESTAMP(6) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  "log_offset" NUMBER(19) NOT NULL,
  "event" NUMBER(19) NOT NULL,
  CONSTRAINT "ledger_entry__v1_b1_key" PRIMARY KEY ("tenant", "book", "account", "version"),
  CONSTRAINT "ledger_entry__v1_b1_amount" CHECK ("amount" <> 0),
  CONSTRAINT "ledger_entry__v1_b1_sides" CHECK ("account" <> "counterparty"),
  CONSTRAINT "ledger_entry__v1_b1_version" CHECK ("version" >= 2),
  CONSTRAINT "ledger_entry__v1_b1_version_range" CHECK ("version" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_entry__v1_b1_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_entry__v1_b1_log_offset_range" CHECK ("log_offset" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_entry__v1_b1_event_range" CHECK ("event" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
PARTITION BY RANGE ("booked_at") INTERVAL (NUMTOYMINTERVAL(1, 'MONTH')) (PARTITION "p_first" VALUES LESS THAN (TIMESTAMP '1970-01-01 00:00:00'))
;
CREATE INDEX "ledger_entry__v1_b1_effective" ON "ledger_entry__v1_b1" ("tenant", "book", "account", "effective_at")
;
COMMENT ON TABLE "ledger_entry__v1_b1" IS 'Postings, two for each amount that moved, with running balances.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."account" IS 'Id of the account.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."version" IS 'The account''s version after it.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."transfer" IS 'Id of the transfer, hold or reversal.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."counterparty" IS 'The other account.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."amount" IS 'Added to the balance: below 0 when the account paid.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."balance" IS 'The running balance after it.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."effective_at" IS 'Business time: that of the command, else that of the booking.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."booked_at" IS 'Stamped time of the booking.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."shard" IS 'Shard whose log holds it.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."log_offset" IS 'Offset of the command that booked it.'
;
COMMENT ON COLUMN "ledger_entry__v1_b1"."event" IS 'Index of the event among those of its command.'
;
CREATE TABLE "ledger_hold__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "transfer" VARCHAR2(128 CHAR) NOT NULL,
  "source" VARCHAR2(128 CHAR) NOT NULL,
  "target" VARCHAR2(128 CHAR) NOT NULL,
  "amount" NUMBER(38) NOT NULL,
  "posted_amount" NUMBER(38) NOT NULL,
  "status" VARCHAR2(8 CHAR) NOT NULL,
  "expires_at" TIMESTAMP(6),
  "booked_at" TIMESTAMP(6) NOT NULL,
  "resolved_at" TIMESTAMP(6),
  "shard" NUMBER(19) NOT NULL,
  "log_offset" NUMBER(19) NOT NULL,
  CONSTRAINT "ledger_hold__v1_b1_key" PRIMARY KEY ("tenant", "book", "transfer"),
  CONSTRAINT "ledger_hold__v1_b1_amount" CHECK ("amount" > 0),
  CONSTRAINT "ledger_hold__v1_b1_sides" CHECK ("source" <> "target"),
  CONSTRAINT "ledger_hold__v1_b1_status" CHECK ("status" IN ('pending', 'posted', 'voided', 'expired')),
  CONSTRAINT "ledger_hold__v1_b1_posted" CHECK (("status" = 'posted' AND "posted_amount" > 0 AND "posted_amount" <= "amount") OR ("status" <> 'posted' AND "posted_amount" = 0)),
  CONSTRAINT "ledger_hold__v1_b1_resolved" CHECK (("status" = 'pending' AND "resolved_at" IS NULL) OR ("status" <> 'pending' AND "resolved_at" IS NOT NULL)),
  CONSTRAINT "ledger_hold__v1_b1_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_hold__v1_b1_log_offset_range" CHECK ("log_offset" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_hold__v1_b1_open" ON "ledger_hold__v1_b1" ("tenant", "book", "status", "expires_at")
;
CREATE INDEX "ledger_hold__v1_b1_booked" ON "ledger_hold__v1_b1" ("tenant", "book", "booked_at")
;
CREATE INDEX "ledger_hold__v1_b1_resolved" ON "ledger_hold__v1_b1" ("tenant", "book", "resolved_at")
;
COMMENT ON TABLE "ledger_hold__v1_b1" IS 'Holds and what became of them.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."transfer" IS 'Id of the transfer, hold or reversal.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."source" IS 'Account that pays.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."target" IS 'Account that is paid.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."amount" IS 'What it reserves, or reserved.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."posted_amount" IS 'What moved in the end; 0 while nothing did.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."status" IS 'pending, posted, voided or expired.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."expires_at" IS 'When it is over; null = it has no end.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."booked_at" IS 'Stamped time of the booking.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."resolved_at" IS 'When it ended; null while pending.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."shard" IS 'Shard whose log holds it.'
;
COMMENT ON COLUMN "ledger_hold__v1_b1"."log_offset" IS 'Offset of the command that changed it last.'
;
CREATE TABLE "ledger_daily_balance__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "account" VARCHAR2(128 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "paid_in" NUMBER(38) NOT NULL,
  "paid_out" NUMBER(38) NOT NULL,
  "entries" NUMBER(19) NOT NULL,
  "debits" NUMBER(38) NOT NULL,
  CONSTRAINT "ledger_daily_balance__v1_b1_key" PRIMARY KEY ("tenant", "book", "account", "day"),
  CONSTRAINT "ledger_daily_balance__v1_b1_paid" CHECK ("paid_in" >= 0 AND "paid_out" >= 0),
  CONSTRAINT "ledger_daily_balance__v1_b1_entries" CHECK ("entries" >= 1),
  CONSTRAINT "ledger_daily_balance__v1_b1_day_day" CHECK ("day" = TRUNC("day")),
  CONSTRAINT "ledger_daily_balance__v1_b1_entries_range" CHECK ("entries" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_daily_balance__v1_b1_day" ON "ledger_daily_balance__v1_b1" ("day", "tenant", "book")
;
COMMENT ON TABLE "ledger_daily_balance__v1_b1" IS 'Turnover of accounts by business day.  A balance at the end of a day is the sum of all days up to it, in without out.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."account" IS 'Id of the account.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."day" IS 'UTC day of the business time.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."paid_in" IS 'Sum of what came in on that day.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."paid_out" IS 'Sum of what went out on that day.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."entries" IS 'Postings on that day.'
;
COMMENT ON COLUMN "ledger_daily_balance__v1_b1"."debits" IS 'By how much they let it grow below 0, in the order in which they were booked.'
;
CREATE TABLE "ledger_day_close__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "account" VARCHAR2(128 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "balance" NUMBER(38) NOT NULL,
  "version" NUMBER(19) NOT NULL,
  CONSTRAINT "ledger_day_close__v1_b1_key" PRIMARY KEY ("tenant", "book", "account", "day"),
  CONSTRAINT "ledger_day_close__v1_b1_version" CHECK ("version" >= 1),
  CONSTRAINT "ledger_day_close__v1_b1_day_day" CHECK ("day" = TRUNC("day")),
  CONSTRAINT "ledger_day_close__v1_b1_version_range" CHECK ("version" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_day_close__v1_b1_day" ON "ledger_day_close__v1_b1" ("day", "tenant", "book")
;
COMMENT ON TABLE "ledger_day_close__v1_b1" IS 'Accounts as they stood at the end of each day on which they were changed, by logged time.  At the end of any day an account stands as in its last row up to that day.'
;
COMMENT ON COLUMN "ledger_day_close__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_day_close__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_day_close__v1_b1"."account" IS 'Id of the account.'
;
COMMENT ON COLUMN "ledger_day_close__v1_b1"."day" IS 'UTC day of the booking.'
;
COMMENT ON COLUMN "ledger_day_close__v1_b1"."balance" IS 'Balance after the last change of that day.'
;
COMMENT ON COLUMN "ledger_day_close__v1_b1"."version" IS 'Number of the last change of that day.'
;
CREATE TABLE "ledger_day_held__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "account" VARCHAR2(128 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "pending_in" NUMBER(38) NOT NULL,
  "pending_out" NUMBER(38) NOT NULL,
  CONSTRAINT "ledger_day_held__v1_b1_key" PRIMARY KEY ("tenant", "book", "account", "day"),
  CONSTRAINT "ledger_day_held__v1_b1_held" CHECK ("pending_in" >= 0 AND "pending_out" >= 0),
  CONSTRAINT "ledger_day_held__v1_b1_day_day" CHECK ("day" = TRUNC("day"))
)
;
CREATE INDEX "ledger_day_held__v1_b1_day" ON "ledger_day_held__v1_b1" ("day", "tenant", "book")
;
COMMENT ON TABLE "ledger_day_held__v1_b1" IS 'What was held of accounts at the end of each day on which a hold of theirs began or ended.'
;
COMMENT ON COLUMN "ledger_day_held__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_day_held__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_day_held__v1_b1"."account" IS 'Id of the account.'
;
COMMENT ON COLUMN "ledger_day_held__v1_b1"."day" IS 'UTC day of the booking.'
;
COMMENT ON COLUMN "ledger_day_held__v1_b1"."pending_in" IS 'Held on its receiving side at the end of that day.'
;
COMMENT ON COLUMN "ledger_day_held__v1_b1"."pending_out" IS 'Held on its paying side then.'
;
CREATE TABLE "ledger_late_account__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "account" VARCHAR2(128 CHAR) NOT NULL,
  "since" TIMESTAMP(6) NOT NULL,
  "until" TIMESTAMP(6) NOT NULL,
  CONSTRAINT "ledger_late_account__v1_b1_key" PRIMARY KEY ("tenant", "book", "account")
)
;
COMMENT ON TABLE "ledger_late_account__v1_b1" IS 'Accounts with late postings: booked after others of a later business time.'
;
COMMENT ON COLUMN "ledger_late_account__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_late_account__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_late_account__v1_b1"."account" IS 'Id of the account.'
;
COMMENT ON COLUMN "ledger_late_account__v1_b1"."since" IS 'Business time of its earliest late posting.'
;
COMMENT ON COLUMN "ledger_late_account__v1_b1"."until" IS 'Latest business time before which one was late.'
;
CREATE TABLE "ledger_asset_booked__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "span" NUMBER(19) NOT NULL,
  "start" TIMESTAMP(6) NOT NULL,
  "asset" VARCHAR2(20 CHAR) NOT NULL,
  "accounts" NUMBER(19) NOT NULL,
  "debits" NUMBER(38) NOT NULL,
  "credits" NUMBER(38) NOT NULL,
  CONSTRAINT "ledger_asset_booked__v1_b1_key" PRIMARY KEY ("tenant", "book", "span", "start", "asset"),
  CONSTRAINT "ledger_asset_booked__v1_b1_double_entry" CHECK ("debits" = "credits"),
  CONSTRAINT "ledger_asset_booked__v1_b1_accounts" CHECK ("accounts" >= 0),
  CONSTRAINT "ledger_asset_booked__v1_b1_span_range" CHECK ("span" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_asset_booked__v1_b1_accounts_range" CHECK ("accounts" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
COMMENT ON TABLE "ledger_asset_booked__v1_b1" IS 'Changes of assets by days, minutes and moments of booking; spans without any are absent.  A trial balance as recorded at a moment is the sum of the days before it, the minutes of its day before it and the moments of its minute up to it.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."span" IS 'Seconds: 86400 a day, 60 a minute, 0 one moment.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."start" IS 'First moment of the span.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."asset" IS 'CODE/scale, as in USD/2.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."accounts" IS 'Accounts opened.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."debits" IS 'By how much the sum of all balances below 0 grew.'
;
COMMENT ON COLUMN "ledger_asset_booked__v1_b1"."credits" IS 'By how much that of those above 0 grew: the same.'
;
CREATE TABLE "ledger_asset_shift__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "span" NUMBER(19) NOT NULL,
  "start" TIMESTAMP(6) NOT NULL,
  "asset" VARCHAR2(20 CHAR) NOT NULL,
  "debits" NUMBER(38) NOT NULL,
  "credits" NUMBER(38) NOT NULL,
  CONSTRAINT "ledger_asset_shift__v1_b1_key" PRIMARY KEY ("tenant", "book", "span", "start", "asset"),
  CONSTRAINT "ledger_asset_shift__v1_b1_double_entry" CHECK ("debits" = "credits"),
  CONSTRAINT "ledger_asset_shift__v1_b1_span_range" CHECK ("span" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
COMMENT ON TABLE "ledger_asset_shift__v1_b1" IS 'What to add to `asset_booked` for business time: postings of another business time count there, and not where they were booked.  Late ones change more (`late_account`).'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."span" IS 'Seconds: 86400 a day, 60 a minute, 0 one moment.'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."start" IS 'First moment of the span.'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."asset" IS 'CODE/scale, as in USD/2.'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."debits" IS 'By how much the sum of all balances below 0 grew.'
;
COMMENT ON COLUMN "ledger_asset_shift__v1_b1"."credits" IS 'By how much that of those above 0 grew: the same.'
;
CREATE TABLE "ledger_asset_day__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "asset" VARCHAR2(20 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "paid_in" NUMBER(38) NOT NULL,
  "paid_out" NUMBER(38) NOT NULL,
  "entries" NUMBER(19) NOT NULL,
  "accounts" NUMBER(19) NOT NULL,
  CONSTRAINT "ledger_asset_day__v1_b1_key" PRIMARY KEY ("tenant", "book", "asset", "day"),
  CONSTRAINT "ledger_asset_day__v1_b1_double_entry" CHECK ("paid_in" = "paid_out"),
  CONSTRAINT "ledger_asset_day__v1_b1_day_day" CHECK ("day" = TRUNC("day")),
  CONSTRAINT "ledger_asset_day__v1_b1_entries_range" CHECK ("entries" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ledger_asset_day__v1_b1_accounts_range" CHECK ("accounts" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_asset_day__v1_b1_day" ON "ledger_asset_day__v1_b1" ("day")
;
COMMENT ON TABLE "ledger_asset_day__v1_b1" IS 'Turnover of assets by business day.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."asset" IS 'CODE/scale, as in USD/2.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."day" IS 'UTC day of the business time.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."paid_in" IS 'Sum of what came in.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."paid_out" IS 'Sum of what went out: the same.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."entries" IS 'Postings.'
;
COMMENT ON COLUMN "ledger_asset_day__v1_b1"."accounts" IS 'Accounts with postings.'
;
CREATE TABLE "ledger_asset_close__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "asset" VARCHAR2(20 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "accounts" NUMBER(19) NOT NULL,
  "debits" NUMBER(38) NOT NULL,
  "credits" NUMBER(38) NOT NULL,
  CONSTRAINT "ledger_asset_close__v1_b1_key" PRIMARY KEY ("tenant", "book", "asset", "day"),
  CONSTRAINT "ledger_asset_close__v1_b1_double_entry" CHECK ("debits" = "credits"),
  CONSTRAINT "ledger_asset_close__v1_b1_accounts" CHECK ("accounts" >= 0),
  CONSTRAINT "ledger_asset_close__v1_b1_day_day" CHECK ("day" = TRUNC("day")),
  CONSTRAINT "ledger_asset_close__v1_b1_accounts_range" CHECK ("accounts" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "ledger_asset_close__v1_b1_day" ON "ledger_asset_close__v1_b1" ("day")
;
COMMENT ON TABLE "ledger_asset_close__v1_b1" IS 'Changes of assets by day of booking, from the balances of accounts at its end: what `asset_booked` has by what events say.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."asset" IS 'CODE/scale, as in USD/2.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."day" IS 'UTC day of the booking.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."accounts" IS 'Accounts opened.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."debits" IS 'By how much the sum of all balances below 0 grew.'
;
COMMENT ON COLUMN "ledger_asset_close__v1_b1"."credits" IS 'By how much that of those above 0 grew: the same.'
;
CREATE TABLE "ledger_asset_held__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "book" VARCHAR2(128 CHAR) NOT NULL,
  "asset" VARCHAR2(20 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "pending_debits" NUMBER(38) NOT NULL,
  "pending_credits" NUMBER(38) NOT NULL,
  CONSTRAINT "ledger_asset_held__v1_b1_key" PRIMARY KEY ("tenant", "book", "asset", "day"),
  CONSTRAINT "ledger_asset_held__v1_b1_double_entry" CHECK ("pending_debits" = "pending_credits"),
  CONSTRAINT "ledger_asset_held__v1_b1_day_day" CHECK ("day" = TRUNC("day"))
)
;
CREATE INDEX "ledger_asset_held__v1_b1_day" ON "ledger_asset_held__v1_b1" ("day")
;
COMMENT ON TABLE "ledger_asset_held__v1_b1" IS 'Changes of what is held, by day of booking: what was held at the end of a day is the sum of all days up to it.'
;
COMMENT ON COLUMN "ledger_asset_held__v1_b1"."tenant" IS 'Tenant that owns the book.'
;
COMMENT ON COLUMN "ledger_asset_held__v1_b1"."book" IS 'Book: the partition key of its commands.'
;
COMMENT ON COLUMN "ledger_asset_held__v1_b1"."asset" IS 'CODE/scale, as in USD/2.'
;
COMMENT ON COLUMN "ledger_asset_held__v1_b1"."day" IS 'UTC day of the booking.'
;
COMMENT ON COLUMN "ledger_asset_held__v1_b1"."pending_debits" IS 'By how much grew what is held on paying sides.'
;
COMMENT ON COLUMN "ledger_asset_held__v1_b1"."pending_credits" IS 'And on receiving sides: the same.'
;
CREATE OR REPLACE VIEW "ledger_account" AS SELECT "tenant", "book", "account", "asset", "min_balance", "max_balance", "metadata", "balance", "pending_in", "pending_out", "version", "closed", "opened_at", "changed_at", "shard", "log_offset" FROM "ledger_account__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_transfer" AS SELECT "tenant", "book", "transfer", "source", "target", "amount", "status", "code", "reference", "reverses", "hold_timeout_s", "effective_at", "booked_at", "shard", "log_offset", "event", "command_id", "principal", "correlation_id" FROM "ledger_transfer__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_entry" AS SELECT "tenant", "book", "account", "version", "transfer", "counterparty", "amount", "balance", "effective_at", "booked_at", "shard", "log_offset", "event" FROM "ledger_entry__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_hold" AS SELECT "tenant", "book", "transfer", "source", "target", "amount", "posted_amount", "status", "expires_at", "booked_at", "resolved_at", "shard", "log_offset" FROM "ledger_hold__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_daily_balance" AS SELECT "tenant", "book", "account", "day", "paid_in", "paid_out", "entries", "debits" FROM "ledger_daily_balance__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_day_close" AS SELECT "tenant", "book", "account", "day", "balance", "version" FROM "ledger_day_close__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_day_held" AS SELECT "tenant", "book", "account", "day", "pending_in", "pending_out" FROM "ledger_day_held__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_late_account" AS SELECT "tenant", "book", "account", "since", "until" FROM "ledger_late_account__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_asset_booked" AS SELECT "tenant", "book", "span", "start", "asset", "accounts", "debits", "credits" FROM "ledger_asset_booked__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_asset_shift" AS SELECT "tenant", "book", "span", "start", "asset", "debits", "credits" FROM "ledger_asset_shift__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_asset_day" AS SELECT "tenant", "book", "asset", "day", "paid_in", "paid_out", "entries", "accounts" FROM "ledger_asset_day__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_asset_close" AS SELECT "tenant", "book", "asset", "day", "accounts", "debits", "credits" FROM "ledger_asset_close__v1_b1"
;
CREATE OR REPLACE VIEW "ledger_asset_held" AS SELECT "tenant", "book", "asset", "day", "pending_debits", "pending_credits" FROM "ledger_asset_held__v1_b1"
;
INSERT INTO "ledger_account__v1_b1" ("tenant", "book", "account", "asset", "min_balance", "max_balance", "metadata", "balance", "pending_in", "pending_out", "version", "closed", "opened_at", "changed_at", "shard", "log_offset") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8, :p9, :p10, :p11, :p12, :p13, :p14, :p15, :p16)
;
MERGE INTO "ledger_account__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "account", :p4 AS "asset", :p5 AS "min_balance", :p6 AS "max_balance", :p7 AS "metadata", :p8 AS "balance", :p9 AS "pending_in", :p10 AS "pending_out", :p11 AS "version", :p12 AS "closed", :p13 AS "opened_at", :p14 AS "changed_at", :p15 AS "shard", :p16 AS "log_offset" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."account" = "new"."account") WHEN MATCHED THEN UPDATE SET "held"."asset" = "new"."asset", "held"."min_balance" = "new"."min_balance", "held"."max_balance" = "new"."max_balance", "held"."metadata" = "new"."metadata", "held"."balance" = "new"."balance", "held"."pending_in" = "new"."pending_in", "held"."pending_out" = "new"."pending_out", "held"."version" = "new"."version", "held"."closed" = "new"."closed", "held"."opened_at" = "new"."opened_at", "held"."changed_at" = "new"."changed_at", "held"."shard" = "new"."shard", "held"."log_offset" = "new"."log_offset" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "account", "asset", "min_balance", "max_balance", "metadata", "balance", "pending_in", "pending_out", "version", "closed", "opened_at", "changed_at", "shard", "log_offset") VALUES ("new"."tenant", "new"."book", "new"."account", "new"."asset", "new"."min_balance", "new"."max_balance", "new"."metadata", "new"."balance", "new"."pending_in", "new"."pending_out", "new"."version", "new"."closed", "new"."opened_at", "new"."changed_at", "new"."shard", "new"."log_offset")
;
UPDATE "ledger_account__v1_b1" SET "asset" = :p1, "min_balance" = :p2, "max_balance" = :p3, "metadata" = :p4, "balance" = :p5, "pending_in" = :p6, "pending_out" = :p7, "version" = :p8, "closed" = :p9, "opened_at" = :p10, "changed_at" = :p11, "shard" = :p12, "log_offset" = :p13 WHERE "tenant" = :p14 AND "book" = :p15 AND "account" = :p16
;
INSERT INTO "ledger_transfer__v1_b1" ("tenant", "book", "transfer", "source", "target", "amount", "status", "code", "reference", "reverses", "hold_timeout_s", "effective_at", "booked_at", "shard", "log_offset", "event", "command_id", "principal", "correlation_id") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8, :p9, :p10, :p11, :p12, :p13, :p14, :p15, :p16, :p17, :p18, :p19)
;
INSERT INTO "ledger_entry__v1_b1" ("tenant", "book", "account", "version", "transfer", "counterparty", "amount", "balance", "effective_at", "booked_at", "shard", "log_offset", "event") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8, :p9, :p10, :p11, :p12, :p13)
;
INSERT INTO "ledger_hold__v1_b1" ("tenant", "book", "transfer", "source", "target", "amount", "posted_amount", "status", "expires_at", "booked_at", "resolved_at", "shard", "log_offset") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8, :p9, :p10, :p11, :p12, :p13)
;
MERGE INTO "ledger_hold__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "transfer", :p4 AS "source", :p5 AS "target", :p6 AS "amount", :p7 AS "posted_amount", :p8 AS "status", :p9 AS "expires_at", :p10 AS "booked_at", :p11 AS "resolved_at", :p12 AS "shard", :p13 AS "log_offset" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."transfer" = "new"."transfer") WHEN MATCHED THEN UPDATE SET "held"."source" = "new"."source", "held"."target" = "new"."target", "held"."amount" = "new"."amount", "held"."posted_amount" = "new"."posted_amount", "held"."status" = "new"."status", "held"."expires_at" = "new"."expires_at", "held"."booked_at" = "new"."booked_at", "held"."resolved_at" = "new"."resolved_at", "held"."shard" = "new"."shard", "held"."log_offset" = "new"."log_offset" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "transfer", "source", "target", "amount", "posted_amount", "status", "expires_at", "booked_at", "resolved_at", "shard", "log_offset") VALUES ("new"."tenant", "new"."book", "new"."transfer", "new"."source", "new"."target", "new"."amount", "new"."posted_amount", "new"."status", "new"."expires_at", "new"."booked_at", "new"."resolved_at", "new"."shard", "new"."log_offset")
;
UPDATE "ledger_hold__v1_b1" SET "source" = :p1, "target" = :p2, "amount" = :p3, "posted_amount" = :p4, "status" = :p5, "expires_at" = :p6, "booked_at" = :p7, "resolved_at" = :p8, "shard" = :p9, "log_offset" = :p10 WHERE "tenant" = :p11 AND "book" = :p12 AND "transfer" = :p13
;
INSERT INTO "ledger_daily_balance__v1_b1" ("tenant", "book", "account", "day", "paid_in", "paid_out", "entries", "debits") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8)
;
MERGE INTO "ledger_daily_balance__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "account", :p4 AS "day", :p5 AS "paid_in", :p6 AS "paid_out", :p7 AS "entries", :p8 AS "debits" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."account" = "new"."account" AND "held"."day" = "new"."day") WHEN MATCHED THEN UPDATE SET "held"."paid_in" = "held"."paid_in" + "new"."paid_in", "held"."paid_out" = "held"."paid_out" + "new"."paid_out", "held"."entries" = "held"."entries" + "new"."entries", "held"."debits" = "held"."debits" + "new"."debits" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "account", "day", "paid_in", "paid_out", "entries", "debits") VALUES ("new"."tenant", "new"."book", "new"."account", "new"."day", "new"."paid_in", "new"."paid_out", "new"."entries", "new"."debits")
;
UPDATE "ledger_daily_balance__v1_b1" SET "paid_in" = "paid_in" + :p1, "paid_out" = "paid_out" + :p2, "entries" = "entries" + :p3, "debits" = "debits" + :p4 WHERE "tenant" = :p5 AND "book" = :p6 AND "account" = :p7 AND "day" = :p8
;
INSERT INTO "ledger_day_close__v1_b1" ("tenant", "book", "account", "day", "balance", "version") VALUES (:p1, :p2, :p3, :p4, :p5, :p6)
;
MERGE INTO "ledger_day_close__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "account", :p4 AS "day", :p5 AS "balance", :p6 AS "version" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."account" = "new"."account" AND "held"."day" = "new"."day") WHEN MATCHED THEN UPDATE SET "held"."balance" = "new"."balance", "held"."version" = "new"."version" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "account", "day", "balance", "version") VALUES ("new"."tenant", "new"."book", "new"."account", "new"."day", "new"."balance", "new"."version")
;
UPDATE "ledger_day_close__v1_b1" SET "balance" = :p1, "version" = :p2 WHERE "tenant" = :p3 AND "book" = :p4 AND "account" = :p5 AND "day" = :p6
;
INSERT INTO "ledger_day_held__v1_b1" ("tenant", "book", "account", "day", "pending_in", "pending_out") VALUES (:p1, :p2, :p3, :p4, :p5, :p6)
;
MERGE INTO "ledger_day_held__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "account", :p4 AS "day", :p5 AS "pending_in", :p6 AS "pending_out" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."account" = "new"."account" AND "held"."day" = "new"."day") WHEN MATCHED THEN UPDATE SET "held"."pending_in" = "new"."pending_in", "held"."pending_out" = "new"."pending_out" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "account", "day", "pending_in", "pending_out") VALUES ("new"."tenant", "new"."book", "new"."account", "new"."day", "new"."pending_in", "new"."pending_out")
;
UPDATE "ledger_day_held__v1_b1" SET "pending_in" = :p1, "pending_out" = :p2 WHERE "tenant" = :p3 AND "book" = :p4 AND "account" = :p5 AND "day" = :p6
;
INSERT INTO "ledger_late_account__v1_b1" ("tenant", "book", "account", "since", "until") VALUES (:p1, :p2, :p3, :p4, :p5)
;
MERGE INTO "ledger_late_account__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "account", :p4 AS "since", :p5 AS "until" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."account" = "new"."account") WHEN MATCHED THEN UPDATE SET "held"."since" = LEAST("held"."since", "new"."since"), "held"."until" = GREATEST("held"."until", "new"."until") WHEN NOT MATCHED THEN INSERT ("tenant", "book", "account", "since", "until") VALUES ("new"."tenant", "new"."book", "new"."account", "new"."since", "new"."until")
;
UPDATE "ledger_late_account__v1_b1" SET "since" = LEAST("since", :p1), "until" = GREATEST("until", :p2) WHERE "tenant" = :p3 AND "book" = :p4 AND "account" = :p5
;
INSERT INTO "ledger_asset_booked__v1_b1" ("tenant", "book", "span", "start", "asset", "accounts", "debits", "credits") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8)
;
SELECT "tenant", "book", "account", "asset" FROM "ledger_account__v1_b1" WHERE ("tenant", "book", "account") IN ((:p1, :p2, :p3), (:p4, :p5, :p6))
;
MERGE INTO "ledger_asset_booked__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "span", :p4 AS "start", :p5 AS "asset", :p6 AS "accounts", :p7 AS "debits", :p8 AS "credits" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."span" = "new"."span" AND "held"."start" = "new"."start" AND "held"."asset" = "new"."asset") WHEN MATCHED THEN UPDATE SET "held"."accounts" = "held"."accounts" + "new"."accounts", "held"."debits" = "held"."debits" + "new"."debits", "held"."credits" = "held"."credits" + "new"."credits" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "span", "start", "asset", "accounts", "debits", "credits") VALUES ("new"."tenant", "new"."book", "new"."span", "new"."start", "new"."asset", "new"."accounts", "new"."debits", "new"."credits")
;
UPDATE "ledger_asset_booked__v1_b1" SET "accounts" = "accounts" + :p1, "debits" = "debits" + :p2, "credits" = "credits" + :p3 WHERE "tenant" = :p4 AND "book" = :p5 AND "span" = :p6 AND "start" = :p7 AND "asset" = :p8
;
INSERT INTO "ledger_asset_shift__v1_b1" ("tenant", "book", "span", "start", "asset", "debits", "credits") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7)
;
SELECT "tenant", "book", "account", "asset" FROM "ledger_account__v1_b1" WHERE ("tenant", "book", "account") IN ((:p1, :p2, :p3), (:p4, :p5, :p6))
;
MERGE INTO "ledger_asset_shift__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "book", :p3 AS "span", :p4 AS "start", :p5 AS "asset", :p6 AS "debits", :p7 AS "credits" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."book" = "new"."book" AND "held"."span" = "new"."span" AND "held"."start" = "new"."start" AND "held"."asset" = "new"."asset") WHEN MATCHED THEN UPDATE SET "held"."debits" = "held"."debits" + "new"."debits", "held"."credits" = "held"."credits" + "new"."credits" WHEN NOT MATCHED THEN INSERT ("tenant", "book", "span", "start", "asset", "debits", "credits") VALUES ("new"."tenant", "new"."book", "new"."span", "new"."start", "new"."asset", "new"."debits", "new"."credits")
;
UPDATE "ledger_asset_shift__v1_b1" SET "debits" = "debits" + :p1, "credits" = "credits" + :p2 WHERE "tenant" = :p3 AND "book" = :p4 AND "span" = :p5 AND "start" = :p6 AND "asset" = :p7
;
DELETE FROM "ledger_asset_day__v1_b1" WHERE "day" IN (:p1, :p2, :p3)
;
INSERT INTO "ledger_asset_day__v1_b1" ("tenant", "book", "asset", "day", "paid_in", "paid_out", "entries", "accounts") SELECT d."tenant", d."book", a."asset", d."day", SUM(d."paid_in"), SUM(d."paid_out"), SUM(d."entries"), COUNT(*) FROM (SELECT c."tenant", c."book", c."account", c."day", c."paid_in", c."paid_out", c."entries" FROM "ledger_daily_balance__v1_b1" c WHERE "day" IN (:p1, :p2, :p3)) d JOIN "ledger_account__v1_b1" a ON a."tenant" = d."tenant" AND a."book" = d."book" AND a."account" = d."account" GROUP BY d."tenant", d."book", a."asset", d."day"
;
DELETE FROM "ledger_asset_close__v1_b1" WHERE "day" IN (:p1, :p2, :p3)
;
INSERT INTO "ledger_asset_close__v1_b1" ("tenant", "book", "asset", "day", "accounts", "debits", "credits") SELECT s."tenant", s."book", s."asset", s."day", SUM(s."opened"), SUM((CASE WHEN s."balance" < 0 THEN 0 - s."balance" ELSE 0 END - CASE WHEN s."was" < 0 THEN 0 - s."was" ELSE 0 END)), SUM((CASE WHEN s."balance" > 0 THEN s."balance" ELSE 0 END - CASE WHEN s."was" > 0 THEN s."was" ELSE 0 END)) FROM (SELECT d."tenant", d."book", a."asset", d."day", d."balance", CASE WHEN p."day" IS NULL THEN 1 ELSE 0 END AS "opened", COALESCE(p."balance", 0) AS "was" FROM (SELECT c."tenant", c."book", c."account", c."day", c."balance" FROM "ledger_day_close__v1_b1" c WHERE "day" IN (:p1, :p2, :p3)) d JOIN "ledger_account__v1_b1" a ON a."tenant" = d."tenant" AND a."book" = d."book" AND a."account" = d."account" LEFT JOIN "ledger_day_close__v1_b1" p ON p."tenant" = d."tenant" AND p."book" = d."book" AND p."account" = d."account" AND p."day" = (SELECT MAX(q."day") FROM "ledger_day_close__v1_b1" q WHERE q."tenant" = d."tenant" AND q."book" = d."book" AND q."account" = d."account" AND q."day" < d."day")) s GROUP BY s."tenant", s."book", s."asset", s."day"
;
DELETE FROM "ledger_asset_held__v1_b1" WHERE "day" IN (:p1, :p2, :p3)
;
INSERT INTO "ledger_asset_held__v1_b1" ("tenant", "book", "asset", "day", "pending_debits", "pending_credits") SELECT s."tenant", s."book", s."asset", s."day", SUM((s."pending_out" - s."was_out")), SUM((s."pending_in" - s."was_in")) FROM (SELECT d."tenant", d."book", a."asset", d."day", d."pending_out", d."pending_in", COALESCE(p."pending_out", 0) AS "was_out", COALESCE(p."pending_in", 0) AS "was_in" FROM (SELECT c."tenant", c."book", c."account", c."day", c."pending_in", c."pending_out" FROM "ledger_day_held__v1_b1" c WHERE "day" IN (:p1, :p2, :p3)) d JOIN "ledger_account__v1_b1" a ON a."tenant" = d."tenant" AND a."book" = d."book" AND a."account" = d."account" LEFT JOIN "ledger_day_held__v1_b1" p ON p."tenant" = d."tenant" AND p."book" = d."book" AND p."account" = d."account" AND p."day" = (SELECT MAX(q."day") FROM "ledger_day_held__v1_b1" q WHERE q."tenant" = d."tenant" AND q."book" = d."book" AND q."account" = d."account" AND q."day" < d."day")) s GROUP BY s."tenant", s."book", s."asset", s."day"
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_account__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_transfer__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_entry__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_hold__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_daily_balance__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_day_close__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_day_held__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_late_account__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_asset_booked__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_asset_shift__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_asset_day__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_asset_close__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "ledger_asset_held__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
CREATE TABLE "probe_fact__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "n" NUMBER(19) NOT NULL,
  "amount" NUMBER(38) NOT NULL,
  "total" NUMBER(38) NOT NULL,
  "text" VARCHAR2(4000 CHAR) NOT NULL,
  "time" TIMESTAMP(6) NOT NULL,
  "day" DATE NOT NULL,
  "flag" NUMBER(1) NOT NULL,
  "json" CLOB NOT NULL,
  "blob" BLOB NOT NULL,
  "maybe_integer" NUMBER(19),
  "maybe_amount" NUMBER(38),
  "maybe_text" VARCHAR2(16 CHAR),
  "maybe_time" TIMESTAMP(6),
  "maybe_day" DATE,
  "maybe_flag" NUMBER(1),
  "maybe_json" CLOB,
  "maybe_blob" BLOB,
  CONSTRAINT "probe_fact__v1_b1_key" PRIMARY KEY ("tenant", "n"),
  CONSTRAINT "probe_fact__v1_b1_room" CHECK ("maybe_amount" IS NULL OR "amount" - "maybe_amount" >= 0),
  CONSTRAINT "probe_fact__v1_b1_word" CHECK ("maybe_text" IS NULL OR "maybe_text" <> 'forbidden'),
  CONSTRAINT "probe_fact__v1_b1_n_range" CHECK ("n" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "probe_fact__v1_b1_day_day" CHECK ("day" = TRUNC("day")),
  CONSTRAINT "probe_fact__v1_b1_flag_truth" CHECK ("flag" IN (0, 1)),
  CONSTRAINT "probe_fact__v1_b1_json_json" CHECK ("json" IS JSON),
  CONSTRAINT "probe_fact__v1_b1_blob_length" CHECK (LENGTHB("blob") <= 64),
  CONSTRAINT "probe_fact__v1_b1_maybe_integer_range" CHECK ("maybe_integer" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "probe_fact__v1_b1_maybe_day_day" CHECK ("maybe_day" = TRUNC("maybe_day")),
  CONSTRAINT "probe_fact__v1_b1_maybe_flag_truth" CHECK ("maybe_flag" IN (0, 1)),
  CONSTRAINT "probe_fact__v1_b1_maybe_json_json" CHECK ("maybe_json" IS JSON),
  CONSTRAINT "probe_fact__v1_b1_maybe_blob_length" CHECK (LENGTHB("maybe_blob") <= 64)
)
;
CREATE INDEX "probe_fact__v1_b1_by_text" ON "probe_fact__v1_b1" ("tenant", "maybe_text")
;
COMMENT ON TABLE "probe_fact__v1_b1" IS 'A fact with a value of every type, and one that may be null.'
;
CREATE TABLE "probe_visit__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "n" NUMBER(19) NOT NULL,
  "at" TIMESTAMP(6) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  CONSTRAINT "probe_visit__v1_b1_key" PRIMARY KEY ("tenant", "n"),
  CONSTRAINT "probe_visit__v1_b1_n_range" CHECK ("n" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "probe_visit__v1_b1_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
PARTITION BY RANGE ("at") INTERVAL (NUMTOYMINTERVAL(1, 'MONTH')) (PARTITION "p_first" VALUES LESS THAN (TIMESTAMP '1970-01-01 00:00:00'))
;
COMMENT ON TABLE "probe_visit__v1_b1" IS 'Cut by months, kept for a month.'
;
CREATE TABLE "probe_state__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "name" VARCHAR2(64 CHAR) NOT NULL,
  "last" NUMBER(38) NOT NULL,
  "note" VARCHAR2(128 CHAR),
  "paid" NUMBER(38) NOT NULL,
  "count" NUMBER(19) NOT NULL,
  "first" TIMESTAMP(6) NOT NULL,
  "newest" TIMESTAMP(6) NOT NULL,
  "lowest" NUMBER(38) NOT NULL,
  "highest" NUMBER(38) NOT NULL,
  CONSTRAINT "probe_state__v1_b1_key" PRIMARY KEY ("tenant", "name"),
  CONSTRAINT "probe_state__v1_b1_count" CHECK ("count" >= 0),
  CONSTRAINT "probe_state__v1_b1_count_range" CHECK ("count" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE INDEX "probe_state__v1_b1_newest" ON "probe_state__v1_b1" ("tenant", "newest")
;
COMMENT ON TABLE "probe_state__v1_b1" IS 'Every fold.'
;
CREATE TABLE "probe_known__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "name" VARCHAR2(64 CHAR) NOT NULL,
  CONSTRAINT "probe_known__v1_b1_key" PRIMARY KEY ("tenant", "name")
)
;
COMMENT ON TABLE "probe_known__v1_b1" IS 'Nothing but a key.'
;
CREATE TABLE "probe_daily__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "name" VARCHAR2(64 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "paid_in" NUMBER(38) NOT NULL,
  "paid_out" NUMBER(38) NOT NULL,
  CONSTRAINT "probe_daily__v1_b1_key" PRIMARY KEY ("tenant", "name", "day"),
  CONSTRAINT "probe_daily__v1_b1_day_day" CHECK ("day" = TRUNC("day"))
)
;
CREATE INDEX "probe_daily__v1_b1_day" ON "probe_daily__v1_b1" ("day")
;
COMMENT ON TABLE "probe_daily__v1_b1" IS 'What an aggregate is computed from.'
;
CREATE TABLE "probe_day_total__v1_b1" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "day" DATE NOT NULL,
  "paid_in" NUMBER(38) NOT NULL,
  "paid_out" NUMBER(38) NOT NULL,
  "names" NUMBER(19) NOT NULL,
  CONSTRAINT "probe_day_total__v1_b1_key" PRIMARY KEY ("tenant", "day"),
  CONSTRAINT "probe_day_total__v1_b1_balanced" CHECK ("paid_in" = "paid_out"),
  CONSTRAINT "probe_day_total__v1_b1_day_day" CHECK ("day" = TRUNC("day")),
  CONSTRAINT "probe_day_total__v1_b1_names_range" CHECK ("names" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
CREATE OR REPLACE VIEW "probe_fact" AS SELECT "tenant", "n", "amount", "total", "text", "time", "day", "flag", "json", "blob", "maybe_integer", "maybe_amount", "maybe_text", "maybe_time", "maybe_day", "maybe_flag", "maybe_json", "maybe_blob" FROM "probe_fact__v1_b1"
;
CREATE OR REPLACE VIEW "probe_visit" AS SELECT "tenant", "n", "at", "shard" FROM "probe_visit__v1_b1"
;
CREATE OR REPLACE VIEW "probe_state" AS SELECT "tenant", "name", "last", "note", "paid", "count", "first", "newest", "lowest", "highest" FROM "probe_state__v1_b1"
;
CREATE OR REPLACE VIEW "probe_known" AS SELECT "tenant", "name" FROM "probe_known__v1_b1"
;
CREATE OR REPLACE VIEW "probe_daily" AS SELECT "tenant", "name", "day", "paid_in", "paid_out" FROM "probe_daily__v1_b1"
;
CREATE OR REPLACE VIEW "probe_day_total" AS SELECT "tenant", "day", "paid_in", "paid_out", "names" FROM "probe_day_total__v1_b1"
;
INSERT INTO "probe_fact__v1_b1" ("tenant", "n", "amount", "total", "text", "time", "day", "flag", "json", "blob", "maybe_integer", "maybe_amount", "maybe_text", "maybe_time", "maybe_day", "maybe_flag", "maybe_json", "maybe_blob") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8, :p9, :p10, :p11, :p12, :p13, :p14, :p15, :p16, :p17, :p18)
;
INSERT INTO "probe_visit__v1_b1" ("tenant", "n", "at", "shard") VALUES (:p1, :p2, :p3, :p4)
;
INSERT INTO "probe_state__v1_b1" ("tenant", "name", "last", "note", "paid", "count", "first", "newest", "lowest", "highest") VALUES (:p1, :p2, :p3, :p4, :p5, :p6, :p7, :p8, :p9, :p10)
;
MERGE INTO "probe_state__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "name", :p3 AS "last", :p4 AS "note", :p5 AS "paid", :p6 AS "count", :p7 AS "first", :p8 AS "newest", :p9 AS "lowest", :p10 AS "highest" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."name" = "new"."name") WHEN MATCHED THEN UPDATE SET "held"."last" = "new"."last", "held"."note" = "new"."note", "held"."paid" = "held"."paid" + "new"."paid", "held"."count" = "held"."count" + "new"."count", "held"."first" = LEAST("held"."first", "new"."first"), "held"."newest" = GREATEST("held"."newest", "new"."newest"), "held"."lowest" = LEAST("held"."lowest", "new"."lowest"), "held"."highest" = GREATEST("held"."highest", "new"."highest") WHEN NOT MATCHED THEN INSERT ("tenant", "name", "last", "note", "paid", "count", "first", "newest", "lowest", "highest") VALUES ("new"."tenant", "new"."name", "new"."last", "new"."note", "new"."paid", "new"."count", "new"."first", "new"."newest", "new"."lowest", "new"."highest")
;
UPDATE "probe_state__v1_b1" SET "last" = :p1, "note" = :p2, "paid" = "paid" + :p3, "count" = "count" + :p4, "first" = LEAST("first", :p5), "newest" = GREATEST("newest", :p6), "lowest" = LEAST("lowest", :p7), "highest" = GREATEST("highest", :p8) WHERE "tenant" = :p9 AND "name" = :p10
;
INSERT INTO "probe_known__v1_b1" ("tenant", "name") VALUES (:p1, :p2)
;
MERGE INTO "probe_known__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "name" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."name" = "new"."name") WHEN NOT MATCHED THEN INSERT ("tenant", "name") VALUES ("new"."tenant", "new"."name")
;
INSERT INTO "probe_daily__v1_b1" ("tenant", "name", "day", "paid_in", "paid_out") VALUES (:p1, :p2, :p3, :p4, :p5)
;
MERGE INTO "probe_daily__v1_b1" "held" USING (SELECT :p1 AS "tenant", :p2 AS "name", :p3 AS "day", :p4 AS "paid_in", :p5 AS "paid_out" FROM DUAL) "new" ON ("held"."tenant" = "new"."tenant" AND "held"."name" = "new"."name" AND "held"."day" = "new"."day") WHEN MATCHED THEN UPDATE SET "held"."paid_in" = "held"."paid_in" + "new"."paid_in", "held"."paid_out" = "held"."paid_out" + "new"."paid_out" WHEN NOT MATCHED THEN INSERT ("tenant", "name", "day", "paid_in", "paid_out") VALUES ("new"."tenant", "new"."name", "new"."day", "new"."paid_in", "new"."paid_out")
;
UPDATE "probe_daily__v1_b1" SET "paid_in" = "paid_in" + :p1, "paid_out" = "paid_out" + :p2 WHERE "tenant" = :p3 AND "name" = :p4 AND "day" = :p5
;
DELETE FROM "probe_day_total__v1_b1" WHERE "day" IN (:p1, :p2, :p3)
;
INSERT INTO "probe_day_total__v1_b1" ("tenant", "day", "paid_in", "paid_out", "names") SELECT d."tenant", d."day", SUM(d."paid_in"), SUM(d."paid_out"), COUNT(*) FROM "probe_daily__v1_b1" d WHERE "day" IN (:p1, :p2, :p3) GROUP BY d."tenant", d."day"
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "probe_fact__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "probe_visit__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "probe_state__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "probe_known__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "probe_daily__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
BEGIN EXECUTE IMMEDIATE 'DROP TABLE "probe_day_total__v1_b1" CASCADE CONSTRAINTS PURGE'; EXCEPTION WHEN OTHERS THEN IF SQLCODE <> -942 THEN RAISE; END IF; END;
;
CREATE TABLE "ultra_projection_set" (
  "projection" VARCHAR2(24 CHAR) NOT NULL,
  "build" NUMBER(19) NOT NULL,
  "version" NUMBER(19) NOT NULL,
  "state" VARCHAR2(16 CHAR) NOT NULL,
  "created_at" TIMESTAMP(6) NOT NULL,
  "changed_at" TIMESTAMP(6) NOT NULL,
  "paused" NUMBER(1) NOT NULL,
  "parked" CLOB,
  "tables" VARCHAR2(4000 CHAR) NOT NULL,
  CONSTRAINT "ultra_projection_set_key" PRIMARY KEY ("projection", "build"),
  CONSTRAINT "ultra_projection_set_build_range" CHECK ("build" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_set_version_range" CHECK ("version" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_set_paused_truth" CHECK ("paused" IN (0, 1)),
  CONSTRAINT "ultra_projection_set_parked_json" CHECK ("parked" IS JSON)
)
;
COMMENT ON TABLE "ultra_projection_set" IS 'Builds of projections.'
;
COMMENT ON COLUMN "ultra_projection_set"."tables" IS 'Names of its tables, with commas between: their views go when a set without them serves.'
;
CREATE TABLE "ultra_projection_position" (
  "projection" VARCHAR2(24 CHAR) NOT NULL,
  "build" NUMBER(19) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  "log_offset" NUMBER(19) NOT NULL,
  "epoch" NUMBER(19) NOT NULL,
  "booked_at" TIMESTAMP(6) NOT NULL,
  "chain" BLOB NOT NULL,
  CONSTRAINT "ultra_projection_position_key" PRIMARY KEY ("projection", "build", "shard"),
  CONSTRAINT "ultra_projection_position_build_range" CHECK ("build" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_position_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_position_log_offset_range" CHECK ("log_offset" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_position_epoch_range" CHECK ("epoch" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_position_chain_length" CHECK (LENGTHB("chain") <= 16)
)
;
COMMENT ON TABLE "ultra_projection_position" IS 'How far each set has followed each shard''s log.'
;
COMMENT ON COLUMN "ultra_projection_position"."log_offset" IS 'First offset that is not in the tables.'
;
COMMENT ON COLUMN "ultra_projection_position"."booked_at" IS 'Stamped time of the last group.'
;
CREATE TABLE "ultra_projection_ledger" (
  "projection" VARCHAR2(24 CHAR) NOT NULL,
  "build" NUMBER(19) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  "log_end" NUMBER(19) NOT NULL,
  "version" NUMBER(19) NOT NULL,
  "epoch" NUMBER(19) NOT NULL,
  "booked_at" TIMESTAMP(6) NOT NULL,
  "chain" BLOB NOT NULL,
  "rows" NUMBER(19) NOT NULL,
  CONSTRAINT "ultra_projection_ledger_key" PRIMARY KEY ("projection", "build", "shard", "log_end"),
  CONSTRAINT "ultra_projection_ledger_build_range" CHECK ("build" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_ledger_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_ledger_log_end_range" CHECK ("log_end" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_ledger_version_range" CHECK ("version" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_ledger_epoch_range" CHECK ("epoch" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_ledger_chain_length" CHECK (LENGTHB("chain") <= 16),
  CONSTRAINT "ultra_projection_ledger_rows_range" CHECK ("rows" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
COMMENT ON TABLE "ultra_projection_ledger" IS 'Which state of the log, by its chain hash, the tables have followed: a row per write.'
;
COMMENT ON COLUMN "ultra_projection_ledger"."log_end" IS 'First offset that the write did not reach.'
;
COMMENT ON COLUMN "ultra_projection_ledger"."booked_at" IS 'Stamped time of its last group.'
;
COMMENT ON COLUMN "ultra_projection_ledger"."rows" IS 'Rows of the whole write.'
;
CREATE TABLE "ultra_projection_request" (
  "id" NUMBER(19) NOT NULL,
  "projection" VARCHAR2(24 CHAR) NOT NULL,
  "request" VARCHAR2(16 CHAR) NOT NULL,
  "asked_at" TIMESTAMP(6) NOT NULL,
  CONSTRAINT "ultra_projection_request_key" PRIMARY KEY ("id"),
  CONSTRAINT "ultra_projection_request_id_range" CHECK ("id" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
;
COMMENT ON TABLE "ultra_projection_request" IS 'What persons have asked of the worker and it has not taken yet.'
;
CREATE TABLE "ultra_projection_slice" (
  "projection" VARCHAR2(24 CHAR) NOT NULL,
  "build" NUMBER(19) NOT NULL,
  "aggregate" VARCHAR2(24 CHAR) NOT NULL,
  "slice" DATE NOT NULL,
  CONSTRAINT "ultra_projection_slice_key" PRIMARY KEY ("projection", "build", "aggregate", "slice"),
  CONSTRAINT "ultra_projection_slice_build_range" CHECK ("build" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "ultra_projection_slice_slice_day" CHECK ("slice" = TRUNC("slice"))
)
;
COMMENT ON TABLE "ultra_projection_slice" IS 'Slices of aggregates that are to be computed anew.'
;
CREATE TABLE "ultra_projection_index" (
  "projection" VARCHAR2(24 CHAR) NOT NULL,
  "name" VARCHAR2(24 CHAR) NOT NULL,
  "indexed" VARCHAR2(24 CHAR) NOT NULL,
  "members" VARCHAR2(4000 CHAR) NOT NULL,
  "created_at" TIMESTAMP(6) NOT NULL,
  CONSTRAINT "ultra_projection_index_key" PRIMARY KEY ("projection", "name")
)
;
COMMENT ON TABLE "ultra_projection_index" IS 'Indexes that were added beyond the declared ones; new sets get them too.'
;
COMMENT ON COLUMN "ultra_projection_index"."indexed" IS 'The table.'
;
COMMENT ON COLUMN "ultra_projection_index"."members" IS 'The indexed columns in their order, with commas between.'
;
CREATE TABLE "sharded" (
  "tenant" VARCHAR2(128 CHAR) NOT NULL,
  "n" NUMBER(19) NOT NULL,
  "at" TIMESTAMP(6) NOT NULL,
  "shard" NUMBER(19) NOT NULL,
  CONSTRAINT "sharded_key" PRIMARY KEY ("tenant", "n"),
  CONSTRAINT "sharded_n_range" CHECK ("n" BETWEEN -9223372036854775808 AND 9223372036854775807),
  CONSTRAINT "sharded_shard_range" CHECK ("shard" BETWEEN -9223372036854775808 AND 9223372036854775807)
)
PARTITION BY RANGE ("at") INTERVAL (NUMTOYMINTERVAL(1, 'MONTH')) SUBPARTITION BY HASH ("shard") SUBPARTITIONS 8 (PARTITION "p_first" VALUES LESS THAN (TIMESTAMP '1970-01-01 00:00:00'))
;
ALTER TABLE "probe_visit__v1_b1" DROP PARTITION FOR (TIMESTAMP '2025-12-01 00:00:00') UPDATE GLOBAL INDEXES
;
CREATE OR REPLACE VIEW "probe_visit" AS SELECT "tenant", "n", "at", "shard" FROM "probe_visit__v1_b1" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 1 AND "state" = 'serving') UNION ALL SELECT "tenant", "n", "at", "shard" FROM "probe_visit__v2_b2" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 2 AND "state" = 'serving')
;
CREATE OR REPLACE VIEW "probe_state" AS SELECT "tenant", "name", "last", "note", "paid", "count", "first", "newest", "lowest", "highest" FROM "probe_state__v1_b1" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 1 AND "state" = 'serving') UNION ALL SELECT "tenant", "name", "last", "note", "paid", "count", "first", "newest", "lowest", "highest" FROM "probe_state__v2_b2" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 2 AND "state" = 'serving')
;
CREATE OR REPLACE VIEW "probe_known" AS SELECT "tenant", "name" FROM "probe_known__v1_b1" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 1 AND "state" = 'serving') UNION ALL SELECT "tenant", "name" FROM "probe_known__v2_b2" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 2 AND "state" = 'serving')
;
CREATE OR REPLACE VIEW "probe_daily" AS SELECT "tenant", "name", "day", "paid_in", "paid_out" FROM "probe_daily__v2_b2" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 2 AND "state" = 'serving')
;
CREATE OR REPLACE VIEW "probe_day_total" AS SELECT "tenant", "day", "paid_in", "paid_out", "names" FROM "probe_day_total__v2_b2" WHERE EXISTS (SELECT 1 FROM "ultra_projection_set" WHERE "projection" = 'probe' AND "build" = 2 AND "state" = 'serving')
;
UPDATE "ultra_projection_set" SET "state" = CASE "build" WHEN 2 THEN 'serving' ELSE 'retired' END WHERE "projection" = 'probe' AND "build" IN (1, 2)
;
CREATE OR REPLACE VIEW "probe_visit" AS SELECT "tenant", "n", "at", "shard" FROM "probe_visit__v2_b2"
;
CREATE OR REPLACE VIEW "probe_state" AS SELECT "tenant", "name", "last", "note", "paid", "count", "first", "newest", "lowest", "highest" FROM "probe_state__v2_b2"
;
CREATE OR REPLACE VIEW "probe_known" AS SELECT "tenant", "name" FROM "probe_known__v2_b2"
;
CREATE OR REPLACE VIEW "probe_daily" AS SELECT "tenant", "name", "day", "paid_in", "paid_out" FROM "probe_daily__v2_b2"
;
CREATE OR REPLACE VIEW "probe_day_total" AS SELECT "tenant", "day", "paid_in", "paid_out", "names" FROM "probe_day_total__v2_b2"
;
DROP VIEW "probe_fact"
;
SELECT "n" FROM "probe_fact" ORDER BY "n" FETCH FIRST 10 ROWS ONLY
;
