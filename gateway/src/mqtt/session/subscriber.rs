//! The session as a subscriber: what it asked for, what it is sent, what it has acknowledged.

use rumqttd::protocol::{Filter, RetainForwardRule};
use weir_contract::time;
use weir_contract::topic::{self, Topic};

use super::{Outside, Session};
use crate::mqtt::frame::Frame;
use crate::mqtt::local::Delivery;
use crate::mqtt::reason::Reason;
use crate::mqtt::{answer, codec, topics};

/// Messages on the way to a subscriber at a time.
const INFLIGHT_MAX: u16 = 100;
/// A subscriber that has this much to read gets no more until it has read.
pub(in crate::mqtt) const OUT_BYTES_MAX: usize = 64 * 1024;

/// Packet identifiers of commands; those of messages are smaller.
const COMMAND_PACKET_IDS: u16 = 0x8000;

#[derive(Debug)]
pub(super) struct Subscription {
    filter: Box<str>,
    qos: u8,
    /// What others publish is wanted, too, not only what the gateway itself tells the device.
    routed: bool,
    no_local: bool,
    retain_as_published: bool,
    /// Retained messages on topics after this one have yet to be sent.
    retained_after: Option<Box<str>>,
}

impl<T: Copy + Ord> Session<T> {
    /// Whether another message can be written.
    pub fn can_deliver(&self) -> bool {
        self.unacknowledged < self.abilities.receive_max.min(INFLIGHT_MAX) && self.out.len() < OUT_BYTES_MAX
    }

    /// Writes a message, unless the subscriptions' options or the client's limits are against it.
    pub fn deliver(&mut self, delivery: &Delivery) {
        let Delivery { kept, from_retained } = delivery;
        let own = kept.origin == self.number;
        let (mut granted, mut retain) = (None, *from_retained);
        for subscription in
            self.subscriptions.iter().filter(|one| one.routed && topics::matches(&one.filter, &kept.topic))
        {
            if !(own && subscription.no_local) {
                granted = granted.max(Some(subscription.qos));
            }
            retain |= kept.retain && subscription.retain_as_published;
        }
        let Some(granted) = granted else { return };
        let packet_id = (kept.qos.min(granted) > 0).then(|| self.next_packet_id());
        let before = self.out.len();
        let publish = answer::Publish {
            topic: &kept.topic,
            packet_id,
            retain,
            properties: &kept.properties(),
            payload: &kept.payload,
        };
        answer::publish(&mut self.out, self.abilities.version, &publish);
        // MQTT 5, 3.1.2.11.4: what is too long for the client is dropped as if it had been sent.
        if self.out.len() - before > self.abilities.packet_bytes_max {
            self.out.truncate(before);
        } else if let Some(packet_id) = packet_id {
            self.sent.push(packet_id);
            self.unacknowledged += 1;
        }
    }

    /// One that is not on the way; there are far more of them than may be.
    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.packet_ids = self.packet_ids % (COMMAND_PACKET_IDS - 1) + 1;
            if !self.sent.contains(&self.packet_ids) {
                return self.packet_ids;
            }
        }
    }

    /// Whether there may be retained messages that have yet to be sent.
    pub fn owes_retained(&self) -> bool {
        self.subscriptions.iter().any(|one| one.retained_after.is_some())
    }

    /// Writes some of them; call it again as long as any are owed and can be delivered.
    pub fn deliver_retained(&mut self, outside: &impl Outside<Ticket = T>) {
        let Some(index) = self.subscriptions.iter().position(|one| one.retained_after.is_some()) else {
            return;
        };
        let subscription = &mut self.subscriptions[index];
        let mut after = subscription.retained_after.take().unwrap_or_default();
        let page = outside.retained(&subscription.filter, &after);
        let mut next = page.next;
        for delivery in page.messages {
            if !self.can_deliver() {
                // From here on again, when it has read.
                next = Some(after);
                break;
            }
            self.deliver(&delivery);
            after.clone_from(&delivery.kept.topic);
        }
        self.subscriptions[index].retained_after = next;
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
        let publish = answer::Publish { topic: &topic, packet_id, retain: false, properties: &[], payload };
        answer::publish(&mut self.out, self.abilities.version, &publish);
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
        if let (true, Some(unix_ms)) = (wants_time, outside.unix_ms()) {
            self.tell_time(unix_ms);
        }
        if let (true, Some(device)) = (wants_commands, &self.client.device) {
            outside.listen(device);
        }
        Ok(())
    }

    /// Whether the device wants to be told the time.
    pub fn wants_time(&self) -> bool {
        let own = self.client.device.as_ref().map(topic::time);
        own.is_some_and(|own| self.subscriptions.iter().any(|one| topics::matches(&one.filter, &own)))
    }

    /// Tells the device the time; nothing is acknowledged.
    pub fn tell_time(&mut self, unix_ms: u64) {
        let Some(topic) = self.client.device.as_ref().map(topic::time) else { return };
        let mut payload = [0; time::Time::LEN_MAX];
        let len = time::Time { unix_ms }.write(&mut payload).expect("the buffer has the greatest length");
        let payload = &payload[..len];
        let publish =
            answer::Publish { topic: &topic, packet_id: None, retain: false, properties: &[], payload };
        let before = self.out.len();
        answer::publish(&mut self.out, self.abilities.version, &publish);
        if self.out.len() - before > self.abilities.packet_bytes_max {
            self.out.truncate(before);
        }
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
        if !topics::is_filter(path) || !topics::is_served(path) || path.len() > self.limits.topic_bytes {
            return Err(Reason::TopicFilterInvalid);
        }
        // Time and commands are written straight to the device; no queue has them.
        let direct = matches!(Topic::parse(path), Some(Topic::Time(of) | Topic::Commands(of)) if Some(of) == self.client.device);
        let routed = !direct && self.client.may_subscribe(path);
        if !routed && !self.client.is_own(path) {
            return Err(Reason::NotAuthorized);
        }
        let before = self.subscriptions.iter().position(|before| *before.filter == *path);
        let wants_retained = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => before.is_none(),
            RetainForwardRule::Never => false,
        };
        let wanted = Subscription {
            filter: path.into(),
            qos: (filter.qos as u8).min(1),
            routed,
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            retained_after: (routed && wants_retained).then(Box::default),
        };
        let qos = wanted.qos;
        match before {
            Some(before) => self.subscriptions[before] = wanted,
            None => {
                if self.subscriptions.len() >= self.limits.filters {
                    return Err(Reason::QuotaExceeded);
                }
                if routed {
                    outside.subscribe(path)?;
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
    pub(super) fn received(&mut self, packet_id: u16) {
        if self.command == Some(packet_id) {
            self.command = None;
            self.unacknowledged -= 1;
        } else if let Some(index) = self.sent.iter().position(|sent| *sent == packet_id) {
            self.sent.swap_remove(index);
            self.unacknowledged -= 1;
        }
    }
}
