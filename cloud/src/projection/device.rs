//! The state of a device: its boots laid over each other in the order in which they happened, and what gateways say of it.

use std::collections::{BTreeMap, HashSet};

use weir_contract::Id;
use weir_contract::body::Outcome;

use super::beginning;
use super::boot::{Boot, Said};
use super::registers::{Answered, COMMANDS_MAX, Told};
use crate::store::types::{
    Account, AppliedConfig, CommandState, Connection, DeviceState, Firmware, Limit, Origin, Reading,
};

/// What a gateway said of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The gateway.
    pub gateway: Id,
    /// Where the event that says so stands among the gateway's events.
    pub origin: Origin,
    /// What it says.
    pub said: Said,
}

/// What is known of the latest boot of a gateway at the moment in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayBoot {
    /// The boot.
    pub boot: u64,
    /// When it began, if that is known.
    pub began_at_ms: Option<u64>,
}

/// Lays `boots` over each other, adds what gateways say, and tells the state `at_ms` (`None` for now).
///
/// `connections` holds the last thing that each gateway said of the device's connection, in each of the gateway's boots;
/// `expired` the commands that gateways say were not answered in time; `gateways` the latest boot of every gateway in
/// `connections`: a connection that it reported in an earlier one did not outlive it.
pub fn state(
    device: Id,
    at_ms: Option<u64>,
    boots: &BTreeMap<u64, Boot>,
    connections: &[Report],
    expired: &[Report],
    gateways: &BTreeMap<Id, GatewayBoot>,
) -> DeviceState {
    let order = beginning::in_order(boots.iter().map(|(&number, boot)| (number, &boot.beginning)));
    let mut state = DeviceState {
        device,
        at_ms,
        heard: boots.values().filter_map(|boot| boot.heard).max().map(|(_, place)| place),
        connection: connection(connections, gateways),
        firmware: None,
        boot: None,
        sensors: BTreeMap::new(),
        config: None,
        commands: Vec::new(),
        account: Account::default(),
        last_event_at_ms: boots.values().filter_map(|boot| boot.span_ms).map(|(_, latest)| latest).max(),
        last_received_at_ms: boots
            .values()
            .filter_map(|boot| boot.heard)
            .map(|(received_ms, _)| received_ms)
            .max(),
    };
    for &number in &order {
        lay_over(&mut state, number, &boots[&number]);
    }
    state.commands = commands(boots, &order, expired);
    state
}

/// The events of a boot come after those of all boots laid before it.
fn lay_over(state: &mut DeviceState, number: u64, boot: &Boot) {
    let account = boot.account();
    state.account.events += account.events;
    state.account.lost += account.lost;
    state.account.missing += account.missing;
    if account.events > 0 {
        state.boot = Some(number);
    }
    let registers = &boot.registers;
    for (sensor, told) in registers.readings.iter() {
        let (value, unit) = (told.what.value.clone(), told.what.unit.as_deref().map(str::to_owned));
        let reading = Reading { value, unit, origin: told.stamp.of(number) };
        state.sensors.entry(*sensor).or_default().reading = Some(reading);
    }
    for (sensor, told) in registers.limits.iter() {
        let (crossed, origin) = (told.what, told.stamp.of(number));
        let limit = Limit { value: crossed.value, limit: crossed.limit, rising: crossed.rising, origin };
        state.sensors.entry(*sensor).or_default().limit = Some(limit);
    }
    if let Some(told) = &registers.started {
        let [fw, hw, reason] = [&told.what.fw, &told.what.hw, &told.what.reason].map(|text| text.to_string());
        state.firmware = Some(Firmware { fw, hw, reason, origin: told.stamp.of(number) });
    }
    if let Some(told) = &registers.config {
        let (revision, config) = (told.what.revision, told.what.config.to_vec());
        state.config = Some(AppliedConfig { revision, config, origin: told.stamp.of(number) });
    }
}

/// What became of the latest commands, latest first. A gateway's word that one expired or was refused counts until the device says how
/// it ended.
fn commands(boots: &BTreeMap<u64, Boot>, order: &[u64], expired: &[Report]) -> Vec<CommandState> {
    let mut seen = HashSet::new();
    let mut commands = Vec::new();
    for number in order.iter().rev() {
        let mut answers: Vec<_> = boots[number].registers.commands.iter().collect();
        answers.sort_unstable_by_key(|(_, told)| std::cmp::Reverse(told.stamp.seq));
        for (id, told) in answers {
            if seen.insert(&**id) {
                commands.push(answered(id, told, *number));
            }
        }
    }
    let mut unanswered = Vec::new();
    for report in expired {
        let (id, outcome, reason) = match &report.said {
            Said::Expired(id) => (id, "expired", None),
            Said::Refused { id, reason } => (id, "refused", Some(reason.to_string())),
            Said::Connected(_) | Said::Disconnected(_) => continue,
        };
        let state = || CommandState {
            id: id.to_string(),
            outcome,
            reason: reason.clone(),
            result: None,
            origin: report.origin,
        };
        match commands.iter_mut().find(|command| *command.id == **id) {
            Some(command) if command.outcome == "accepted" => *command = state(),
            Some(_) => {}
            None if seen.insert(id) => unanswered.push(state()),
            None => {}
        }
    }
    commands.extend(unanswered);
    commands.sort_by_key(|command| std::cmp::Reverse(command.origin.at_ms));
    commands.truncate(COMMANDS_MAX);
    commands
}

fn answered(id: &str, told: &Told<Answered>, boot: u64) -> CommandState {
    CommandState {
        id: id.to_owned(),
        outcome: match told.what.outcome {
            Outcome::Accepted => "accepted",
            Outcome::Completed => "completed",
            Outcome::Failed => "failed",
        },
        reason: told.what.reason.as_deref().map(str::to_owned),
        result: told.what.result.as_deref().map(<[u8]>::to_vec),
        origin: told.stamp.of(boot),
    }
}

/// A device is connected if any gateway has a connection with it. A gateway that went down without a word took its
/// connections with it: what it said in an earlier boot than its latest is over.
fn connection(reports: &[Report], gateways: &BTreeMap<Id, GatewayBoot>) -> Option<Connection> {
    let told = reports.iter().filter_map(|report| {
        let (connected, detail) = match &report.said {
            Said::Connected(address) => (true, address),
            Said::Disconnected(reason) => (false, reason),
            Said::Expired(_) | Said::Refused { .. } => return None,
        };
        let changed_at_ms = report.origin.at_ms;
        let told =
            Connection { connected, gateway: report.gateway, changed_at_ms, detail: detail.to_string() };
        match gateways.get(&report.gateway) {
            Some(latest) if connected && latest.boot != report.origin.boot => Some(Connection {
                connected: false,
                changed_at_ms: latest.began_at_ms.unwrap_or(0).max(changed_at_ms),
                detail: "the gateway has restarted".to_owned(),
                ..told
            }),
            _ => Some(told),
        }
    });
    told.max_by_key(|told| (told.connected, told.changed_at_ms, told.gateway))
}
