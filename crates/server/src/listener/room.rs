//! Who is connected, and who makes room for whom.
//!
//! Where all seats are taken, the connection whose client has been silent longest goes: one without a request under way, be it
//! kept open for a next one, or opened and never used, or one of whose request only the refusal is left. A client that finds a kept connection closed opens another; one that
//! could not connect at all would wait for strangers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Phase;

/// So long a connection keeps its place though its client is silent: its request may be on the way. Else those who wait for a place
/// would take it from one another before any of them could speak. A way around the world and back takes 0.3 s.
const SILENCE_MIN: Duration = Duration::from_millis(500);

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy)]
pub struct Seats {
    pub in_all: usize,
    /// From one address that is not of the loopback interface; there everybody has the same.
    pub of_one_address: usize,
}

/// The connections of one listener.
#[derive(Debug)]
pub(super) struct Room {
    seats: Seats,
    taken: Arc<Taken>,
}

type Connections = HashMap<u64, (Source, Arc<Phase>)>;

#[derive(Debug, Default)]
struct Taken {
    /// At most `Seats::in_all`, and the number that no connection has had yet: one that had to make room may still be ending.
    connections: Mutex<(Connections, u64)>,
    /// A connection became idle, or ended.
    idle: Arc<Notify>,
}

impl Taken {
    fn lock(&self) -> MutexGuard<'_, (Connections, u64)> {
        // Held for a look and a change that cannot panic.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a connection comes from, as far as seats are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// This machine: proxies, tests, the commands; not limited but in all.
    Here,
    V4([u8; 4]),
    /// The network of 64 bits: whoever has one address there has all.
    V6([u8; 8]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Here,
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(network(address)),
        }
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    [a, b, c, d, e, f, g, h]
}

/// A place among the connections, given back when it is dropped.
pub(super) struct Seat {
    number: u64,
    phase: Arc<Phase>,
    taken: Arc<Taken>,
}

impl Seat {
    pub(super) fn phase(&self) -> Arc<Phase> {
        self.phase.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever had to make room is not there any more.
        self.taken.lock().0.remove(&self.number);
        self.taken.idle.notify_one();
    }
}

impl Room {
    pub(super) fn new(seats: Seats) -> Self {
        Self { seats, taken: Arc::default() }
    }

    /// Finds a seat, if need be that of somebody who is silent; waits while all others are being answered. `None` if as many
    /// from the same address are. For one caller at a time, the accept loop.
    pub(super) async fn seat(&self, address: IpAddr) -> Option<Seat> {
        let source = Source::of(address);
        loop {
            match self.try_seat(source) {
                Try::Taken(seat) => return Some(seat),
                Try::TooManyFromThere => return None,
                // One that becomes idle from here on leaves a permit.
                Try::Full(None) => self.taken.idle.notified().await,
                Try::Full(Some(then)) => tokio::select! {
                    () = self.taken.idle.notified() => {}
                    () = tokio::time::sleep_until(then) => {}
                },
            }
        }
    }

    fn try_seat(&self, source: Source) -> Try {
        let mut taken = self.taken.lock();
        let (connections, next) = &mut *taken;
        let from_there = connections.values().filter(|(from, _)| *from == source).count();
        if source != Source::Here
            && from_there >= self.seats.of_one_address
            && make_room(connections, |from| from == source).is_err()
        {
            return Try::TooManyFromThere;
        }
        if connections.len() >= self.seats.in_all
            && let Err(then) = make_room(connections, |_| true)
        {
            return Try::Full(then);
        }
        let number = *next;
        *next += 1;
        let phase = Arc::new(Phase::new(self.taken.idle.clone()));
        connections.insert(number, (source, phase.clone()));
        Try::Taken(Seat { number, phase, taken: self.taken.clone() })
    }
}

enum Try {
    Taken(Seat),
    TooManyFromThere,
    /// Until then nobody has been silent long enough; `None`: all are being answered.
    Full(Option<Instant>),
}

/// Ends the connection that has been silent longest, of those that are asked for. The error is when there will be one.
fn make_room(connections: &mut Connections, of: impl Fn(Source) -> bool) -> Result<(), Option<Instant>> {
    loop {
        let silent = connections
            .iter()
            .filter(|(_, (source, _))| of(*source))
            .filter_map(|(number, (_, phase))| Some((phase.silent_since()?, *number)));
        let (since, longest) = silent.min().ok_or(None)?;
        if since.elapsed() < SILENCE_MIN {
            return Err(Some(since + SILENCE_MIN));
        }
        // Its request may have come in between.
        if connections.get(&longest).is_some_and(|(_, phase)| phase.make_room()) {
            connections.remove(&longest);
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SEATS: Seats = Seats { in_all: 4, of_one_address: 2 };
    const HERE: &str = "127.0.0.1";

    fn room() -> Room {
        Room::new(SEATS)
    }

    async fn sit(room: &Room, address: &str) -> Option<Seat> {
        tokio::time::timeout(Duration::from_secs(1), room.seat(address.parse().unwrap())).await.ok().flatten()
    }

    async fn some(room: &Room, count: usize, phase: u8) -> Vec<Seat> {
        let mut seats = Vec::new();
        for _ in 0..count {
            let seat = sit(room, HERE).await.unwrap();
            seat.phase.set(phase);
            seats.push(seat);
            tokio::time::advance(SILENCE_MIN).await;
        }
        seats
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_been_silent_longest_makes_room_and_nobody_else() {
        let room = room();
        let seats = some(&room, SEATS.in_all, Phase::IDLE).await;
        seats[0].phase.set(Phase::REQUEST);
        seats[1].phase.set(Phase::HEADERS);
        tokio::time::advance(Duration::from_millis(10)).await;
        seats[3].phase.set(Phase::REQUEST);
        seats[3].phase.set(Phase::REFUSED);
        tokio::time::advance(SILENCE_MIN).await;
        let phases = || seats.iter().map(|seat| seat.phase.get()).collect::<Vec<_>>();
        let fifth = sit(&room, HERE).await.unwrap();
        assert!(fifth.phase.set(Phase::REQUEST));
        assert_eq!(phases(), [Phase::REQUEST, Phase::HEADERS, Phase::GONE, Phase::REFUSED]);
        assert!(!seats[2].phase.set(Phase::REQUEST), "it cannot come back");
        let _sixth = sit(&room, HERE).await.unwrap();
        let _seventh = sit(&room, HERE).await.unwrap();
        assert_eq!(phases(), [Phase::REQUEST, Phase::GONE, Phase::GONE, Phase::GONE]);
        assert_eq!(room.taken.lock().0.len(), SEATS.in_all);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_being_answered_one_waits_until_somebody_is_idle_or_gone() {
        let room = room();
        let mut seats = some(&room, SEATS.in_all, Phase::REQUEST).await;
        assert!(sit(&room, HERE).await.is_none());
        let waits = sit(&room, HERE);
        let (next, ()) = tokio::join!(waits, async { drop(seats.pop()) });
        next.as_ref().unwrap().phase.set(Phase::REQUEST);
        let waits = sit(&room, HERE);
        let (_last, ()) = tokio::join!(waits, async { assert!(seats[0].phase.set(Phase::IDLE)) });
        assert_eq!(seats[0].phase.get(), Phase::GONE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_its_share_and_others_have_seats_all_the_same() {
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ] {
            let room = room();
            let first = sit(&room, one).await.unwrap();
            let second = sit(&room, same).await.unwrap();
            first.phase.set(Phase::REQUEST);
            second.phase.set(Phase::REQUEST);
            assert!(sit(&room, one).await.is_none(), "{one}: its share is being answered");
            let _other = sit(&room, other).await.unwrap();
            first.phase.set(Phase::IDLE);
            assert!(sit(&room, one).await.is_none(), "{one}: its next request may be on the way");
            tokio::time::advance(SILENCE_MIN).await;
            let third = sit(&room, one).await.unwrap();
            assert_eq!((first.phase.get(), second.phase.get()), (Phase::GONE, Phase::REQUEST));
            drop((first, second, third));
            assert_eq!(room.taken.lock().0.len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_only_just_come_keeps_the_place_for_half_a_second() {
        let room = room();
        let _answered = some(&room, SEATS.in_all - 1, Phase::REQUEST).await;
        let began = Instant::now();
        let new = sit(&room, HERE).await.unwrap();
        let (newer, newest) = (sit(&room, HERE).await.unwrap(), sit(&room, HERE).await.unwrap());
        assert_eq!(began.elapsed(), 2 * SILENCE_MIN);
        assert_eq!([&new, &newer, &newest].map(|seat| seat.phase.get()), [Phase::GONE, Phase::GONE, Phase::IDLE]);
    }

    #[tokio::test(start_paused = true)]
    async fn this_machine_may_take_every_seat() {
        let room = room();
        let _seats = some(&room, SEATS.in_all, Phase::REQUEST).await;
        assert_eq!(room.taken.lock().0.len(), SEATS.in_all);
    }
}
