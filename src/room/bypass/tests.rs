use std::sync::Arc;

use http::header::COOKIE;

use super::*;
use crate::base::clock::{Clock, ManualClock};
use crate::base::exchange::sample::Sample;
use crate::room::page::Page;
use crate::room::rule::{Capacity, Rule};
use crate::store::memory::rooms::MemoryRooms;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const HOUR: Duration = Duration::from_secs(3_600);

/// The moment of every sample request.
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn keyring() -> Keyring {
    Keyring::parse(KEY).unwrap()
}

fn room(networks: &[&str], links: bool) -> Arc<Room> {
    let capacity = Capacity {
        visitors: Some(1),
        admit: None,
        pass: HOUR,
    };
    let mut rule = Rule::new("concert".parse().unwrap(), capacity);
    rule.bypass = Bypass {
        networks: Networks::new(networks.iter().map(|network| network.parse().unwrap())),
        links,
    };
    let clock: Arc<dyn Clock> = ManualClock::at(NOW);
    let store = Arc::new(MemoryRooms::new(Arc::clone(&clock)));
    Room::new(rule, store, clock, Arc::new(keyring()), Page::builtin())
}

fn slip(room: &str, until: Timestamp) -> String {
    link(&keyring(), &room.parse().unwrap(), until).reveal().to_owned()
}

fn asking_with(cookie: &str) -> Sample {
    let mut sample = Sample::new();
    let line = format!("a=1; __Host-tidegate-link-concert={cookie}");
    sample.headers.insert(COOKIE, HeaderValue::from_str(&line).unwrap());
    sample
}

#[test]
fn clients_of_a_known_network_go_around_and_nobody_else() {
    for (networks, expected) in [
        (["192.0.2.0/24"], Some(By::Network)),
        (["192.0.3.0/24"], None),
        (["2001:db8::/32"], None),
    ] {
        assert_eq!(
            room(&networks, true).bypass(&Sample::new().request()),
            expected,
            "{networks:?}"
        );
    }
}

#[test]
fn a_link_is_good_until_it_expires_in_its_room_and_where_links_are_taken() {
    let good = slip("concert", NOW + HOUR);
    let around = |links, cookie: &str| room(&[], links).bypass(&asking_with(cookie).request());
    assert_eq!(around(true, &good), Some(By::Link));
    assert_eq!(around(false, &good), None, "the rule takes no links");
    assert_eq!(around(true, &slip("concert", NOW)), None, "expired this moment");
    assert_eq!(around(true, &slip("annex", NOW + HOUR)), None, "of another room");
    assert_eq!(around(true, &good[1..]), None);
    let claim = Claim {
        epoch: 0,
        number: 0,
        moment: NOW + HOUR,
        binding: Binding::to(None),
        rank: 0,
        heard: Timestamp::default(),
    };
    for kind in [Kind::Ticket, Kind::Pass] {
        let other = ticket::sign(&keyring(), kind, &"concert".parse().unwrap(), &claim);
        assert_eq!(around(true, other.reveal()), None, "{kind:?}");
    }
}

#[test]
fn a_link_in_the_address_becomes_a_cookie_and_leaves_the_address() {
    let good = slip("concert", NOW + HOUR);
    let room = room(&[], true);
    for (query, location) in [
        (format!("tidegate-link={good}"), "/cart"),
        (format!("item=7&tidegate-link={good}&b"), "/cart?item=7&b"),
    ] {
        let sample = Sample::new();
        let request = Request {
            query: Some(&query),
            ..sample.request()
        };
        assert_eq!(room.bypass(&request), Some(By::Link));
        let reply = room.take_link(&request).unwrap();
        assert_eq!(reply.status, StatusCode::SEE_OTHER);
        let header = |wanted| {
            let found = reply.headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_str().unwrap()).unwrap_or_default()
        };
        assert_eq!(header(LOCATION), location);
        assert!(header(SET_COOKIE).starts_with(&format!("__Host-tidegate-link-concert={good}; Path=/; Max-Age=3600;")));
        let posted = Request {
            method: &Method::POST,
            ..request
        };
        assert!(room.take_link(&posted).is_none() && room.bypass(&posted).is_some());
    }
    let sample = Sample::new();
    let stale = format!("tidegate-link={}", slip("concert", NOW));
    for query in [
        None,
        Some("tidegate-link"),
        Some("tidegate-link=x"),
        Some(stale.as_str()),
    ] {
        let request = Request {
            query,
            ..sample.request()
        };
        assert!(
            room.take_link(&request).is_none() && room.bypass(&request).is_none(),
            "{query:?}"
        );
    }
}
