//! What the store answers, in the API's shapes.

use super::{
    AppliedConfig, Boot, Command, DeadLetter, Device, Devices, Event, Firmware, Gateway, Limit, Lost, Opaque,
    Origin, Sensor, State, Store, Time,
};
use crate::api::json::{Json, base64url};
use crate::store::types as store;

impl From<store::DevicesPage> for Devices {
    fn from(page: store::DevicesPage) -> Self {
        Devices {
            devices: page.devices.into_iter().map(Device::from).collect(),
            next: page.next.map(|device| device.to_string()),
        }
    }
}

impl From<store::DeviceSummary> for Device {
    fn from(summary: store::DeviceSummary) -> Self {
        Device {
            device: summary.device.to_string(),
            site: summary.heard.map(|place| place.site.to_string()),
            gateway: summary.heard.map(|place| place.gateway.to_string()),
            connected: summary.connected,
            last_event_at: summary.last_event_at_ms.map(Time),
            last_received_at: summary.last_received_at_ms.map(Time),
            firmware: summary.firmware,
            boots: summary.boots,
            events: summary.account.events,
            lost: summary.account.lost,
            missing: summary.account.missing,
        }
    }
}

impl From<store::Origin> for Origin {
    fn from(origin: store::Origin) -> Self {
        Origin {
            at: Time(origin.at_ms),
            clock: origin.clock.as_str().to_owned(),
            boot: Opaque(origin.boot),
            seq: origin.seq,
        }
    }
}

impl From<store::DeviceState> for State {
    fn from(state: store::DeviceState) -> Self {
        let connection = state.connection.as_ref();
        State {
            device: state.device.to_string(),
            at: state.at_ms.map(Time),
            site: state.heard.map(|place| place.site.to_string()),
            gateway: state.heard.map(|place| place.gateway.to_string()),
            connected: connection.map(|connection| connection.connected),
            connection_changed_at: connection.map(|connection| Time(connection.changed_at_ms)),
            connection_gateway: connection.map(|connection| connection.gateway.to_string()),
            connection_detail: connection.map(|connection| connection.detail.clone()),
            firmware: state.firmware.map(Firmware::from),
            boot: state.boot.map(Opaque),
            sensors: state
                .sensors
                .into_iter()
                .map(|(name, sensor)| (name.to_string(), sensor.into()))
                .collect(),
            config: state.config.map(AppliedConfig::from),
            commands: state.commands.into_iter().map(Command::from).collect(),
            events: state.account.events,
            lost: state.account.lost,
            missing: state.account.missing,
            last_event_at: state.last_event_at_ms.map(Time),
            last_received_at: state.last_received_at_ms.map(Time),
        }
    }
}

impl From<store::Firmware> for Firmware {
    fn from(firmware: store::Firmware) -> Self {
        Firmware { fw: firmware.fw, hw: firmware.hw, reason: firmware.reason, origin: firmware.origin.into() }
    }
}

impl From<store::Value> for Json {
    fn from(value: store::Value) -> Self {
        match value {
            store::Value::Int(number) => Json::integer(number),
            store::Value::Float(number) => Json::float(number),
            store::Value::Bool(yes) => Json::Bool(yes),
            store::Value::Text(text) => Json::Text(text),
        }
    }
}

impl From<store::Sensor> for Sensor {
    fn from(sensor: store::Sensor) -> Self {
        let limit = sensor.limit.map(|limit| Limit {
            value: Json::float(limit.value),
            limit: Json::float(limit.limit),
            rising: limit.rising,
            origin: limit.origin.into(),
        });
        let Some(reading) = sensor.reading else {
            return Sensor {
                value: Json::Null,
                unit: None,
                at: None,
                clock: None,
                boot: None,
                seq: None,
                limit,
            };
        };
        let origin = Origin::from(reading.origin);
        Sensor {
            value: reading.value.into(),
            unit: reading.unit,
            at: Some(origin.at),
            clock: Some(origin.clock),
            boot: Some(origin.boot),
            seq: Some(origin.seq),
            limit,
        }
    }
}

impl From<store::AppliedConfig> for AppliedConfig {
    fn from(applied: store::AppliedConfig) -> Self {
        AppliedConfig {
            revision: Json::natural(applied.revision),
            config: Json::from_cbor(&applied.config),
            origin: applied.origin.into(),
        }
    }
}

impl From<store::CommandState> for Command {
    fn from(command: store::CommandState) -> Self {
        Command {
            id: command.id,
            outcome: command.outcome.to_owned(),
            reason: command.reason,
            result: command.result.as_deref().map(Json::from_cbor),
            origin: command.origin.into(),
        }
    }
}

impl From<store::StoredEvent> for Event {
    fn from(event: store::StoredEvent) -> Self {
        Event {
            device: event.device.to_string(),
            boot: Opaque(event.boot),
            seq: event.seq,
            at: Time(event.at_ms),
            clock: event.clock.as_str().to_owned(),
            received_at: Time(event.received_at_ms),
            logged_at: Time(event.logged_at_ms),
            kind: event.kind.to_string(),
            version: event.version,
            body: Json::from_cbor(&event.body),
            site: event.place.site.to_string(),
            gateway: event.place.gateway.to_string(),
            incarnation: Opaque(event.incarnation),
            number: event.number,
            stream_sequence: event.stream_sequence,
        }
    }
}

impl From<store::BootAccount> for Boot {
    fn from(account: store::BootAccount) -> Self {
        Boot {
            boot: Opaque(account.boot),
            began_at: account.began_at_ms.map(Time),
            stored: account.stored,
            lost: account.lost.into_iter().map(Lost::from).collect(),
            told_lost: account.told_lost,
            missing: account.missing,
            events: account.rows,
            duplicates: account.duplicates,
        }
    }
}

impl From<store::LostRange> for Lost {
    fn from(lost: store::LostRange) -> Self {
        Lost { from: lost.from, to: lost.to, reason: lost.reason, by: lost.by.to_string() }
    }
}

impl From<store::DeadLetter> for DeadLetter {
    fn from(letter: store::DeadLetter) -> Self {
        DeadLetter {
            id: letter.id,
            stream_sequence: letter.stream_sequence,
            logged_at: Time(letter.logged_at_ms),
            subject: letter.subject,
            number: letter.number,
            device: letter.device.map(|device| device.to_string()),
            boot: letter.event.map(|(boot, _)| Opaque(boot)),
            seq: letter.event.map(|(_, seq)| seq),
            reason: letter.reason,
            bytes: base64url(&letter.bytes),
        }
    }
}

impl From<store::StoreStatus> for Store {
    fn from(status: store::StoreStatus) -> Self {
        Store {
            devices: status.devices,
            events: status.events,
            duplicates: status.duplicates,
            dead_letters: status.dead_letters,
            file_bytes: status.file_bytes,
            gateways: status.gateways.into_iter().map(Gateway::from).collect(),
        }
    }
}

impl From<store::GatewayStatus> for Gateway {
    fn from(status: store::GatewayStatus) -> Self {
        Gateway {
            site: status.place.site.to_string(),
            gateway: status.place.gateway.to_string(),
            lane: status.lane.to_string(),
            incarnation: Opaque(status.incarnation),
            last_number: status.last_number,
            missing: status.missing,
            missing_count: status.missing_count,
            last_logged_at: Time(status.last_logged_at_ms),
        }
    }
}
