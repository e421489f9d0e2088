//! The brake on failed sign-ins: whoever fails more often than happens by mistake is told so late, and hung up on.
//!
//! It locks nobody out: a request that verifies is answered at once, from the same address, too, and so an address that many share, or
//! that somebody pretends to have, cannot be shut for others. What keeps a secret from being guessed are its 40 random characters; this
//! keeps the guesses from being cheap, each a connection of its own that waits, and its log from being long.
//! Source: promise 4.4 item 25; our choice.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use longshore_core::rate::{Limiter, Rate};
use longshore_core::time::Tick;
use longshore_wire::sigv4::AuthError;
use tokio::time::Instant;

/// Of one address. A client with an old secret fails as often as it has requests, and some SDKs try four times each.
const FREE: Rate = Rate { per_second: 5, burst: 20 };
/// How late a further refusal is told. Its connection is among the first to make room meanwhile.
const LATE: Duration = Duration::from_secs(2);

/// What has failed of late, by where it came from. As many addresses are known as [`Limiter`] remembers.
pub struct Brake {
    /// `None`: for tests that fail a thousand times from one address.
    failed: Option<Mutex<Limiter>>,
    since: Instant,
}

impl Brake {
    pub fn new() -> Self {
        Self { failed: Some(Mutex::new(Limiter::new(FREE))), since: Instant::now() }
    }

    #[cfg(test)]
    pub fn off() -> Self {
        Self { failed: None, since: Instant::now() }
    }

    /// Counts a failure, and says how late it is to be told; `None`: at once. Of what says nothing about a secret, a clock that is wrong
    /// say, nothing is counted.
    pub fn failed(&self, from: IpAddr, error: &AuthError) -> Option<Duration> {
        if !matches!(error, AuthError::Signature(_) | AuthError::UnknownKey(_) | AuthError::Token) {
            return None;
        }
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut failed = self.failed.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        (!failed.admit(&network(from)?, Tick(now))).then_some(LATE)
    }
}

/// What counts as one: an address, of IPv6 its network of 64 bits, where whoever has one has all. `None` for the loopback interface:
/// there is this machine, with a proxy before us among them, which has many behind it and can see them.
fn network(ip: IpAddr) -> Option<String> {
    match ip.to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V4(ip) => Some(ip.to_string()),
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(brake: &Brake, from: &str) -> bool {
        brake.failed(from.parse().unwrap(), &AuthError::UnknownKey("AKIA".into())).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_free_for_a_while_and_then_told_late_to_that_address_alone() {
        let brake = Brake::new();
        assert!((0..20).all(|_| !late(&brake, "192.0.2.1")));
        assert!(late(&brake, "192.0.2.1") && late(&brake, "::ffff:192.0.2.1") && !late(&brake, "192.0.2.2"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).filter(|_| !late(&brake, "192.0.2.1")).count(), 5);
        // Of IPv6 a network.
        assert!((0..20).all(|last| !late(&brake, &format!("2001:db8::{last:x}"))));
        assert!(late(&brake, "2001:db8::ffff") && !late(&brake, "2001:db8:0:1::"));
        // This machine.
        assert!((0..100).all(|_| !late(&brake, "127.0.0.1") && !late(&brake, "::1")));
    }

    #[test]
    fn what_says_nothing_about_a_secret_is_not_counted() {
        let brake = Brake::new();
        let from = "192.0.2.1".parse().unwrap();
        for error in [AuthError::Missing, AuthError::Date, AuthError::TokenExpired, AuthError::UnsignedPayload] {
            assert!((0..100).all(|_| brake.failed(from, &error).is_none()), "{error:?}");
        }
    }
}
