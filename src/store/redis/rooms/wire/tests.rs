use super::*;
use proptest::prelude::*;

fn room_turn() -> RoomTurn {
    RoomTurn {
        turn: Turn::new(Terms::sample(5), 0),
        cursor: Cursor::default(),
    }
}

/// The answer to a turn that carried nothing, in a room where 9 waits, 6 is called and 3 is inside.
fn quiet(news: &[u8]) -> Vec<u8> {
    quiet_with(&[0], news)
}

/// The same, with what is said of a lobby.
fn quiet_with(lobby: &[u8], news: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    [77, 1_000, 4, 1, 1, 1, 9, 6].iter().for_each(|n| put(&mut out, *n));
    out.extend([VISITORS, 3]);
    [5, 0, 0, 0].iter().for_each(|n| put(&mut out, *n));
    size(&mut out, lobby.len());
    out.extend(lobby);
    for _enters_joins_returns in 0..3 {
        size(&mut out, 0);
    }
    put(&mut out, 0);
    size(&mut out, 0);
    out.push(0);
    out.extend(news);
    out
}

#[test]
fn a_turn_says_no_more_than_there_is_to_say() {
    let mut request = room_turn();
    let empty = turn(&request).len();
    assert_eq!(empty, 2 + 9 * 8 + 3 * 8 + 1 + 7 * 4 + 32);
    request.turn.touches = vec![1, 2];
    request.turn.renewals = vec![(3, Timestamp::from_secs(1))];
    request.turn.settings = vec![Setting::AsWritten];
    assert_eq!(turn(&request).len(), empty + 2 * 6 + 14 + 17);
    request.turn.joins = vec![
        Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        },
        Join {
            owner: Some(7),
            otherwise: Otherwise::Refuse,
            share: None,
        },
    ];
    assert_eq!(turn(&request).len(), empty + 2 * 6 + 14 + 17 + 1 + 17);
    request.turn.returns = vec![Return {
        epoch: 5,
        rank: 9,
        shows: Shows::Pass {
            until: Timestamp::from_secs(1),
        },
        owner: None,
    }];
    assert_eq!(turn(&request).len(), empty + 2 * 6 + 14 + 17 + 1 + 17 + 23);
}

#[test]
fn what_no_double_holds_is_cut_off() {
    let mut out = Vec::new();
    number(&mut out, u64::MAX);
    span(&mut out, Duration::MAX);
    assert_eq!(out[..6], [0xff; 6]);
    assert_eq!(out[6..], SPAN_MAX.to_be_bytes());
}

#[test]
fn those_who_wait_are_read_from_bits_beyond_the_frontier() {
    let mut news = vec![1];
    put(&mut news, 0);
    size(&mut news, 2);
    // 5 and 6 are at the frontier or below.
    news.extend([0b0000_0110, 0b0110_0000]);
    size(&mut news, 1);
    number(&mut news, 6);
    size(&mut news, 1);
    number(&mut news, 3);
    let reply = read_reply(&quiet(&news), &room_turn().turn).unwrap();
    let News::Snapshot(snapshot) = reply.news else {
        panic!("{reply:?}")
    };
    assert_eq!(snapshot.waiting, [9, 10]);
    assert_eq!((snapshot.called, snapshot.inside), (vec![6], vec![3]));
    assert_eq!((snapshot.last, snapshot.frontier), (9, 6));
    assert_eq!(
        (reply.outcome.counts.mode, reply.outcome.counts.visitors),
        (Mode::Drain, Some(5))
    );
}

#[test]
fn of_a_lobby_that_is_called_all_are_read_who_wait_in_it() {
    let mut lobby = b"\x01000102030405060708090a0b0c0d0e0f".to_vec();
    [4, 6, 1_000].iter().for_each(|n| put(&mut lobby, *n));
    let mut news = vec![1];
    put(&mut news, 0);
    size(&mut news, 2);
    // The frontier is rank 6 of a lobby from 5 to 10.
    news.extend([0b0000_1110, 0b0110_0000]);
    size(&mut news, 0);
    size(&mut news, 0);
    let reply = read_reply(&quiet_with(&lobby, &news), &room_turn().turn).unwrap();
    let draw = reply.outcome.counts.draw.unwrap();
    assert_eq!(draw.seed.to_string(), "000102030405060708090a0b0c0d0e0f");
    assert_eq!((draw.before, draw.size, draw.at.as_micros()), (4, 6, 1_000));
    assert!(reply.outcome.counts.lobby);
    let News::Snapshot(snapshot) = reply.news else {
        panic!("a snapshot")
    };
    assert_eq!(snapshot.waiting, [5, 6, 9, 10]);
    for wrong in [
        &lobby[..56],
        &[lobby.as_slice(), &[0]].concat(),
        &[b"\x01zz", &lobby[3..]].concat(),
    ] {
        let garbled = read_reply(&quiet_with(wrong, &news), &room_turn().turn);
        assert_eq!(garbled.err(), Some(StoreFault::Garbled));
    }
}

#[test]
fn answers_to_other_questions_are_garbled() {
    let news = [0, 0, 0, 0, 0];
    let mut asked = room_turn().turn;
    assert!(read_reply(&quiet(&news), &asked).is_ok());
    asked.enters = vec![1];
    assert_eq!(read_reply(&quiet(&news), &asked).err(), Some(StoreFault::Garbled));
    asked.enters.clear();
    for wrong in [&news[..4], &[news.as_slice(), &[0]].concat(), &[2, 0, 0, 0, 0]] {
        assert_eq!(read_reply(&quiet(wrong), &asked).err(), Some(StoreFault::Garbled));
    }
}

proptest! {
    #[test]
    fn garbage_is_garbled_and_nothing_worse(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read_reply(&bytes, &room_turn().turn).is_err());
        let mut news = vec![1];
        news.extend(bytes);
        if let Ok(RoomReply { news: News::Snapshot(snapshot), .. }) = read_reply(&quiet(&news), &room_turn().turn) {
            prop_assert!(snapshot.waiting.iter().all(|number| *number > 6));
        }
    }
}
