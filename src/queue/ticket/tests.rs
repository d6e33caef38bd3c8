use super::*;
use proptest::prelude::*;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";

fn ring(text: &str) -> Keyring {
    Keyring::parse(text).unwrap()
}

fn room(name: &str) -> Name {
    name.parse().unwrap()
}

fn claim() -> Claim {
    Claim {
        epoch: 7,
        number: 42,
        moment: Timestamp::from_secs(1_700_000_000),
        binding: Binding::to(Some(99)),
        rank: 17,
        heard: Timestamp::from_secs(1_700_000_300),
    }
}

proptest! {
    #[test]
    fn what_was_signed_is_read_back(epoch: u64, number: u64, micros: u64, owner: u128, network: u64, pass: bool, rank in 0u64..1 << 48) {
        let ring = ring(KEY);
        let kind = if pass { Kind::Pass } else { Kind::Ticket };
        let claim = Claim {
            epoch, number,
            moment: Timestamp::from_micros(micros),
            binding: Binding::to(Some(owner)).within(network),
            rank,
            heard: Timestamp::from_micros(micros % (1 << 53) / 1_000 * 1_000),
        };
        let slip = sign(&ring, kind, &room("concert"), &claim);
        prop_assert_eq!(slip.reveal().len(), SLIP_CHARS);
        prop_assert_eq!(verify(&ring, kind, &room("concert"), slip.reveal()), Some(claim));
    }

    #[test]
    fn no_text_that_was_not_signed_is_taken(text in "\\PC{0,120}") {
        prop_assert_eq!(verify(&ring(KEY), Kind::Ticket, &room("concert"), &text), None);
    }
}

#[test]
fn every_single_bit_flip_is_refused() {
    let (ring, room) = (ring(KEY), room("concert"));
    for kind in [Kind::Ticket, Kind::Pass] {
        let slip = sign(&ring, kind, &room, &claim());
        let bytes = URL_SAFE_NO_PAD.decode(slip.reveal()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let text = URL_SAFE_NO_PAD.encode(&forged);
            assert_eq!(verify(&ring, kind, &room, &text), None, "bit {bit}");
        }
        for (at, _) in slip.reveal().char_indices() {
            for bit in 0..7 {
                let mut text = slip.reveal().as_bytes().to_vec();
                text[at] ^= 1 << bit;
                let text = String::from_utf8(text).unwrap();
                assert_eq!(verify(&ring, kind, &room, &text), None, "character {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn every_truncation_and_every_extension_is_refused() {
    let (ring, room) = (ring(KEY), room("concert"));
    let slip = sign(&ring, Kind::Ticket, &room, &claim());
    for length in 0..SLIP_CHARS {
        assert_eq!(verify(&ring, Kind::Ticket, &room, &slip.reveal()[..length]), None);
    }
    for tail in ["A", "=", "AAAA", " "] {
        assert_eq!(
            verify(&ring, Kind::Ticket, &room, &format!("{}{tail}", slip.reveal())),
            None
        );
    }
}

#[test]
fn a_slip_is_worth_nothing_elsewhere() {
    let ring = ring(KEY);
    let names = ["a", "b", "ab", "concert", "concert-2"].map(room);
    for here in &names {
        let ticket = sign(&ring, Kind::Ticket, here, &claim());
        let pass = sign(&ring, Kind::Pass, here, &claim());
        assert_eq!(verify(&ring, Kind::Pass, here, ticket.reveal()), None);
        assert_eq!(verify(&ring, Kind::Ticket, here, pass.reveal()), None);
        for there in names.iter().filter(|there| *there != here) {
            assert_eq!(verify(&ring, Kind::Ticket, there, ticket.reveal()), None);
        }
    }
}

#[test]
fn a_rotated_key_costs_nobody_a_place_until_it_leaves_the_ring() {
    let slip = sign(&ring(KEY), Kind::Ticket, &room("concert"), &claim());
    let rotated = ring(&format!("{OTHER}\n{KEY}"));
    assert_eq!(
        verify(&rotated, Kind::Ticket, &room("concert"), slip.reveal()),
        Some(claim())
    );
    assert_eq!(
        verify(&ring(OTHER), Kind::Ticket, &room("concert"), slip.reveal()),
        None
    );
}

#[test]
fn a_slip_does_not_show_itself() {
    let slip = sign(&ring(KEY), Kind::Ticket, &room("concert"), &claim());
    assert_eq!(format!("{slip:?}"), "Slip(..)");
    assert!(!format!("{:?}", claim()).contains("99"));
}

#[test]
fn a_bound_slip_is_refused_to_another_owner_and_taken_from_who_does_not_say() {
    let of = |owner| Binding::to(owner);
    assert!(of(Some(1)).admits(of(Some(1))));
    assert!(!of(Some(1)).admits(of(Some(2))));
    assert!(of(Some(1)).admits(of(None)));
    assert!(of(None).admits(of(Some(2))));
}

#[test]
fn a_slip_bound_to_a_network_is_refused_from_elsewhere_whoever_shows_it() {
    let from = |owner, network| Binding::to(owner).within(network);
    assert!(from(Some(1), 7).admits(from(Some(1), 7)));
    assert!(!from(Some(1), 7).admits(from(Some(1), 8)));
    assert!(!from(Some(1), 7).admits(from(Some(2), 7)));
    assert!(!from(None, 7).admits(from(None, 8)));
    assert!(from(None, 7).admits(Binding::to(None)), "the room binds no more");
    assert!(Binding::to(None).admits(from(None, 8)), "given before the room bound");
}
