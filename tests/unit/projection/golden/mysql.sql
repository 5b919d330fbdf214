CREATE TABLE `ledger_account__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `account` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the account.',
  `asset` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'CODE/scale, as in USD/2.',
  `min_balance` DECIMAL(38,0) COMMENT 'Lowest balance allowed; null = none.',
  `max_balance` DECIMAL(38,0) COMMENT 'Highest balance allowed; null = none.',
  `metadata` LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'What was said at the opening, by name.',
  `balance` DECIMAL(38,0) NOT NULL COMMENT 'What was paid in without what was paid out.',
  `pending_in` DECIMAL(38,0) NOT NULL COMMENT 'Held on its receiving side.',
  `pending_out` DECIMAL(38,0) NOT NULL COMMENT 'Held on its paying side.',
  `version` BIGINT NOT NULL COMMENT 'Number of its last change; 1 = opened.',
  `closed` BOOLEAN NOT NULL COMMENT 'Whether it takes no transfers.',
  `opened_at` DATETIME(6) NOT NULL COMMENT 'Stamped time of the opening.',
  `changed_at` DATETIME(6) NOT NULL COMMENT 'Stamped time of the last change.',
  `shard` BIGINT NOT NULL COMMENT 'Shard whose log holds it.',
  `log_offset` BIGINT NOT NULL COMMENT 'Offset of the command that changed it last.',
  PRIMARY KEY (`tenant`, `book`, `account`),
  KEY `asset` (`tenant`, `book`, `asset`),
  CONSTRAINT `ledger_account__v1_b1_held` CHECK (`pending_in` >= 0 AND `pending_out` >= 0),
  CONSTRAINT `ledger_account__v1_b1_available` CHECK (`min_balance` IS NULL OR `balance` - `pending_out` >= `min_balance`),
  CONSTRAINT `ledger_account__v1_b1_room` CHECK (`max_balance` IS NULL OR `balance` + `pending_in` <= `max_balance`),
  CONSTRAINT `ledger_account__v1_b1_limits` CHECK ((`min_balance` IS NULL OR `min_balance` <= 0) AND (`max_balance` IS NULL OR `max_balance` >= 0)),
  CONSTRAINT `ledger_account__v1_b1_version` CHECK (`version` >= 1),
  CONSTRAINT `ledger_account__v1_b1_metadata_json` CHECK (JSON_VALID(`metadata`)),
  CONSTRAINT `ledger_account__v1_b1_closed_truth` CHECK (`closed` IN (0, 1))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Accounts as they stand.'
;
CREATE TABLE `ledger_transfer__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `transfer` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the transfer, hold or reversal.',
  `source` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Account that pays.',
  `target` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Account that is paid.',
  `amount` DECIMAL(38,0) NOT NULL COMMENT 'What moved, or what is held; above 0.',
  `status` VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'As booked: posted, pending (a hold) or reversal.',
  `code` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT 'The caller''s code; numbers as text.',
  `reference` VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT 'The caller''s reference.',
  `reverses` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT 'Transfer that a reversal moves back.',
  `hold_timeout_s` BIGINT COMMENT 'Life of a hold; 0 = no end.',
  `effective_at` DATETIME(6) NOT NULL COMMENT 'Business time: that of the command, else that of the booking.',
  `booked_at` DATETIME(6) NOT NULL COMMENT 'Stamped time of the booking.',
  `shard` BIGINT NOT NULL COMMENT 'Shard whose log holds it.',
  `log_offset` BIGINT NOT NULL COMMENT 'Offset of the command that booked it.',
  `event` BIGINT NOT NULL COMMENT 'Index of the event among those of its command.',
  `command_id` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Idempotency key of the command.',
  `principal` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Who sent the command.',
  `correlation_id` VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT 'The caller''s, if any.',
  PRIMARY KEY (`tenant`, `book`, `transfer`),
  KEY `booked` (`tenant`, `book`, `booked_at`),
  KEY `reference` (`tenant`, `book`, `reference`),
  CONSTRAINT `ledger_transfer__v1_b1_amount` CHECK (`amount` > 0),
  CONSTRAINT `ledger_transfer__v1_b1_sides` CHECK (`source` <> `target`),
  CONSTRAINT `ledger_transfer__v1_b1_status` CHECK (`status` IN ('posted', 'pending', 'reversal')),
  CONSTRAINT `ledger_transfer__v1_b1_reversal` CHECK ((`status` = 'reversal' AND `reverses` IS NOT NULL) OR (`status` <> 'reversal' AND `reverses` IS NULL)),
  CONSTRAINT `ledger_transfer__v1_b1_hold` CHECK ((`status` = 'pending' AND `hold_timeout_s` IS NOT NULL AND `hold_timeout_s` >= 0) OR (`status` <> 'pending' AND `hold_timeout_s` IS NULL))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Transfers, holds and reversals as booked; what became of a hold is in `hold`.'
;
CREATE TABLE `ledger_entry__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `account` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the account.',
  `version` BIGINT NOT NULL COMMENT 'The account''s version after it.',
  `transfer` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the transfer, hold or reversal.',
  `counterparty` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'The other account.',
  `amount` DECIMAL(38,0) NOT NULL COMMENT 'Added to the balance: below 0 when the account paid.',
  `balance` DECIMAL(38,0) NOT NULL COMMENT 'The running balance after it.',
  `effective_at` DATETIME(6) NOT NULL COMMENT 'Business time: that of the command, else that of the booking.',
  `booked_at` DATETIME(6) NOT NULL COMMENT 'Stamped time of the booking.',
  `shard` BIGINT NOT NULL COMMENT 'Shard whose log holds it.',
  `log_offset` BIGINT NOT NULL COMMENT 'Offset of the command that booked it.',
  `event` BIGINT NOT NULL COMMENT 'Index of the event among those of its command.',
  PRIMARY KEY (`tenant`, `book`, `account`, `version`, `booked_at`),
  KEY `effective` (`tenant`, `book`, `account`, `effective_at`),
  CONSTRAINT `ledger_entry__v1_b1_amount` CHECK (`amount` <> 0),
  CONSTRAINT `ledger_entry__v1_b1_sides` CHECK (`account` <> `counterparty`),
  CONSTRAINT `ledger_entry__v1_b1_version` CHECK (`version` >= 2)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Postings, two for each amount that moved, with running balances.'
PARTITION BY RANGE COLUMNS (`booked_at`)
(PARTITION `p_rest` VALUES LESS THAN (MAXVALUE))
;
CREATE TABLE `ledger_hold__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `transfer` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the transfer, hold or reversal.',
  `source` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Account that pays.',
  `target` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Account that is paid.',
  `amount` DECIMAL(38,0) NOT NULL COMMENT 'What it reserves, or reserved.',
  `posted_amount` DECIMAL(38,0) NOT NULL COMMENT 'What moved in the end; 0 while nothing did.',
  `status` VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'pending, posted, voided or expired.',
  `expires_at` DATETIME(6) COMMENT 'When it is over; null = it has no end.',
  `booked_at` DATETIME(6) NOT NULL COMMENT 'Stamped time of the booking.',
  `resolved_at` DATETIME(6) COMMENT 'When it ended; null while pending.',
  `shard` BIGINT NOT NULL COMMENT 'Shard whose log holds it.',
  `log_offset` BIGINT NOT NULL COMMENT 'Offset of the command that changed it last.',
  PRIMARY KEY (`tenant`, `book`, `transfer`),
  KEY `open` (`tenant`, `book`, `status`, `expires_at`),
  KEY `booked` (`tenant`, `book`, `booked_at`),
  KEY `resolved` (`tenant`, `book`, `resolved_at`),
  CONSTRAINT `ledger_hold__v1_b1_amount` CHECK (`amount` > 0),
  CONSTRAINT `ledger_hold__v1_b1_sides` CHECK (`source` <> `target`),
  CONSTRAINT `ledger_hold__v1_b1_status` CHECK (`status` IN ('pending', 'posted', 'voided', 'expired')),
  CONSTRAINT `ledger_hold__v1_b1_posted` CHECK ((`status` = 'posted' AND `posted_amount` > 0 AND `posted_amount` <= `amount`) OR (`status` <> 'posted' AND `posted_amount` = 0)),
  CONSTRAINT `ledger_hold__v1_b1_resolved` CHECK ((`status` = 'pending' AND `resolved_at` IS NULL) OR (`status` <> 'pending' AND `resolved_at` IS NOT NULL))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Holds and what became of them.'
;
CREATE TABLE `ledger_daily_balance__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `account` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the account.',
  `day` DATE NOT NULL COMMENT 'UTC day of the business time.',
  `paid_in` DECIMAL(57,0) NOT NULL COMMENT 'Sum of what came in on that day.',
  `paid_out` DECIMAL(57,0) NOT NULL COMMENT 'Sum of what went out on that day.',
  `entries` BIGINT NOT NULL COMMENT 'Postings on that day.',
  `debits` DECIMAL(57,0) NOT NULL COMMENT 'By how much they let it grow below 0, in the order in which they were booked.',
  PRIMARY KEY (`tenant`, `book`, `account`, `day`),
  KEY `day` (`day`, `tenant`, `book`),
  CONSTRAINT `ledger_daily_balance__v1_b1_paid` CHECK (`paid_in` >= 0 AND `paid_out` >= 0),
  CONSTRAINT `ledger_daily_balance__v1_b1_entries` CHECK (`entries` >= 1)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Turnover of accounts by business day.  A balance at the end of a day is the sum of all days up to it, in without out.'
;
CREATE TABLE `ledger_day_close__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `account` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the account.',
  `day` DATE NOT NULL COMMENT 'UTC day of the booking.',
  `balance` DECIMAL(38,0) NOT NULL COMMENT 'Balance after the last change of that day.',
  `version` BIGINT NOT NULL COMMENT 'Number of the last change of that day.',
  PRIMARY KEY (`tenant`, `book`, `account`, `day`),
  KEY `day` (`day`, `tenant`, `book`),
  CONSTRAINT `ledger_day_close__v1_b1_version` CHECK (`version` >= 1)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Accounts as they stood at the end of each day on which they were changed, by logged time.  At the end of any day an account stands as in its last row up to that day.'
;
CREATE TABLE `ledger_day_held__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `account` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the account.',
  `day` DATE NOT NULL COMMENT 'UTC day of the booking.',
  `pending_in` DECIMAL(38,0) NOT NULL COMMENT 'Held on its receiving side at the end of that day.',
  `pending_out` DECIMAL(38,0) NOT NULL COMMENT 'Held on its paying side then.',
  PRIMARY KEY (`tenant`, `book`, `account`, `day`),
  KEY `day` (`day`, `tenant`, `book`),
  CONSTRAINT `ledger_day_held__v1_b1_held` CHECK (`pending_in` >= 0 AND `pending_out` >= 0)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='What was held of accounts at the end of each day on which a hold of theirs began or ended.'
;
CREATE TABLE `ledger_late_account__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `account` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Id of the account.',
  `since` DATETIME(6) NOT NULL COMMENT 'Business time of its earliest late posting.',
  `until` DATETIME(6) NOT NULL COMMENT 'Latest business time before which one was late.',
  PRIMARY KEY (`tenant`, `book`, `account`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Accounts with late postings: booked after others of a later business time.'
;
CREATE TABLE `ledger_asset_booked__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `span` BIGINT NOT NULL COMMENT 'Seconds: 86400 a day, 60 a minute, 0 one moment.',
  `start` DATETIME(6) NOT NULL COMMENT 'First moment of the span.',
  `asset` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'CODE/scale, as in USD/2.',
  `accounts` BIGINT NOT NULL COMMENT 'Accounts opened.',
  `debits` DECIMAL(57,0) NOT NULL COMMENT 'By how much the sum of all balances below 0 grew.',
  `credits` DECIMAL(57,0) NOT NULL COMMENT 'By how much that of those above 0 grew: the same.',
  PRIMARY KEY (`tenant`, `book`, `span`, `start`, `asset`),
  CONSTRAINT `ledger_asset_booked__v1_b1_double_entry` CHECK (`debits` = `credits`),
  CONSTRAINT `ledger_asset_booked__v1_b1_accounts` CHECK (`accounts` >= 0)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Changes of assets by days, minutes and moments of booking; spans without any are absent.  A trial balance as recorded at a moment is the sum of the days before it, the minutes of its day before it and the moments of its minute up to it.'
;
CREATE TABLE `ledger_asset_shift__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `span` BIGINT NOT NULL COMMENT 'Seconds: 86400 a day, 60 a minute, 0 one moment.',
  `start` DATETIME(6) NOT NULL COMMENT 'First moment of the span.',
  `asset` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'CODE/scale, as in USD/2.',
  `debits` DECIMAL(57,0) NOT NULL COMMENT 'By how much the sum of all balances below 0 grew.',
  `credits` DECIMAL(57,0) NOT NULL COMMENT 'By how much that of those above 0 grew: the same.',
  PRIMARY KEY (`tenant`, `book`, `span`, `start`, `asset`),
  CONSTRAINT `ledger_asset_shift__v1_b1_double_entry` CHECK (`debits` = `credits`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='What to add to `asset_booked` for business time: postings of another business time count there, and not where they were booked.  Late ones change more (`late_account`).'
;
CREATE TABLE `ledger_asset_day__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `asset` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'CODE/scale, as in USD/2.',
  `day` DATE NOT NULL COMMENT 'UTC day of the business time.',
  `paid_in` DECIMAL(57,0) NOT NULL COMMENT 'Sum of what came in.',
  `paid_out` DECIMAL(57,0) NOT NULL COMMENT 'Sum of what went out: the same.',
  `entries` BIGINT NOT NULL COMMENT 'Postings.',
  `accounts` BIGINT NOT NULL COMMENT 'Accounts with postings.',
  PRIMARY KEY (`tenant`, `book`, `asset`, `day`),
  KEY `day` (`day`),
  CONSTRAINT `ledger_asset_day__v1_b1_double_entry` CHECK (`paid_in` = `paid_out`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Turnover of assets by business day.'
;
CREATE TABLE `ledger_asset_close__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `asset` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'CODE/scale, as in USD/2.',
  `day` DATE NOT NULL COMMENT 'UTC day of the booking.',
  `accounts` BIGINT NOT NULL COMMENT 'Accounts opened.',
  `debits` DECIMAL(57,0) NOT NULL COMMENT 'By how much the sum of all balances below 0 grew.',
  `credits` DECIMAL(57,0) NOT NULL COMMENT 'By how much that of those above 0 grew: the same.',
  PRIMARY KEY (`tenant`, `book`, `asset`, `day`),
  KEY `day` (`day`),
  CONSTRAINT `ledger_asset_close__v1_b1_double_entry` CHECK (`debits` = `credits`),
  CONSTRAINT `ledger_asset_close__v1_b1_accounts` CHECK (`accounts` >= 0)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Changes of assets by day of booking, from the balances of accounts at its end: what `asset_booked` has by what events say.'
;
CREATE TABLE `ledger_asset_held__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Tenant that owns the book.',
  `book` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'Book: the partition key of its commands.',
  `asset` VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL COMMENT 'CODE/scale, as in USD/2.',
  `day` DATE NOT NULL COMMENT 'UTC day of the booking.',
  `pending_debits` DECIMAL(57,0) NOT NULL COMMENT 'By how much grew what is held on paying sides.',
  `pending_credits` DECIMAL(57,0) NOT NULL COMMENT 'And on receiving sides: the same.',
  PRIMARY KEY (`tenant`, `book`, `asset`, `day`),
  KEY `day` (`day`),
  CONSTRAINT `ledger_asset_held__v1_b1_double_entry` CHECK (`pending_debits` = `pending_credits`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Changes of what is held, by day of booking: what was held at the end of a day is the sum of all days up to it.'
;
CREATE OR REPLACE VIEW `ledger_account__next` AS SELECT `tenant`, `book`, `account`, `asset`, `min_balance`, `max_balance`, `metadata`, `balance`, `pending_in`, `pending_out`, `version`, `closed`, `opened_at`, `changed_at`, `shard`, `log_offset` FROM `ledger_account__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_transfer__next` AS SELECT `tenant`, `book`, `transfer`, `source`, `target`, `amount`, `status`, `code`, `reference`, `reverses`, `hold_timeout_s`, `effective_at`, `booked_at`, `shard`, `log_offset`, `event`, `command_id`, `principal`, `correlation_id` FROM `ledger_transfer__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_entry__next` AS SELECT `tenant`, `book`, `account`, `version`, `transfer`, `counterparty`, `amount`, `balance`, `effective_at`, `booked_at`, `shard`, `log_offset`, `event` FROM `ledger_entry__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_hold__next` AS SELECT `tenant`, `book`, `transfer`, `source`, `target`, `amount`, `posted_amount`, `status`, `expires_at`, `booked_at`, `resolved_at`, `shard`, `log_offset` FROM `ledger_hold__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_daily_balance__next` AS SELECT `tenant`, `book`, `account`, `day`, `paid_in`, `paid_out`, `entries`, `debits` FROM `ledger_daily_balance__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_day_close__next` AS SELECT `tenant`, `book`, `account`, `day`, `balance`, `version` FROM `ledger_day_close__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_day_held__next` AS SELECT `tenant`, `book`, `account`, `day`, `pending_in`, `pending_out` FROM `ledger_day_held__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_late_account__next` AS SELECT `tenant`, `book`, `account`, `since`, `until` FROM `ledger_late_account__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_asset_booked__next` AS SELECT `tenant`, `book`, `span`, `start`, `asset`, `accounts`, `debits`, `credits` FROM `ledger_asset_booked__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_asset_shift__next` AS SELECT `tenant`, `book`, `span`, `start`, `asset`, `debits`, `credits` FROM `ledger_asset_shift__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_asset_day__next` AS SELECT `tenant`, `book`, `asset`, `day`, `paid_in`, `paid_out`, `entries`, `accounts` FROM `ledger_asset_day__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_asset_close__next` AS SELECT `tenant`, `book`, `asset`, `day`, `accounts`, `debits`, `credits` FROM `ledger_asset_close__v1_b1`
;
CREATE OR REPLACE VIEW `ledger_asset_held__next` AS SELECT `tenant`, `book`, `asset`, `day`, `pending_debits`, `pending_credits` FROM `ledger_asset_held__v1_b1`
;
RENAME TABLE `ledger_account__next` NOWAIT TO `ledger_account`, `ledger_transfer__next` TO `ledger_transfer`, `ledger_entry__next` TO `ledger_entry`, `ledger_hold__next` TO `ledger_hold`, `ledger_daily_balance__next` TO `ledger_daily_balance`, `ledger_day_close__next` TO `ledger_day_close`, `ledger_day_held__next` TO `ledger_day_held`, `ledger_late_account__next` TO `ledger_late_account`, `ledger_asset_booked__next` TO `ledger_asset_booked`, `ledger_asset_shift__next` TO `ledger_asset_shift`, `ledger_asset_day__next` TO `ledger_asset_day`, `ledger_asset_close__next` TO `ledger_asset_close`, `ledger_asset_held__next` TO `ledger_asset_held`
;
INSERT INTO `ledger_account__v1_b1` (`tenant`, `book`, `account`, `asset`, `min_balance`, `max_balance`, `metadata`, `balance`, `pending_in`, `pending_out`, `version`, `closed`, `opened_at`, `changed_at`, `shard`, `log_offset`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_account__v1_b1` (`tenant`, `book`, `account`, `asset`, `min_balance`, `max_balance`, `metadata`, `balance`, `pending_in`, `pending_out`, `version`, `closed`, `opened_at`, `changed_at`, `shard`, `log_offset`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `asset` = VALUES(`asset`), `min_balance` = VALUES(`min_balance`), `max_balance` = VALUES(`max_balance`), `metadata` = VALUES(`metadata`), `balance` = VALUES(`balance`), `pending_in` = VALUES(`pending_in`), `pending_out` = VALUES(`pending_out`), `version` = VALUES(`version`), `closed` = VALUES(`closed`), `opened_at` = VALUES(`opened_at`), `changed_at` = VALUES(`changed_at`), `shard` = VALUES(`shard`), `log_offset` = VALUES(`log_offset`)
;
UPDATE `ledger_account__v1_b1` SET `asset` = ?, `min_balance` = ?, `max_balance` = ?, `metadata` = ?, `balance` = ?, `pending_in` = ?, `pending_out` = ?, `version` = ?, `closed` = ?, `opened_at` = ?, `changed_at` = ?, `shard` = ?, `log_offset` = ? WHERE `tenant` = ? AND `book` = ? AND `account` = ?
;
INSERT INTO `ledger_transfer__v1_b1` (`tenant`, `book`, `transfer`, `source`, `target`, `amount`, `status`, `code`, `reference`, `reverses`, `hold_timeout_s`, `effective_at`, `booked_at`, `shard`, `log_offset`, `event`, `command_id`, `principal`, `correlation_id`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_entry__v1_b1` (`tenant`, `book`, `account`, `version`, `transfer`, `counterparty`, `amount`, `balance`, `effective_at`, `booked_at`, `shard`, `log_offset`, `event`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_hold__v1_b1` (`tenant`, `book`, `transfer`, `source`, `target`, `amount`, `posted_amount`, `status`, `expires_at`, `booked_at`, `resolved_at`, `shard`, `log_offset`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_hold__v1_b1` (`tenant`, `book`, `transfer`, `source`, `target`, `amount`, `posted_amount`, `status`, `expires_at`, `booked_at`, `resolved_at`, `shard`, `log_offset`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `source` = VALUES(`source`), `target` = VALUES(`target`), `amount` = VALUES(`amount`), `posted_amount` = VALUES(`posted_amount`), `status` = VALUES(`status`), `expires_at` = VALUES(`expires_at`), `booked_at` = VALUES(`booked_at`), `resolved_at` = VALUES(`resolved_at`), `shard` = VALUES(`shard`), `log_offset` = VALUES(`log_offset`)
;
UPDATE `ledger_hold__v1_b1` SET `source` = ?, `target` = ?, `amount` = ?, `posted_amount` = ?, `status` = ?, `expires_at` = ?, `booked_at` = ?, `resolved_at` = ?, `shard` = ?, `log_offset` = ? WHERE `tenant` = ? AND `book` = ? AND `transfer` = ?
;
INSERT INTO `ledger_daily_balance__v1_b1` (`tenant`, `book`, `account`, `day`, `paid_in`, `paid_out`, `entries`, `debits`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_daily_balance__v1_b1` (`tenant`, `book`, `account`, `day`, `paid_in`, `paid_out`, `entries`, `debits`) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `paid_in` = `ledger_daily_balance__v1_b1`.`paid_in` + VALUES(`paid_in`), `paid_out` = `ledger_daily_balance__v1_b1`.`paid_out` + VALUES(`paid_out`), `entries` = `ledger_daily_balance__v1_b1`.`entries` + VALUES(`entries`), `debits` = `ledger_daily_balance__v1_b1`.`debits` + VALUES(`debits`)
;
UPDATE `ledger_daily_balance__v1_b1` SET `paid_in` = `paid_in` + ?, `paid_out` = `paid_out` + ?, `entries` = `entries` + ?, `debits` = `debits` + ? WHERE `tenant` = ? AND `book` = ? AND `account` = ? AND `day` = ?
;
INSERT INTO `ledger_day_close__v1_b1` (`tenant`, `book`, `account`, `day`, `balance`, `version`) VALUES (?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_day_close__v1_b1` (`tenant`, `book`, `account`, `day`, `balance`, `version`) VALUES (?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `balance` = VALUES(`balance`), `version` = VALUES(`version`)
;
UPDATE `ledger_day_close__v1_b1` SET `balance` = ?, `version` = ? WHERE `tenant` = ? AND `book` = ? AND `account` = ? AND `day` = ?
;
INSERT INTO `ledger_day_held__v1_b1` (`tenant`, `book`, `account`, `day`, `pending_in`, `pending_out`) VALUES (?, ?, ?, ?, ?, ?)
;
INSERT INTO `ledger_day_held__v1_b1` (`tenant`, `book`, `account`, `day`, `pending_in`, `pending_out`) VALUES (?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `pending_in` = VALUES(`pending_in`), `pending_out` = VALUES(`pending_out`)
;
UPDATE `ledger_day_held__v1_b1` SET `pending_in` = ?, `pending_out` = ? WHERE `tenant` = ? AND `book` = ? AND `account` = ? AND `day` = ?
;
INSERT INTO `ledger_late_account__v1_b1` (`tenant`, `book`, `account`, `since`, `until`) VALUES (?, ?, ?, ?, ?)
;
INSERT INTO `ledger_late_account__v1_b1` (`tenant`, `book`, `account`, `since`, `until`) VALUES (?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `since` = LEAST(`ledger_late_account__v1_b1`.`since`, VALUES(`since`)), `until` = GREATEST(`ledger_late_account__v1_b1`.`until`, VALUES(`until`))
;
UPDATE `ledger_late_account__v1_b1` SET `since` = LEAST(`since`, ?), `until` = GREATEST(`until`, ?) WHERE `tenant` = ? AND `book` = ? AND `account` = ?
;
INSERT INTO `ledger_asset_booked__v1_b1` (`tenant`, `book`, `span`, `start`, `asset`, `accounts`, `debits`, `credits`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
;
SELECT `tenant`, `book`, `account`, `asset` FROM `ledger_account__v1_b1` WHERE (`tenant`, `book`, `account`) IN ((?, ?, ?), (?, ?, ?))
;
INSERT INTO `ledger_asset_booked__v1_b1` (`tenant`, `book`, `span`, `start`, `asset`, `accounts`, `debits`, `credits`) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `accounts` = `ledger_asset_booked__v1_b1`.`accounts` + VALUES(`accounts`), `debits` = `ledger_asset_booked__v1_b1`.`debits` + VALUES(`debits`), `credits` = `ledger_asset_booked__v1_b1`.`credits` + VALUES(`credits`)
;
UPDATE `ledger_asset_booked__v1_b1` SET `accounts` = `accounts` + ?, `debits` = `debits` + ?, `credits` = `credits` + ? WHERE `tenant` = ? AND `book` = ? AND `span` = ? AND `start` = ? AND `asset` = ?
;
INSERT INTO `ledger_asset_shift__v1_b1` (`tenant`, `book`, `span`, `start`, `asset`, `debits`, `credits`) VALUES (?, ?, ?, ?, ?, ?, ?)
;
SELECT `tenant`, `book`, `account`, `asset` FROM `ledger_account__v1_b1` WHERE (`tenant`, `book`, `account`) IN ((?, ?, ?), (?, ?, ?))
;
INSERT INTO `ledger_asset_shift__v1_b1` (`tenant`, `book`, `span`, `start`, `asset`, `debits`, `credits`) VALUES (?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `debits` = `ledger_asset_shift__v1_b1`.`debits` + VALUES(`debits`), `credits` = `ledger_asset_shift__v1_b1`.`credits` + VALUES(`credits`)
;
UPDATE `ledger_asset_shift__v1_b1` SET `debits` = `debits` + ?, `credits` = `credits` + ? WHERE `tenant` = ? AND `book` = ? AND `span` = ? AND `start` = ? AND `asset` = ?
;
DELETE FROM `ledger_asset_day__v1_b1` WHERE `day` IN (?, ?, ?)
;
INSERT INTO `ledger_asset_day__v1_b1` (`tenant`, `book`, `asset`, `day`, `paid_in`, `paid_out`, `entries`, `accounts`) SELECT d.`tenant`, d.`book`, a.`asset`, d.`day`, SUM(d.`paid_in`), SUM(d.`paid_out`), SUM(d.`entries`), COUNT(*) FROM (SELECT c.`tenant`, c.`book`, c.`account`, c.`day`, c.`paid_in`, c.`paid_out`, c.`entries` FROM `ledger_daily_balance__v1_b1` c WHERE `day` IN (?, ?, ?)) d JOIN `ledger_account__v1_b1` a ON a.`tenant` = d.`tenant` AND a.`book` = d.`book` AND a.`account` = d.`account` GROUP BY d.`tenant`, d.`book`, a.`asset`, d.`day`
;
DELETE FROM `ledger_asset_close__v1_b1` WHERE `day` IN (?, ?, ?)
;
INSERT INTO `ledger_asset_close__v1_b1` (`tenant`, `book`, `asset`, `day`, `accounts`, `debits`, `credits`) SELECT s.`tenant`, s.`book`, s.`asset`, s.`day`, SUM(s.`opened`), SUM((GREATEST(0 - s.`balance`, 0) - GREATEST(0 - s.`was`, 0))), SUM((GREATEST(s.`balance`, 0) - GREATEST(s.`was`, 0))) FROM (SELECT d.`tenant`, d.`book`, a.`asset`, d.`day`, d.`balance`, CASE WHEN p.`day` IS NULL THEN 1 ELSE 0 END AS `opened`, COALESCE(p.`balance`, 0) AS `was` FROM (SELECT c.`tenant`, c.`book`, c.`account`, c.`day`, c.`balance` FROM `ledger_day_close__v1_b1` c WHERE `day` IN (?, ?, ?)) d JOIN `ledger_account__v1_b1` a ON a.`tenant` = d.`tenant` AND a.`book` = d.`book` AND a.`account` = d.`account` LEFT JOIN `ledger_day_close__v1_b1` p ON p.`tenant` = d.`tenant` AND p.`book` = d.`book` AND p.`account` = d.`account` AND p.`day` = (SELECT MAX(q.`day`) FROM `ledger_day_close__v1_b1` q WHERE q.`tenant` = d.`tenant` AND q.`book` = d.`book` AND q.`account` = d.`account` AND q.`day` < d.`day`)) s GROUP BY s.`tenant`, s.`book`, s.`asset`, s.`day`
;
DELETE FROM `ledger_asset_held__v1_b1` WHERE `day` IN (?, ?, ?)
;
INSERT INTO `ledger_asset_held__v1_b1` (`tenant`, `book`, `asset`, `day`, `pending_debits`, `pending_credits`) SELECT s.`tenant`, s.`book`, s.`asset`, s.`day`, SUM((s.`pending_out` - s.`was_out`)), SUM((s.`pending_in` - s.`was_in`)) FROM (SELECT d.`tenant`, d.`book`, a.`asset`, d.`day`, d.`pending_out`, d.`pending_in`, COALESCE(p.`pending_out`, 0) AS `was_out`, COALESCE(p.`pending_in`, 0) AS `was_in` FROM (SELECT c.`tenant`, c.`book`, c.`account`, c.`day`, c.`pending_in`, c.`pending_out` FROM `ledger_day_held__v1_b1` c WHERE `day` IN (?, ?, ?)) d JOIN `ledger_account__v1_b1` a ON a.`tenant` = d.`tenant` AND a.`book` = d.`book` AND a.`account` = d.`account` LEFT JOIN `ledger_day_held__v1_b1` p ON p.`tenant` = d.`tenant` AND p.`book` = d.`book` AND p.`account` = d.`account` AND p.`day` = (SELECT MAX(q.`day`) FROM `ledger_day_held__v1_b1` q WHERE q.`tenant` = d.`tenant` AND q.`book` = d.`book` AND q.`account` = d.`account` AND q.`day` < d.`day`)) s GROUP BY s.`tenant`, s.`book`, s.`asset`, s.`day`
;
DROP TABLE IF EXISTS `ledger_account__v1_b1`
;
DROP TABLE IF EXISTS `ledger_transfer__v1_b1`
;
DROP TABLE IF EXISTS `ledger_entry__v1_b1`
;
DROP TABLE IF EXISTS `ledger_hold__v1_b1`
;
DROP TABLE IF EXISTS `ledger_daily_balance__v1_b1`
;
DROP TABLE IF EXISTS `ledger_day_close__v1_b1`
;
DROP TABLE IF EXISTS `ledger_day_held__v1_b1`
;
DROP TABLE IF EXISTS `ledger_late_account__v1_b1`
;
DROP TABLE IF EXISTS `ledger_asset_booked__v1_b1`
;
DROP TABLE IF EXISTS `ledger_asset_shift__v1_b1`
;
DROP TABLE IF EXISTS `ledger_asset_day__v1_b1`
;
DROP TABLE IF EXISTS `ledger_asset_close__v1_b1`
;
DROP TABLE IF EXISTS `ledger_asset_held__v1_b1`
;
CREATE TABLE `probe_fact__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `n` BIGINT NOT NULL,
  `amount` DECIMAL(38,0) NOT NULL,
  `total` DECIMAL(57,0) NOT NULL,
  `text` VARCHAR(4000) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `time` DATETIME(6) NOT NULL,
  `day` DATE NOT NULL,
  `flag` BOOLEAN NOT NULL,
  `json` LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `blob` VARBINARY(64) NOT NULL,
  `maybe_integer` BIGINT,
  `maybe_amount` DECIMAL(38,0),
  `maybe_text` VARCHAR(16) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin,
  `maybe_time` DATETIME(6),
  `maybe_day` DATE,
  `maybe_flag` BOOLEAN,
  `maybe_json` LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin,
  `maybe_blob` VARBINARY(64),
  PRIMARY KEY (`tenant`, `n`),
  KEY `by_text` (`tenant`, `maybe_text`),
  CONSTRAINT `probe_fact__v1_b1_room` CHECK (`maybe_amount` IS NULL OR `amount` - `maybe_amount` >= 0),
  CONSTRAINT `probe_fact__v1_b1_word` CHECK (`maybe_text` IS NULL OR `maybe_text` <> 'forbidden'),
  CONSTRAINT `probe_fact__v1_b1_json_json` CHECK (JSON_VALID(`json`)),
  CONSTRAINT `probe_fact__v1_b1_maybe_json_json` CHECK (JSON_VALID(`maybe_json`)),
  CONSTRAINT `probe_fact__v1_b1_flag_truth` CHECK (`flag` IN (0, 1)),
  CONSTRAINT `probe_fact__v1_b1_maybe_flag_truth` CHECK (`maybe_flag` IN (0, 1))
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='A fact with a value of every type, and one that may be null.'
;
CREATE TABLE `probe_visit__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `n` BIGINT NOT NULL,
  `at` DATETIME(6) NOT NULL,
  `shard` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `n`, `at`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Cut by months, kept for a month.'
PARTITION BY RANGE COLUMNS (`at`)
(PARTITION `p_rest` VALUES LESS THAN (MAXVALUE))
;
CREATE TABLE `probe_state__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `name` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `last` DECIMAL(38,0) NOT NULL,
  `note` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin,
  `paid` DECIMAL(57,0) NOT NULL,
  `count` BIGINT NOT NULL,
  `first` DATETIME(6) NOT NULL,
  `newest` DATETIME(6) NOT NULL,
  `lowest` DECIMAL(38,0) NOT NULL,
  `highest` DECIMAL(38,0) NOT NULL,
  PRIMARY KEY (`tenant`, `name`),
  KEY `newest` (`tenant`, `newest`),
  CONSTRAINT `probe_state__v1_b1_count` CHECK (`count` >= 0)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Every fold.'
;
CREATE TABLE `probe_known__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `name` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  PRIMARY KEY (`tenant`, `name`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='Nothing but a key.'
;
CREATE TABLE `probe_daily__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `name` VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `day` DATE NOT NULL,
  `paid_in` DECIMAL(57,0) NOT NULL,
  `paid_out` DECIMAL(57,0) NOT NULL,
  PRIMARY KEY (`tenant`, `name`, `day`),
  KEY `day` (`day`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT='What an aggregate is computed from.'
;
CREATE TABLE `probe_day_total__v1_b1` (
  `tenant` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL,
  `day` DATE NOT NULL,
  `paid_in` DECIMAL(57,0) NOT NULL,
  `paid_out` DECIMAL(57,0) NOT NULL,
  `names` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `day`),
  CONSTRAINT `probe_day_total__v1_b1_balanced` CHECK (`paid_in` = `paid_out`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin
;
CREATE OR REPLACE VIEW `probe_fact__next` AS SELECT `tenant`, `n`, `amount`, `total`, `text`, `time`, `day`, `flag`, `json`, `blob`, `maybe_integer`, `maybe_amount`, `maybe_text`, `maybe_time`, `maybe_day`, `maybe_flag`, `maybe_json`, `maybe_blob` FROM `probe_fact__v1_b1`
;
CREATE OR REPLACE VIEW `probe_visit__next` AS SELECT `tenant`, `n`, `at`, `shard` FROM `probe_visit__v1_b1`
;
CREATE OR REPLACE VIEW `probe_state__next` AS SELECT `tenant`, `name`, `last`, `note`, `paid`, `count`, `first`, `newest`, `lowest`, `highest` FROM `probe_state__v1_b1`
;
CREATE OR REPLACE VIEW `probe_known__next` AS SELECT `tenant`, `name` FROM `probe_known__v1_b1`
;
CREATE OR REPLACE VIEW `probe_daily__next` AS SELECT `tenant`, `name`, `day`, `paid_in`, `paid_out` FROM `probe_daily__v1_b1`
;
CREATE OR REPLACE VIEW `probe_day_total__next` AS SELECT `tenant`, `day`, `paid_in`, `paid_out`, `names` FROM `probe_day_total__v1_b1`
;
RENAME TABLE `probe_fact__next` NOWAIT TO `probe_fact`, `probe_visit__next` TO `probe_visit`, `probe_state__next` TO `probe_state`, `probe_known__next` TO `probe_known`, `probe_daily__next` TO `probe_daily`, `probe_day_total__next` TO `probe_day_total`
;
INSERT INTO `probe_fact__v1_b1` (`tenant`, `n`, `amount`, `total`, `text`, `time`, `day`, `flag`, `json`, `blob`, `maybe_integer`, `maybe_amount`, `maybe_text`, `maybe_time`, `maybe_day`, `maybe_flag`, `maybe_json`, `maybe_blob`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `probe_visit__v1_b1` (`tenant`, `n`, `at`, `shard`) VALUES (?, ?, ?, ?)
;
INSERT INTO `probe_state__v1_b1` (`tenant`, `name`, `last`, `note`, `paid`, `count`, `first`, `newest`, `lowest`, `highest`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
;
INSERT INTO `probe_state__v1_b1` (`tenant`, `name`, `last`, `note`, `paid`, `count`, `first`, `newest`, `lowest`, `highest`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `last` = VALUES(`last`), `note` = VALUES(`note`), `paid` = `probe_state__v1_b1`.`paid` + VALUES(`paid`), `count` = `probe_state__v1_b1`.`count` + VALUES(`count`), `first` = LEAST(`probe_state__v1_b1`.`first`, VALUES(`first`)), `newest` = GREATEST(`probe_state__v1_b1`.`newest`, VALUES(`newest`)), `lowest` = LEAST(`probe_state__v1_b1`.`lowest`, VALUES(`lowest`)), `highest` = GREATEST(`probe_state__v1_b1`.`highest`, VALUES(`highest`))
;
UPDATE `probe_state__v1_b1` SET `last` = ?, `note` = ?, `paid` = `paid` + ?, `count` = `count` + ?, `first` = LEAST(`first`, ?), `newest` = GREATEST(`newest`, ?), `lowest` = LEAST(`lowest`, ?), `highest` = GREATEST(`highest`, ?) WHERE `tenant` = ? AND `name` = ?
;
INSERT INTO `probe_known__v1_b1` (`tenant`, `name`) VALUES (?, ?)
;
INSERT INTO `probe_known__v1_b1` (`tenant`, `name`) VALUES (?, ?) ON DUPLICATE KEY UPDATE `tenant` = `probe_known__v1_b1`.`tenant`
;
INSERT INTO `probe_daily__v1_b1` (`tenant`, `name`, `day`, `paid_in`, `paid_out`) VALUES (?, ?, ?, ?, ?)
;
INSERT INTO `probe_daily__v1_b1` (`tenant`, `name`, `day`, `paid_in`, `paid_out`) VALUES (?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE `paid_in` = `probe_daily__v1_b1`.`paid_in` + VALUES(`paid_in`), `paid_out` = `probe_daily__v1_b1`.`paid_out` + VALUES(`paid_out`)
;
UPDATE `probe_daily__v1_b1` SET `paid_in` = `paid_in` + ?, `paid_out` = `paid_out` + ? WHERE `tenant` = ? AND `name` = ? AND `day` = ?
;
DELETE FROM `probe_day_total__v1_b1` WHERE `day` IN (?, ?, ?)
;
INSERT INTO `probe_day_total__v1_b1` (`tenant`, `day`, `paid_in`, `paid_out`, `names`) SELECT d.`tenant`, d.`day`, SUM(d.`paid_in`), SUM(d.`paid_out`), COUNT(*) FROM `probe_daily__v1_b1` d WHERE `day` IN (?, ?, ?) GROUP BY d.`tenant`, d.`day`
;
DROP TABLE IF EXISTS `probe_fact__v1_b1`
;
DROP TABLE IF EXISTS `probe_visit__v1_b1`
;
DROP TABLE IF EXISTS `probe_state__v1_b1`
;
DROP TABLE IF EXISTS `probe_known__v1_b1`
;
DROP TABLE IF EXISTS `probe_daily__v1_b1`
;
DROP TABLE IF EXISTS `probe_day_total__v1_b1`
;
