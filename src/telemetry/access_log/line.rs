//! A line of the access log.
//!
//! Whatever a client sends, a record is one line, and no terminal that shows it changes colour or direction. It holds
//! no secret: no cookie, no authorization, and no query, since reset links, signed URLs and API keys travel in queries.
//! A referer is cut before its query, too.

use std::net::IpAddr;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::base::clock::Timestamp;
use crate::base::digits::{DIGITS_MAX, decimal};
use crate::base::exchange::Scheme;
use crate::base::key::Key;

/// Capacity that spares most lines a second allocation, in bytes.
pub(super) const BYTES_USUAL: usize = 768;

/// Longest value of a client that is logged, in bytes; the rest is cut off.
const VALUE_BYTES_MAX: usize = 2048;

/// All that is said of a request.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When its head had been read.
    pub time: Timestamp,
    /// Its id.
    pub id: &'a str,
    /// Who asked, behind trusted proxies.
    pub client_ip: IpAddr,
    /// The method as sent.
    pub method: &'a str,
    /// How the client was connected.
    pub scheme: Scheme,
    /// The host asked for.
    pub host: &'a str,
    /// The path as sent, not normalised; anything from a `?` on is left out.
    pub path: &'a [u8],
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'a str,
    /// The status answered; 499 when the client was gone before.
    pub status: u16,
    /// Bytes of body sent to the client.
    pub bytes_sent: u64,
    /// Bytes of body received from the client.
    pub request_bytes: u64,
    /// From the head to the end of the answer.
    pub duration: Duration,
    /// Name of the upstream, where one was asked.
    pub upstream: Option<&'a str>,
    /// Address of its server that was asked last.
    pub upstream_address: Option<&'a str>,
    /// From choosing that server to the head of its answer.
    pub upstream_time: Option<Duration>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Why the gateway answered itself, where it did.
    pub reason: Option<&'a str>,
    /// The room whose place the request was about, and its order number.
    pub place: Option<(&'a str, u64)>,
    /// The limit that refused the request, or would have in a dry run, and the key that it counted it by.
    pub limited: Option<(&'a str, Key)>,
    /// The `User-Agent` as sent.
    pub user_agent: Option<&'a [u8]>,
    /// The `Referer` as sent; its query is left out.
    pub referer: Option<&'a [u8]>,
    /// `TLSv1.2`, `TLSv1.3`; none on plain text.
    pub tls_version: Option<&'a str>,
}

/// What stands between two values of an object. Keys are literals of this file and need no escapes.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// Appends the record as a JSON object, without a line break. Keys that have nothing to say are left out; durations
/// are in seconds. All text is escaped: quotes, controls, line separators, marks that change direction or show nothing;
/// bytes that are not UTF-8 become U+FFFD.
pub fn render_json(line: &mut Vec<u8>, record: &Record<'_>) {
    line.extend_from_slice(b"{\"time\":\"");
    push_rfc3339(line, record.time);
    line.push(b'"');
    text(line, key!("id"), record.id.as_bytes());
    line.extend_from_slice(b",\"client_ip\":\"");
    push_address(line, record.client_ip);
    line.push(b'"');
    text(line, key!("method"), record.method.as_bytes());
    text(line, key!("scheme"), record.scheme.as_str().as_bytes());
    text(line, key!("host"), record.host.as_bytes());
    text(line, key!("path"), before_query(record.path));
    text(line, key!("protocol"), record.protocol.as_bytes());
    number(line, key!("status"), u64::from(record.status));
    number(line, key!("bytes_sent"), record.bytes_sent);
    number(line, key!("request_bytes"), record.request_bytes);
    seconds(line, key!("duration"), record.duration);
    optional(line, key!("route"), record.route.map(str::as_bytes));
    optional(line, key!("upstream"), record.upstream.map(str::as_bytes));
    optional(
        line,
        key!("upstream_address"),
        record.upstream_address.map(str::as_bytes),
    );
    if let Some(time) = record.upstream_time {
        seconds(line, key!("upstream_seconds"), time);
    }
    optional(line, key!("reason"), record.reason.map(str::as_bytes));
    if let Some((room, place)) = record.place {
        text(line, key!("room"), room.as_bytes());
        number(line, key!("room_number"), place);
    }
    if let Some((limit, key)) = record.limited {
        text(line, key!("limit"), limit.as_bytes());
        text(line, key!("limit_key"), &key.fingerprint());
    }
    optional(line, key!("user_agent"), record.user_agent);
    optional(line, key!("referer"), record.referer.map(before_query));
    optional(line, key!("tls"), record.tls_version.map(str::as_bytes));
    line.push(b'}');
}

/// Appends the record in the combined format, without a line break:
/// `192.0.2.7 - - [21/Nov/2026:04:35:53 +0000] "GET /cart HTTP/1.1" 200 512 "referer" "user agent"`.
///
/// Times are in UTC. Quotes, backslashes and all that is not printable ASCII are written as `\xHH`, as nginx does.
pub fn render_combined(line: &mut Vec<u8>, record: &Record<'_>) {
    push_address(line, record.client_ip);
    line.extend_from_slice(b" - - [");
    push_clf_time(line, record.time);
    line.extend_from_slice(b"] \"");
    push_hex_escaped(line, record.method.as_bytes());
    line.push(b' ');
    push_hex_escaped(line, before_query(record.path));
    line.push(b' ');
    push_hex_escaped(line, record.protocol.as_bytes());
    line.extend_from_slice(b"\" ");
    push_padded(line, u64::from(record.status), 3);
    line.push(b' ');
    push_padded(line, record.bytes_sent, 1);
    for value in [record.referer.map(before_query), record.user_agent] {
        line.extend_from_slice(b" \"");
        push_hex_escaped(line, value.filter(|value| !value.is_empty()).unwrap_or(b"-"));
        line.push(b'"');
    }
}

fn before_query(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#'));
    &target[..end.unwrap_or(target.len())]
}

fn text(line: &mut Vec<u8>, key: &'static [u8], value: &[u8]) {
    line.extend_from_slice(key);
    line.push(b'"');
    push_json_escaped(line, value);
    line.push(b'"');
}

fn optional(line: &mut Vec<u8>, key: &'static [u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        text(line, key, value);
    }
}

fn number(line: &mut Vec<u8>, key: &'static [u8], value: u64) {
    line.extend_from_slice(key);
    push_padded(line, value, 1);
}

fn seconds(line: &mut Vec<u8>, key: &'static [u8], span: Duration) {
    line.extend_from_slice(key);
    push_padded(line, span.as_secs(), 1);
    let mut micros = *b".000000";
    let [_, digits @ ..] = &mut micros;
    write_digits(digits, span.subsec_micros());
    line.extend_from_slice(&micros);
}

/// Appends the digits of `value`, with zeros in front up to `width`.
fn push_padded(line: &mut Vec<u8>, value: u64, width: usize) {
    if value < 10 && width == 1 {
        line.push(b'0' + value as u8);
        return;
    }
    line.extend_from_slice(decimal(value, width, &mut [0; DIGITS_MAX]));
}

/// Writes the last digits of `value`, as many as there is room for.
fn write_digits(room: &mut [u8], value: u32) {
    let mut rest = value;
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

fn push_address(line: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                push_padded(line, u64::from(octet), 1);
            }
        }
        IpAddr::V6(address) => line.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// A moment beyond the calendar (the year 9999) reads as the epoch.
fn utc(time: Timestamp) -> DateTime {
    let micros = i64::try_from(time.as_micros()).unwrap_or(0);
    Offset::UTC.to_datetime(jiff::Timestamp::from_microsecond(micros).unwrap_or_default())
}

fn push_rfc3339(line: &mut Vec<u8>, time: Timestamp) {
    let date = utc(time);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    write_digits(&mut text[..4], date.year().unsigned_abs().into());
    write_digits(&mut text[5..7], date.month().unsigned_abs().into());
    write_digits(&mut text[8..10], date.day().unsigned_abs().into());
    write_digits(&mut text[11..13], date.hour().unsigned_abs().into());
    write_digits(&mut text[14..16], date.minute().unsigned_abs().into());
    write_digits(&mut text[17..19], date.second().unsigned_abs().into());
    write_digits(&mut text[20..23], date.millisecond().unsigned_abs().into());
    line.extend_from_slice(&text);
}

fn push_clf_time(line: &mut Vec<u8>, time: Timestamp) {
    const MONTHS: [&[u8]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
    ];
    let date = utc(time);
    push_padded(line, date.day().unsigned_abs().into(), 2);
    line.push(b'/');
    line.extend_from_slice(MONTHS[usize::from(date.month().unsigned_abs() - 1) % 12]);
    line.push(b'/');
    push_padded(line, date.year().unsigned_abs().into(), 4);
    for part in [date.hour(), date.minute(), date.second()] {
        line.push(b':');
        push_padded(line, part.unsigned_abs().into(), 2);
    }
    line.extend_from_slice(b" +0000");
}

fn cut(value: &[u8]) -> &[u8] {
    &value[..value.len().min(VALUE_BYTES_MAX)]
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn push_json_escaped(line: &mut Vec<u8>, value: &[u8]) {
    let value = cut(value);
    // Without an early end the compiler looks at many bytes at once, and nearly every value is plain to its end.
    if value.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        line.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_json_char(line, character);
        }
        if !chunk.invalid().is_empty() {
            push_unicode_escape(line, char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether a byte stands for itself in both formats.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

fn push_json_char(line: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
        _ if is_hidden(character) => push_unicode_escape(line, character),
        _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Controls, line separators, and marks that are invisible or turn the text around.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

fn push_unicode_escape(line: &mut Vec<u8>, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        line.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            line.push(HEX[usize::from(*unit >> shift) & 0xf]);
        }
    }
}

fn push_hex_escaped(line: &mut Vec<u8>, value: &[u8]) {
    for byte in cut(value) {
        if is_plain(*byte) {
            line.push(*byte);
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
            line.extend_from_slice(&[
                b'\\',
                b'x',
                digits[0].to_ascii_uppercase(),
                digits[1].to_ascii_uppercase(),
            ]);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
