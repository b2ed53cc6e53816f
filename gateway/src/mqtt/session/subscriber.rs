//! The session as a subscriber: what it asked for, what it is sent, what it has acknowledged.

use rumqttd::protocol::{Filter, Publish, RetainForwardRule};
use weir_contract::time;
use weir_contract::topic::{self, Topic};

use super::{Outside, Session};
use crate::mqtt::frame::Frame;
use crate::mqtt::local::Delivery;
use crate::mqtt::reason::Reason;
use crate::mqtt::{answer, codec, topics};

/// Messages for a subscriber that the router has on the way at a time.
const ROUTER_INFLIGHT_MAX: u16 = 100;
/// A subscriber that has this much to read gets no more until it has read.
pub(in crate::mqtt) const OUT_BYTES_MAX: usize = 64 * 1024;

/// Packet identifiers of commands; the router's are 1 to [`ROUTER_INFLIGHT_MAX`].
const COMMAND_PACKET_IDS: u16 = 0x8000;

#[derive(Debug)]
pub(super) struct Subscription {
    filter: Box<str>,
    qos: u8,
    routed: bool,
    no_local: bool,
    retain_as_published: bool,
    no_retained: bool,
}

/// A message the router waits to have acknowledged.
#[derive(Debug)]
pub(super) struct Sent {
    packet_id: u16,
    acknowledged: bool,
}

impl<T: Copy + Ord> Session<T> {
    /// Whether another message from the router can be written.
    pub fn can_deliver(&self) -> bool {
        self.unacknowledged < self.abilities.receive_max.min(ROUTER_INFLIGHT_MAX)
            && self.out.len() < OUT_BYTES_MAX
    }

    /// Writes a message from the router, unless the subscription's options or the client's limits are against it.
    pub fn deliver(&mut self, delivery: Delivery, outside: &mut impl Outside<Ticket = T>) {
        let Delivery { mut publish, properties, packet_id, .. } = delivery;
        let topic = publish.topic.clone();
        let topic = std::str::from_utf8(&topic).unwrap_or_default();
        let own = delivery.origin == self.number;
        let (mut wanted, mut retain) = (false, delivery.from_retained);
        for subscription in
            self.subscriptions.iter().filter(|one| one.routed && topics::matches(&one.filter, topic))
        {
            wanted |= !(own && subscription.no_local || delivery.from_retained && subscription.no_retained);
            retain |= delivery.retain_published && subscription.retain_as_published;
        }
        let qos = if packet_id.is_some() { delivery.qos_published } else { 0 };
        let before = self.out.len();
        if wanted {
            publish.retain = retain;
            if qos == 0 {
                publish = Publish::new(publish.topic, publish.payload, retain);
            }
            let written = codec::write_publish(&mut self.out, self.abilities.version, publish, properties);
            // MQTT 5, 3.1.2.11.4: what is too long for the client is dropped as if it had been sent.
            if written.is_err() || self.out.len() - before > self.abilities.packet_bytes_max {
                self.out.truncate(before);
            }
        }
        if let Some(packet_id) = packet_id {
            let on_the_way = qos == 1 && self.out.len() > before;
            self.unacknowledged += u16::from(on_the_way);
            self.deliveries.push_back(Sent { packet_id, acknowledged: !on_the_way });
            self.settle(outside);
        }
    }

    /// Whether a command can be written: one at a time, so that it cannot overtake another.
    pub fn can_command(&self) -> bool {
        self.command.is_none() && self.can_deliver()
    }

    /// Writes a command to the device, with the QoS it has subscribed with.
    pub fn command(&mut self, payload: &[u8]) {
        let Some(topic) = self.client.device.as_ref().map(topic::commands) else { return };
        let own = self.subscriptions.iter().filter(|one| topics::matches(&one.filter, &topic));
        let Some(qos) = own.map(|one| one.qos).max() else { return };
        let before = self.out.len();
        let packet_id = (qos > 0).then_some(COMMAND_PACKET_IDS | self.commands);
        answer::publish(&mut self.out, self.abilities.version, &topic, packet_id, payload);
        if self.out.len() - before > self.abilities.packet_bytes_max {
            // MQTT 5, 3.1.2.11.4. The command expires, and that is told.
            self.out.truncate(before);
            return;
        }
        if packet_id.is_some() {
            self.commands = (self.commands + 1) % COMMAND_PACKET_IDS;
            self.command = packet_id;
            self.unacknowledged += 1;
        }
    }

    pub(super) fn subscribe(
        &mut self,
        frame: &Frame<'_>,
        outside: &mut impl Outside<Ticket = T>,
    ) -> Result<(), Reason> {
        let subscribe = codec::subscribe(self.abilities.version, frame)?;
        if subscribe.has_identifier {
            return Err(Reason::SubscriptionIdentifiersNotSupported);
        }
        let own_time = self.client.device.as_ref().map(topic::time);
        let own_commands = self.client.device.as_ref().map(topic::commands);
        let (mut wants_time, mut wants_commands) = (false, false);
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        for filter in &subscribe.filters {
            let code = self.subscribe_to(filter, outside);
            if let Err(reason) = code {
                outside.refused(&self.client, &filter.path, reason, "the subscription was not granted", &[]);
            } else if let (Some(time), Some(commands), true) =
                (&own_time, &own_commands, self.client.is_own(&filter.path))
            {
                wants_time |= topics::matches(&filter.path, time);
                wants_commands |= topics::matches(&filter.path, commands);
            }
            codes.push(code);
        }
        answer::suback(&mut self.out, self.abilities.version, subscribe.packet_id, &codes);
        if let (true, Some(own)) = (wants_time, &own_time) {
            let mut payload = [0; time::Time::LEN_MAX];
            let written = time::Time { unix_ms: outside.unix_ms() }.write(&mut payload);
            let len = written.expect("the buffer has the greatest length");
            answer::publish(&mut self.out, self.abilities.version, own, None, &payload[..len]);
        }
        if let (true, Some(device)) = (wants_commands, &self.client.device) {
            outside.listen(device);
        }
        Ok(())
    }

    /// Grants a subscription: the QoS, or why not.
    fn subscribe_to(
        &mut self,
        filter: &Filter,
        outside: &mut impl Outside<Ticket = T>,
    ) -> Result<u8, Reason> {
        let path = filter.path.as_str();
        if path.starts_with("$share/") {
            return Err(Reason::SharedSubscriptionsNotSupported);
        }
        if !topics::is_filter(path) || !topics::is_routable(path) || path.len() > self.limits.topic_bytes {
            return Err(Reason::TopicFilterInvalid);
        }
        if !self.client.may_subscribe(path) {
            return Err(Reason::NotAuthorized);
        }
        let wanted = Subscription {
            filter: path.into(),
            qos: (filter.qos as u8).min(1),
            // Time and commands are written straight to the device; no router has to know it.
            routed: !matches!(Topic::parse(path), Some(Topic::Time(of) | Topic::Commands(of)) if Some(of) == self.client.device),
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            no_retained: filter.retain_forward_rule == RetainForwardRule::Never,
        };
        let qos = wanted.qos;
        match self.subscriptions.iter_mut().find(|before| *before.filter == *path) {
            Some(before) => {
                // The router keeps the QoS of the first time.
                if before.routed && before.qos != wanted.qos {
                    outside.unsubscribe(path);
                    outside.subscribe(path, qos)?;
                }
                *before = wanted;
            }
            None => {
                if self.subscriptions.len() >= self.limits.filters {
                    return Err(Reason::QuotaExceeded);
                }
                if wanted.routed {
                    outside.subscribe(path, qos)?;
                }
                self.subscriptions.push(wanted);
            }
        }
        Ok(qos)
    }

    pub(super) fn unsubscribe(&mut self, filter: &str, outside: &mut impl Outside<Ticket = T>) -> bool {
        let Some(index) = self.subscriptions.iter().position(|one| *one.filter == *filter) else {
            return false;
        };
        if self.subscriptions.swap_remove(index).routed {
            outside.unsubscribe(filter);
        }
        if let Some(commands) = self.client.device.as_ref().map(topic::commands)
            && !self.subscriptions.iter().any(|one| topics::matches(&one.filter, &commands))
        {
            outside.stop_listening();
        }
        true
    }

    /// The client has a message. What it acknowledges that was not sent changes nothing.
    pub(super) fn received(&mut self, packet_id: u16, outside: &mut impl Outside<Ticket = T>) {
        if self.command == Some(packet_id) {
            self.command = None;
            self.unacknowledged -= 1;
            return;
        }
        let sent = self.deliveries.iter_mut().find(|sent| sent.packet_id == packet_id && !sent.acknowledged);
        if let Some(sent) = sent {
            sent.acknowledged = true;
            self.unacknowledged -= 1;
            self.settle(outside);
        }
    }

    /// Tells the router what has been acknowledged, in its order and no further than there is no hole.
    fn settle(&mut self, outside: &mut impl Outside<Ticket = T>) {
        while let Some(Sent { packet_id, acknowledged: true }) = self.deliveries.front() {
            outside.acknowledge(*packet_id);
            self.deliveries.pop_front();
        }
    }
}
