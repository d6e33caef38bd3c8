use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn keyring() -> Keyring {
    Keyring::parse(KEY).unwrap()
}

fn solve(challenge: &str, bits: u8) -> String {
    let mut solutions = (0_u64..).map(|nonce| format!("{challenge}.{nonce}"));
    let good = |text: &String| zero_bits(digest(&SHA256, text.as_bytes()).as_ref()) >= u32::from(bits);
    solutions.find(good).unwrap()
}

#[test]
fn a_solution_is_good_for_the_room_the_network_and_the_time_it_was_given_for() {
    let (keys, hall, lobby) = (keyring(), "hall".parse().unwrap(), "lobby".parse().unwrap());
    let here = Audience {
        room: &hall,
        network: 7,
    };
    let challenge = issue(&keys, here, 10, NOW, 1);
    assert_eq!(challenge.len(), CHALLENGE_CHARS);
    let solution = solve(&challenge, 10);
    let last = NOW + LIFE - Duration::from_micros(1);
    for now in [NOW, last, NOW - Duration::from_secs(5)] {
        let solved = solved(&keys, here, &solution, now).unwrap();
        assert_eq!((solved.bits, solved.issued), (10, NOW));
    }
    let at = |audience, now| solved(&keys, audience, &solution, now);
    assert_eq!(at(here, NOW + LIFE), Err(Worthless::Expired));
    let elsewhere = [Audience { network: 8, ..here }, Audience { room: &lobby, ..here }];
    for audience in elsewhere {
        assert_eq!(at(audience, NOW), Err(Worthless::Wrong), "{audience:?}");
    }
    assert_eq!(
        solved(&Keyring::random(), here, &solution, NOW),
        Err(Worthless::Wrong),
        "another fleet's key"
    );
}

#[test]
fn what_is_no_solution_is_worth_nothing() {
    let (keys, hall) = (keyring(), "hall".parse().unwrap());
    let here = Audience {
        room: &hall,
        network: 7,
    };
    let challenge = issue(&keys, here, 12, NOW, 1);
    let good = solve(&challenge, 12);
    let nonce = good.rsplit('.').next().unwrap();
    let unsolved = (0..).find(|n| {
        let text = format!("{challenge}.{n}");
        zero_bits(digest(&SHA256, text.as_bytes()).as_ref()) < 12
    });
    let easier = issue(&Keyring::random(), here, 0, NOW, 1);
    for wrong in [
        String::new(),
        challenge.clone(),
        format!("{challenge}."),
        format!("{challenge}.{}", unsolved.unwrap()),
        format!("{challenge}.{nonce} "),
        format!("{challenge}.-{nonce}"),
        format!("{challenge}.{}", "1".repeat(17)),
        format!("{challenge}=.{nonce}"),
        format!("{easier}.0"),
    ] {
        assert_eq!(solved(&keys, here, &wrong, NOW), Err(Worthless::Wrong), "{wrong}");
    }
}

#[test]
fn leading_zeros_are_counted_across_bytes() {
    for (hash, bits) in [
        (&[0xff][..], 0),
        (&[0x7f], 1),
        (&[0x01, 0xff], 7),
        (&[0, 0x80], 8),
        (&[0, 0, 0x20], 18),
        (&[0, 0], 16),
        (&[], 0),
    ] {
        assert_eq!(zero_bits(hash), bits, "{hash:?}");
    }
}

#[test]
fn a_solution_is_taken_once_as_long_as_it_lives_and_memory_has_an_end() {
    let mut spent = Spent::default();
    assert!(spent.spend(1, NOW));
    let last = NOW + LIFE - Duration::from_micros(1);
    for now in [NOW, last, last + LIFE - Duration::from_secs(1)] {
        assert!(!spent.spend(1, now), "{now:?}");
    }
    let many = SPENT_MAX as u64 * 3;
    for mark in 2..many {
        assert!(spent.spend(mark, NOW));
    }
    assert!(spent.young.len() <= SPENT_MAX && spent.old.len() <= SPENT_MAX);
    assert!(!spent.spend(many - 1, NOW), "the latest is remembered");
}

proptest! {
    #[test]
    fn a_challenge_is_read_as_it_was_written_and_no_changed_character_goes_unseen(
        bits in 0..=BITS_MAX,
        salt: u64,
        network: u128,
        at in 0..CHALLENGE_CHARS,
        letter in "[A-Za-z0-9_-]",
    ) {
        let (keys, hall) = (keyring(), "hall".parse().unwrap());
        let audience = Audience { room: &hall, network };
        let text = issue(&keys, audience, bits, NOW, salt);
        let challenge = read(&keys, audience, &text).unwrap();
        prop_assert_eq!((challenge.bits, challenge.issued), (bits, NOW));
        let mut changed = text.clone();
        changed.replace_range(at..=at, &letter);
        prop_assert_eq!(read(&keys, audience, &changed).is_some(), changed == text);
    }

    #[test]
    fn nothing_that_a_client_sends_is_a_solution_by_chance(text in ".{0,100}") {
        let hall = "hall".parse().unwrap();
        let audience = Audience { room: &hall, network: 0 };
        prop_assert_eq!(solved(&keyring(), audience, &text, NOW), Err(Worthless::Wrong));
    }
}
