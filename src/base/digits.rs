//! Numbers in digits, where the formatter of the standard library takes longer for each than all else that is written,
//! and digits that are read two at a time.

/// Digits of the largest number.
pub const DIGITS_MAX: usize = 20;

/// A number in decimal digits, at least so many and at most [`DIGITS_MAX`]; written into `room`.
pub fn decimal(number: u64, width: usize, room: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let (mut start, mut rest) = (DIGITS_MAX, number);
    while rest > 0 || DIGITS_MAX - start < width.min(DIGITS_MAX) {
        start -= 1;
        room[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    &room[start..]
}

/// The byte that two hexadecimal digits stand for, small or capital.
pub fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_written_as_the_standard_library_writes_it(number: u64, bits in 0..64, width in 0usize..=DIGITS_MAX) {
            let number = number >> bits;
            let mut room = [0; DIGITS_MAX];
            let expected = if number == 0 && width == 0 { String::new() } else { format!("{number:0width$}") };
            prop_assert_eq!(decimal(number, width, &mut room), expected.as_bytes());
        }

        #[test]
        fn two_digits_are_a_byte(byte: u8) {
            for text in [format!("{byte:02x}"), format!("{byte:02X}")] {
                prop_assert_eq!(hexadecimal(text.as_bytes()[0], text.as_bytes()[1]), Some(byte));
            }
        }
    }

    #[test]
    fn what_is_no_digit_makes_no_byte() {
        for (high, low) in [(b'g', b'0'), (b'0', b'G'), (b' ', b'1'), (0xc3, b'1')] {
            assert_eq!(hexadecimal(high, low), None);
        }
    }
}
