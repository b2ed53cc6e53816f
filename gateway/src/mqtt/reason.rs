//! Why a packet or a connection is refused: MQTT 5's reason codes, as far as the gateway uses them.

use std::fmt;

/// A reason code of MQTT 5 (2.4). MQTT 3.1.1 can say few of them; there they are for the log and the refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No refusal.
    Success = 0x00,
    /// Something in the gateway itself failed.
    UnspecifiedError = 0x80,
    /// Not in the form MQTT prescribes.
    Malformed = 0x81,
    /// In form, but not allowed at this point or at all.
    ProtocolError = 0x82,
    /// Right by MQTT, but not taken here.
    ImplementationSpecific = 0x83,
    /// Neither MQTT 3.1.1 nor 5.
    UnsupportedProtocolVersion = 0x84,
    /// A client identifier that cannot be used.
    ClientIdentifierNotValid = 0x85,
    /// Wrong or missing user name or password.
    BadUserNameOrPassword = 0x86,
    /// This client may not do that.
    NotAuthorized = 0x87,
    /// The gateway cannot serve now.
    ServerUnavailable = 0x88,
    /// A limit of the gateway is reached.
    ServerBusy = 0x89,
    /// The gateway is being stopped.
    ServerShuttingDown = 0x8b,
    /// Only passwords and client certificates are known here.
    BadAuthenticationMethod = 0x8c,
    /// Nothing was heard for one and a half times the keep-alive time.
    KeepAliveTimeout = 0x8d,
    /// The same client connected again.
    SessionTakenOver = 0x8e,
    /// A filter that is no filter, or one that is not served.
    TopicFilterInvalid = 0x8f,
    /// A topic that is no topic, or one that is not served.
    TopicNameInvalid = 0x90,
    /// More unacknowledged messages than agreed on.
    ReceiveMaximumExceeded = 0x93,
    /// Topic aliases are not used here.
    TopicAliasInvalid = 0x94,
    /// Longer than agreed on.
    PacketTooLarge = 0x95,
    /// A limit for this kind of thing is reached.
    QuotaExceeded = 0x97,
    /// The payload is not what its topic promises.
    PayloadFormatInvalid = 0x99,
    /// QoS 2 is not served.
    QosNotSupported = 0x9b,
    /// Shared subscriptions are not served.
    SharedSubscriptionsNotSupported = 0x9e,
    /// Subscription identifiers are not served.
    SubscriptionIdentifiersNotSupported = 0xa1,
}

impl Reason {
    /// Its number on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Its name in logs, metrics and refusals: lower case, words joined by `-`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Success => "success",
            Reason::UnspecifiedError => "unspecified-error",
            Reason::Malformed => "malformed-packet",
            Reason::ProtocolError => "protocol-error",
            Reason::ImplementationSpecific => "not-taken-here",
            Reason::UnsupportedProtocolVersion => "unsupported-protocol-version",
            Reason::ClientIdentifierNotValid => "client-identifier-not-valid",
            Reason::BadUserNameOrPassword => "bad-user-name-or-password",
            Reason::NotAuthorized => "not-authorized",
            Reason::ServerUnavailable => "server-unavailable",
            Reason::ServerBusy => "server-busy",
            Reason::ServerShuttingDown => "server-shutting-down",
            Reason::BadAuthenticationMethod => "bad-authentication-method",
            Reason::KeepAliveTimeout => "keep-alive-timeout",
            Reason::SessionTakenOver => "session-taken-over",
            Reason::TopicFilterInvalid => "topic-filter-invalid",
            Reason::TopicNameInvalid => "topic-name-invalid",
            Reason::ReceiveMaximumExceeded => "receive-maximum-exceeded",
            Reason::TopicAliasInvalid => "topic-alias-invalid",
            Reason::PacketTooLarge => "packet-too-large",
            Reason::QuotaExceeded => "quota-exceeded",
            Reason::PayloadFormatInvalid => "payload-format-invalid",
            Reason::QosNotSupported => "qos-not-supported",
            Reason::SharedSubscriptionsNotSupported => "shared-subscriptions-not-supported",
            Reason::SubscriptionIdentifiersNotSupported => "subscription-identifiers-not-supported",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
