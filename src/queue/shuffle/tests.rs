use proptest::prelude::*;

use super::*;

/// The seed of the published example.
const EXAMPLE: Seed = Seed(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);

fn ranks(seed: Seed, size: u64) -> Vec<u64> {
    let shuffle = Shuffle::new(seed, size);
    (1..=size).map(|number| shuffle.rank(number)).collect()
}

proptest! {
    #[test]
    fn ranks_are_a_permutation_and_numbers_its_inverse(seed: u128, size in 0u64..3_000) {
        let shuffle = Shuffle::new(Seed(seed), size);
        let mut seen = vec![false; usize::try_from(size).unwrap()];
        for number in 1..=size {
            let rank = shuffle.rank(number);
            prop_assert!((1..=size).contains(&rank));
            prop_assert!(!std::mem::replace(&mut seen[usize::try_from(rank).unwrap() - 1], true));
            prop_assert_eq!(shuffle.number(rank), number);
        }
    }

    #[test]
    fn a_large_lobby_is_walked_both_ways(seed: u128, size in 1u64..3_000_000, at in 0.0..1.0f64) {
        let shuffle = Shuffle::new(Seed(seed), size);
        let number = 1 + (at * size as f64) as u64;
        let rank = shuffle.rank(number);
        prop_assert!((1..=size).contains(&rank));
        prop_assert_eq!(shuffle.number(rank), number);
    }

    #[test]
    fn what_is_not_of_the_lobby_stays_what_it_is(seed: u128, size in 0u64..100, beyond in 1u64..1_000) {
        let shuffle = Shuffle::new(Seed(seed), size);
        for number in [0, size + beyond] {
            prop_assert_eq!((shuffle.rank(number), shuffle.number(number)), (number, number));
        }
    }
}

/// Anyone can follow this with `printf %s TEXT | sha1sum`. Of lobby number 1, column and row begin as 0 and 0 and
/// become 1,0 then 1,1 then 2,1 then 2,1 then 0,1 then 0,1: cell 3, rank 4.
#[test]
fn the_worked_example() {
    assert_eq!(added(EXAMPLE, 0, 0), 0xaacd_139c, "{EXAMPLE}:0:0");
    assert_eq!(ranks(EXAMPLE, 5), [4, 1, 2, 5, 3]);
    assert_eq!(ranks(EXAMPLE, 3), [2, 1, 3]);
    assert_eq!(ranks(EXAMPLE, 10), [5, 2, 6, 10, 4, 9, 3, 8, 7, 1]);
    let large = Shuffle::new(EXAMPLE, 300_000);
    let some = [1, 2, 3, 150_000, 300_000].map(|number| large.rank(number));
    assert_eq!(some, [119_595, 191_345, 240_509, 150_723, 261_763]);
    let drawn = Seed::draw(EXAMPLE.0, 1_700_000_000_000_000);
    assert_eq!(drawn.to_string(), "e160fbecc5fcb446099e240d122bcee8");
}

/// Whoever comes first is as likely to be called first as whoever comes last. 30,000 seeds; a cell that is a fifth off
/// its mean would be some fifteen standard deviations away.
#[test]
fn every_number_has_every_rank_equally_often() {
    for size in [2u64, 3, 5, 7, 12] {
        let seeds = 30_000;
        let width = usize::try_from(size).unwrap();
        let mut counts = vec![vec![0u32; width]; width];
        for seed in 0..seeds {
            let drawn = Seed::draw(seed, 1);
            for (row, rank) in counts.iter_mut().zip(ranks(drawn, size)) {
                row[usize::try_from(rank).unwrap() - 1] += 1;
            }
        }
        let mean = seeds as f64 / size as f64;
        for (number, row) in counts.iter().enumerate() {
            for (rank, count) in row.iter().enumerate() {
                let off = (f64::from(*count) - mean).abs() / mean;
                assert!(
                    off < 0.2,
                    "of {size}: number {} got rank {} {count} times",
                    number + 1,
                    rank + 1
                );
            }
        }
    }
}
