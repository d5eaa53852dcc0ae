use super::*;
use crate::{Family, bmp::Down, wire::update};

fn station() -> Station {
    let mut station = Station::new(&Identity { name: "n1".into(), description: "test".into() });
    assert_eq!(kinds(&mut station), [4]);
    station
}

/// The types of the messages that the station is told next.
fn kinds(station: &mut Station) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(octets) = station.transmit() {
        let mut rest = &octets[..];
        while !rest.is_empty() {
            let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
            found.push(rest[5]);
            rest = &rest[length..];
        }
    }
    found
}

fn up() -> Event {
    crate::bmp::some_event()
}

fn of(session: &Event, kind: Kind) -> Event {
    Event { kind, ..session.clone() }
}

/// Two chunks: a mark of a refresh and an UPDATE, then only a mark.
fn sent() -> Kind {
    let mut first = Vec::new();
    wire::message::encode_refresh(wire::message::Refresh::Begin(Family::Ipv4Unicast), &mut first);
    update::encode_end_of_rib(Family::Ipv4Unicast, &mut first);
    update::encode_end_of_rib(Family::Ipv6Unicast, &mut first);
    let mut second = Vec::new();
    wire::message::encode_refresh(wire::message::Refresh::End(Family::Ipv4Unicast), &mut second);
    let chunks = vec![(first.into(), 2), (second.into(), 0)];
    Kind::Sent(Arc::new(Rendered { chunks, advertised: Default::default(), unsent: wire::Families::NONE }))
}

#[test]
fn session_is_told_from_its_beginning_to_its_end() {
    let (mut station, clock, session) = (station(), Clock::read(), up());
    station.handle(&clock, &session);
    assert_eq!(kinds(&mut station), [3]);
    station.handle(&clock, &of(&session, sent()));
    assert_eq!(kinds(&mut station), [0, 0], "every UPDATE and no mark");
    station.handle(&clock, &of(&session, Kind::Down(Down::Closed)));
    assert_eq!(kinds(&mut station), [2]);
    station.end();
    assert_eq!(kinds(&mut station), [5]);
}

#[test]
fn nothing_is_told_of_a_session_that_is_not_the_one_that_came_up() {
    let (mut station, clock, session) = (station(), Clock::read(), up());
    for kind in [sent(), Kind::Down(Down::Closed)] {
        station.handle(&clock, &of(&session, kind));
        assert!(kinds(&mut station).is_empty());
    }
    station.handle(&clock, &session);
    kinds(&mut station);
    let next = Event { session: Arc::new(Monitored::clone(&session.session)), ..session };
    for kind in [sent(), Kind::Down(Down::Closed)] {
        station.handle(&clock, &of(&next, kind));
        assert!(kinds(&mut station).is_empty(), "of another session of the same peer");
    }
}

#[test]
fn clock_turns_moments_into_time_since_the_epoch() {
    let now = Instant::now() + Duration::from_secs(100);
    let clock = Clock { now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1000) };
    assert_eq!(clock.since_epoch(now - Duration::from_secs(10)), Duration::from_secs(990));
    assert_eq!(clock.since_epoch(now + Duration::from_secs(10)), Duration::from_secs(1000));
    let before = Clock { wall: SystemTime::UNIX_EPOCH - Duration::from_secs(1), ..clock };
    assert_eq!(before.since_epoch(now), Duration::ZERO);
}
