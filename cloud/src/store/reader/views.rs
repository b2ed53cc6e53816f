//! Devices, their states now and in the past, and the account of their numbers.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, params};
use weir_contract::Id;

use super::super::codec::read_boot;
use super::super::fold::{REPORT_COMMAND, REPORT_CONNECTION};
use super::super::types::{
    BootAccount, DeviceState, DeviceSummary, DevicesPage, LostRange, Origin, TIME_MS_MAX,
};
use super::super::{Damaged, Fault};
use super::history::{Kinds, Places, kinds};
use super::stretches::numbers;
use super::{device_id, name};
use crate::projection::beginning;
use crate::projection::boot::{Boot, NewEvent, Said, clock_of};
use crate::projection::device::{self, GatewayBoot, Report};
use crate::projection::registers::{COMMANDS_MAX, Stamp};
use crate::projection::runs::Runs;

pub fn devices(connection: &Connection, after: Option<&Id>, limit: usize) -> Result<DevicesPage, Fault> {
    let mut select =
        connection.prepare_cached("SELECT id, name FROM devices WHERE name > ? ORDER BY name LIMIT ?")?;
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let found: Vec<(i64, String)> = select
        .query_map(params![after.map_or("", |after| after.as_str()), more], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut gateways = Gateways { connection, at_ms: TIME_MS_MAX, known: HashMap::new() };
    let mut page = DevicesPage::default();
    for (id, device) in &found {
        if page.devices.len() == limit {
            page.next = page.devices.last().map(|summary| summary.device);
            break;
        }
        page.devices.push(summary(connection, *id, name(device)?, &mut gateways)?);
    }
    Ok(page)
}

fn summary(
    connection: &Connection,
    id: i64,
    device: Id,
    gateways: &mut Gateways<'_>,
) -> Result<DeviceSummary, Fault> {
    let boots = load_boots(connection, id)?.boots;
    let connections = reports(connection, id, REPORT_CONNECTION, TIME_MS_MAX)?;
    let latest = gateways.of(&connections)?;
    let state = device::state(device, None, &boots, &names(&connections), &[], &latest);
    Ok(DeviceSummary {
        device,
        heard: state.heard,
        connected: state.connection.map(|connection| connection.connected),
        last_event_at_ms: state.last_event_at_ms,
        last_received_at_ms: state.last_received_at_ms,
        firmware: state.firmware.map(|firmware| firmware.fw),
        boots: boots.len() as u64,
        account: state.account,
    })
}

pub fn state(connection: &Connection, device: &Id, at_ms: Option<u64>) -> Result<Option<DeviceState>, Fault> {
    let Some(id) = device_id(connection, device)? else { return Ok(None) };
    let up_to_ms = at_ms.unwrap_or(TIME_MS_MAX).min(TIME_MS_MAX);
    let loaded = load_boots(connection, id)?;
    let boots = match at_ms {
        None => loaded.boots,
        Some(_) => boots_at(connection, id, loaded, up_to_ms)?,
    };
    let connections = reports(connection, id, REPORT_CONNECTION, up_to_ms)?;
    let commands = reports(connection, id, REPORT_COMMAND, up_to_ms)?;
    let latest = Gateways { connection, at_ms: up_to_ms, known: HashMap::new() }.of(&connections)?;
    Ok(Some(device::state(*device, at_ms, &boots, &names(&connections), &names(&commands), &latest)))
}

/// What is known of a device's boots, by number, and their ordinals.
struct Boots {
    boots: BTreeMap<u64, Boot>,
    ordinals: BTreeMap<u64, u32>,
}

fn load_boots(connection: &Connection, device: i64) -> Result<Boots, Fault> {
    let mut select = connection.prepare_cached("SELECT ordinal, boot, state FROM boots WHERE device = ?")?;
    let mut rows = select.query([device])?;
    let mut loaded = Boots { boots: BTreeMap::new(), ordinals: BTreeMap::new() };
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(1)?.cast_unsigned();
        loaded.ordinals.insert(number, row.get(0)?);
        loaded.boots.insert(number, read_boot(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?);
    }
    Ok(loaded)
}

/// Boots as their events up to `at_ms` tell. Those that were over by then are taken as they are, those that had not begun are
/// left out, and only one that was going on is folded again. When boots began is taken as it is known now.
fn boots_at(
    connection: &Connection,
    device: i64,
    loaded: Boots,
    at_ms: u64,
) -> Result<BTreeMap<u64, Boot>, Fault> {
    let mut lost = lost_by(connection, device, at_ms)?;
    let mut boots = BTreeMap::new();
    let mut going_on = Vec::new();
    for (number, mut boot) in loaded.boots {
        boot.lost = lost.remove(&loaded.ordinals[&number]).unwrap_or_default();
        match boot.span_ms {
            Some((_, latest)) if latest <= at_ms => {}
            Some((earliest, _)) if earliest <= at_ms => {
                going_on.push(number);
                boot = before_its_events(boot);
            }
            // Nothing of it by then, but perhaps the news that something of it was lost.
            _ if !boot.lost.ranges().is_empty() => boot = before_its_events(boot),
            _ => continue,
        }
        boots.insert(number, boot);
    }
    if !going_on.is_empty() {
        let kinds = kinds(connection)?;
        let mut places = Places { connection, known: HashMap::new() };
        for number in going_on {
            let Some(boot) = boots.get_mut(&number) else { continue };
            replay(connection, (device, loaded.ordinals[&number]), at_ms, &kinds, &mut places, boot)?;
        }
    }
    Ok(boots)
}

/// A boot of which everything is still to come.
fn before_its_events(boot: Boot) -> Boot {
    Boot { beginning: boot.beginning, lost: boot.lost, later: boot.stored, ..Boot::default() }
}

/// Folds the events of a boot up to `at_ms` again.
fn replay(
    connection: &Connection,
    (device, ordinal): (i64, u32),
    at_ms: u64,
    kinds: &Kinds,
    places: &mut Places<'_>,
    boot: &mut Boot,
) -> Result<(), Fault> {
    let sql = "SELECT seq, at_ms, clock, kind, delay_ms, segment, body FROM events
               WHERE device = ? AND boot = ? AND seq BETWEEN ? AND ? AND at_ms <= ?";
    let mut select = connection.prepare_cached(sql)?;
    let mut heard: Option<(u64, i64)> = None;
    for (from, to) in numbers(connection, device, ordinal, (0, at_ms + 1))? {
        let mut rows = select.query(params![device, ordinal, from, to, at_ms.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let observed_ms = row.get::<_, i64>(1)?;
            let clock = clock_of(row.get(2)?).ok_or_else(|| Damaged::new("a clock".to_owned()))?;
            let (kind, version) = *kinds
                .get(&row.get(3)?)
                .ok_or_else(|| Damaged::new("a kind that is not there".to_owned()))?;
            let body = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
            let stamp = Stamp { seq: row.get(0)?, at_ms: observed_ms.cast_unsigned(), clock };
            boot.replay(&NewEvent { stamp, kind, version, body });
            let received_ms = observed_ms.saturating_add(row.get(4)?).max(0).cast_unsigned();
            heard = heard.max(Some((received_ms, row.get(5)?)));
        }
    }
    if let Some((received_ms, segment)) = heard {
        boot.heard = Some((received_ms, places.get(segment)?.place));
    }
    Ok(())
}

/// By ordinal of the boot: what the ledger said by `at_ms`.
fn lost_by(connection: &Connection, device: i64, at_ms: u64) -> Result<BTreeMap<u32, Runs<u32>>, Fault> {
    let sql = "SELECT boot, from_seq, to_seq FROM lost WHERE device = ? AND at_ms <= ?";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(params![device, at_ms.cast_signed()])?;
    let mut lost: BTreeMap<u32, Runs<u32>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        lost.entry(row.get(0)?).or_default().insert(row.get(1)?, row.get(2)?);
    }
    Ok(lost)
}

/// The last thing that each gateway said about a device by `at_ms`, in each of its boots; or, of commands, the latest few.
fn reports(connection: &Connection, device: i64, what: i64, at_ms: u64) -> Result<Vec<(i64, Report)>, Fault> {
    let which = match what {
        // The other columns are those of the row with the greatest seq.
        REPORT_CONNECTION => "GROUP BY reports.gateway, reports.boot".to_owned(),
        _ => format!("ORDER BY at_ms DESC, detail LIMIT {COMMANDS_MAX}"),
    };
    let seq = if what == REPORT_CONNECTION { "max(seq)" } else { "seq" };
    let sql = format!(
        "SELECT name, boots.boot, {seq}, at_ms, clock, connected, detail, reports.gateway
         FROM reports JOIN devices ON devices.id = reports.gateway
         JOIN boots ON boots.device = reports.gateway AND boots.ordinal = reports.boot
         WHERE reports.device = ? AND what = ? AND at_ms <= ? {which}"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let mut rows = select.query(params![device, what, at_ms.cast_signed()])?;
    let mut reports = Vec::new();
    while let Some(row) = rows.next()? {
        let detail: Box<str> = row.get(6)?;
        let said = match (what, row.get(5)?) {
            (REPORT_CONNECTION, true) => Said::Connected(detail),
            (REPORT_CONNECTION, false) => Said::Disconnected(detail),
            (_, false) => Said::Expired(detail),
            (_, true) => {
                let (id, reason) = detail.rsplit_once('\0').unwrap_or((&detail, ""));
                Said::Refused { id: id.into(), reason: reason.into() }
            }
        };
        let origin = Origin {
            boot: row.get::<_, i64>(1)?.cast_unsigned(),
            seq: row.get(2)?,
            at_ms: row.get::<_, i64>(3)?.cast_unsigned(),
            clock: clock_of(row.get(4)?).ok_or_else(|| Damaged::new("a clock".to_owned()))?,
        };
        let gateway = name(&row.get::<_, String>(0)?)?;
        reports.push((row.get(7)?, Report { gateway, origin, said }));
    }
    Ok(reports)
}

fn names(reports: &[(i64, Report)]) -> Vec<Report> {
    reports.iter().map(|(_, report)| report.clone()).collect()
}

/// The boots of gateways in their order, looked up once each.
struct Gateways<'c> {
    connection: &'c Connection,
    at_ms: u64,
    known: HashMap<i64, GatewayBoot>,
}

impl Gateways<'_> {
    fn of(&mut self, reports: &[(i64, Report)]) -> Result<BTreeMap<Id, GatewayBoot>, Fault> {
        let mut latest = BTreeMap::new();
        for (id, report) in reports {
            if let Some(boot) = self.latest_boot(*id)? {
                latest.insert(report.gateway, boot);
            }
        }
        Ok(latest)
    }

    fn latest_boot(&mut self, gateway: i64) -> Result<Option<GatewayBoot>, Fault> {
        if let Some(known) = self.known.get(&gateway) {
            return Ok(Some(*known));
        }
        let boots = load_boots(self.connection, gateway)?.boots;
        let begun =
            boots.iter().filter(|(_, boot)| boot.span_ms.is_some_and(|(from_ms, _)| from_ms <= self.at_ms));
        let order = beginning::in_order(begun.map(|(&number, boot)| (number, &boot.beginning)));
        let latest =
            order.last().map(|&boot| GatewayBoot { boot, began_at_ms: boots[&boot].beginning.known_ms() });
        if let Some(latest) = latest {
            self.known.insert(gateway, latest);
        }
        Ok(latest)
    }
}

pub fn boots(connection: &Connection, device: &Id) -> Result<Option<Vec<BootAccount>>, Fault> {
    let Some(id) = device_id(connection, device)? else { return Ok(None) };
    let Boots { boots, ordinals } = load_boots(connection, id)?;
    let mut rows: HashMap<u32, i64> = connection
        .prepare_cached("SELECT boot, count(*) FROM events WHERE device = ? GROUP BY boot")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut ledger = ledger(connection, id)?;
    let order = beginning::in_order(boots.iter().map(|(&number, boot)| (number, &boot.beginning)));
    let account = |number: u64| {
        let (boot, ordinal) = (&boots[&number], ordinals[&number]);
        let ledger = ledger.remove(&ordinal).unwrap_or_default();
        BootAccount {
            boot: number,
            began_at_ms: boot.beginning.known_ms(),
            stored: boot.stored.ranges().to_vec(),
            told_lost: ledger.iter().map(|lost| u64::from(lost.to - lost.from) + 1).sum(),
            lost: effective(&boot.stored, ledger),
            missing: boot.missing().ranges().to_vec(),
            rows: rows.remove(&ordinal).unwrap_or(0).cast_unsigned(),
            duplicates: boot.duplicates,
        }
    };
    Ok(Some(order.into_iter().map(account).collect()))
}

/// By ordinal of the boot: the ledger's entries.
fn ledger(connection: &Connection, device: i64) -> Result<HashMap<u32, Vec<LostRange>>, Fault> {
    let sql = "SELECT boot, from_seq, to_seq, reason, name FROM lost JOIN devices ON devices.id = teller
               WHERE device = ? ORDER BY boot, lost.at_ms, name, from_seq, to_seq";
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query([device])?;
    let mut ledger: HashMap<u32, Vec<LostRange>> = HashMap::new();
    while let Some(row) = rows.next()? {
        let by = name(&row.get::<_, String>(4)?)?;
        let range = LostRange { from: row.get(1)?, to: row.get(2)?, reason: row.get(3)?, by };
        ledger.entry(row.get(0)?).or_default().push(range);
    }
    Ok(ledger)
}

/// What the ledger says less what is stored all the same; a number that several entries name belongs to the earliest.
fn effective(stored: &Runs<u32>, ledger: Vec<LostRange>) -> Vec<LostRange> {
    let mut accounted = stored.clone();
    let mut lost = Vec::new();
    for entry in ledger {
        let range: Runs<u32> = [(entry.from, entry.to)].into_iter().collect();
        for &(from, to) in range.minus(&accounted).ranges() {
            lost.push(LostRange { from, to, ..entry.clone() });
        }
        accounted.insert(entry.from, entry.to);
    }
    lost.sort_by_key(|range| range.from);
    lost
}
