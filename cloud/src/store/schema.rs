//! The tables.
//!
//! - Uniqueness of events is not the database's task: the set of stored numbers of each boot (in `boots.state`) says whether an
//!   event is new. `events` is one B-tree, in the order in which history is told: by boot and number, never by time, which only
//!   estimates that order where a device has no clock. A boot's events lie together and arrive at its end, so however large
//!   the table, only one warm page per active device is written to.
//! - `stretches` leads from a time to the numbers of the events around it, as a zone map: exact however little times follow
//!   numbers, and small.
//! - What the uplinks of one segment have in common is in `segments`, once.
//! - Ids are small integers, given in order of arrival; they never leave the store.
//! - 64-bit numbers (`boot`, `incarnation`) are kept as the signed number of the same bits.

/// `PRAGMA user_version` of a store that this code understands.
pub const VERSION: i64 = 1;
/// `PRAGMA application_id`: "Weir".
pub const APPLICATION_ID: i64 = 0x5765_6972;

/// Numbers of a boot that share a row of `stretches`.
pub const STRETCH: u32 = 512;

/// Makes the tables.
pub const CREATE: &str = "
-- The streams that have been folded: the present one, and those that it has replaced.
CREATE TABLE logs (
  id INTEGER PRIMARY KEY,
  stream TEXT NOT NULL,
  created_ns INTEGER NOT NULL,
  UNIQUE (stream, created_ns)
) STRICT;

-- Up to where; one row.
CREATE TABLE position (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  log INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  logged_ns INTEGER NOT NULL
) STRICT;

-- Sums over everything; one row.
CREATE TABLE totals (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  events INTEGER NOT NULL,
  duplicates INTEGER NOT NULL,
  dead_letters INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, 0);

-- Spools of gateways, and which of their uplinks have arrived.
CREATE TABLE spools (
  id INTEGER PRIMARY KEY,
  site TEXT NOT NULL,
  gateway TEXT NOT NULL,
  lane TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  numbers BLOB NOT NULL,
  logged_ns INTEGER NOT NULL,
  UNIQUE (site, gateway, lane, incarnation)
) STRICT;

CREATE TABLE segments (
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  logged_ns INTEGER NOT NULL,
  spool INTEGER NOT NULL,
  first INTEGER NOT NULL
) STRICT;

CREATE TABLE devices (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

-- `ordinal` is the boot's short name within the device: 1, 2, 3 in order of arrival.
CREATE TABLE boots (
  device INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  boot INTEGER NOT NULL,
  state BLOB NOT NULL,
  PRIMARY KEY (device, ordinal)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX boots_by_number ON boots (device, boot);

CREATE TABLE kinds (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  UNIQUE (name, version)
) STRICT;

CREATE TABLE events (
  device INTEGER NOT NULL,
  boot INTEGER NOT NULL,        -- ordinal
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  clock INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  delay_ms INTEGER NOT NULL,    -- received less at_ms
  segment INTEGER NOT NULL,
  place INTEGER NOT NULL,       -- of the uplink in its segment, from 0
  body BLOB NOT NULL,
  PRIMARY KEY (device, boot, seq)
) STRICT, WITHOUT ROWID;

-- Between which times the events of a boot were observed, for each stretch of numbers.
CREATE TABLE stretches (
  device INTEGER NOT NULL,
  boot INTEGER NOT NULL,        -- ordinal
  stretch INTEGER NOT NULL,     -- seq divided by the stretch's length
  earliest_ms INTEGER NOT NULL,
  latest_ms INTEGER NOT NULL,
  PRIMARY KEY (device, boot, stretch)
) STRICT, WITHOUT ROWID;

-- The ledger: numbers of a boot that are gone, and the event that says so.
CREATE TABLE lost (
  device INTEGER NOT NULL,
  boot INTEGER NOT NULL,        -- ordinal
  from_seq INTEGER NOT NULL,
  to_seq INTEGER NOT NULL,
  teller INTEGER NOT NULL,      -- device
  teller_boot INTEGER NOT NULL, -- ordinal
  teller_seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (device, boot, from_seq, to_seq, teller, teller_boot, teller_seq)
) STRICT, WITHOUT ROWID;

-- What gateways say of devices.
CREATE TABLE reports (
  device INTEGER NOT NULL,
  what INTEGER NOT NULL,        -- 0 connected or disconnected, 1 command expired or refused
  gateway INTEGER NOT NULL,     -- device
  boot INTEGER NOT NULL,        -- ordinal, of the gateway
  seq INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  clock INTEGER NOT NULL,
  connected INTEGER NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (device, what, gateway, boot, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  logged_ns INTEGER NOT NULL,
  subject TEXT NOT NULL,
  number INTEGER,
  device TEXT,
  boot INTEGER,
  seq INTEGER,
  reason TEXT NOT NULL,
  bytes BLOB NOT NULL
) STRICT;
";
