//! The log of events: what an operator should know of the process itself, on standard error.
//!
//! One event a line: time in UTC, level, where it was said, and the message, in which control characters are escaped.
//! `TIDEGATE_LOG` sets the level, as in `debug` or `info,tidegate::store=debug`; the default is `info`.
//!
//! Pingora reports each connection that a client breaks as an error. Any scanner could fill a disk with those lines,
//! and they say nothing that the access log and the metrics do not: they are left out, and what else Pingora says is
//! heard from `warn` on. Naming a part of Pingora in `TIDEGATE_LOG` (`pingora_proxy=debug`) lets all of it through.

use std::io::Write as _;

use env_logger::Logger;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::base::clock::{Clock, SystemClock, Timestamp, WallClock};

/// The variable that sets the level.
const LEVEL_VARIABLE: &str = "TIDEGATE_LOG";

/// Makes this the process's logger. Without effect where there is one already, as in a test.
pub fn install() {
    let wall = WallClock::beside(SystemClock::start());
    let directives = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let log = EventLog::new(&directives, move || {
        wall.follow();
        wall.now()
    });
    let level = log.logger.filter();
    if log::set_boxed_logger(Box::new(log)).is_ok() {
        log::set_max_level(level);
    }
}

/// `env_logger`, with the noise left out.
struct EventLog {
    logger: Logger,
    hears_noise: bool,
}

impl EventLog {
    fn new(directives: &str, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let mut builder = env_logger::Builder::new();
        builder
            .filter_level(LevelFilter::Info)
            .filter_module("pingora", LevelFilter::Warn)
            .parse_filters(directives)
            .format(move |out, record| out.write_all(line(now(), record).as_bytes()));
        Self {
            logger: builder.build(),
            hears_noise: directives.contains("pingora"),
        }
    }

    fn hears(&self, record: &Record<'_>) -> bool {
        self.logger.matches(record) && (self.hears_noise || !is_noise(record))
    }
}

impl Log for EventLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.hears(record) {
            self.logger.log(record);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// How Pingora's messages about one connection start.
const NOISE: &[&str] = &[
    "Downstream handshake error",
    "Downstream handshake timeout",
    "H2 handshake error",
    "TLS shutdown failed",
    "failed to send error response to downstream",
    "Error finish sending body to downstream",
    "HTTP server fails to read from downstream",
    "HTTP server fails to write to downstream",
    "HTTP server fails to finish the request",
    "Peer sent more data than expected",
    "failed to acquire reusable stream",
    "tearing down downstream h2 connection",
    // A server said something on a connection that nobody used, usually that it closes it, which Pingora then does.
    "Data received on idle client connection",
    // These quote what the client sent.
    "negative content-length header value",
    "invalid content-length header",
    "Failed to parse accept-encoding",
];

/// How its messages about a request begin. What follows says at whose end it failed.
const FAILED: [&str; 2] = ["Fail to proxy:", "Fail to filter request:"];

/// Whether Pingora tells of one connection: nothing an operator could act on.
fn is_noise(record: &Record<'_>) -> bool {
    if !record.target().starts_with("pingora") {
        return false;
    }
    let message = record.args().to_string();
    let failed = FAILED.iter().find_map(|start| message.strip_prefix(start));
    if let Some(error) = failed {
        return error.trim_start().starts_with("Downstream");
    }
    message.contains("close_notify") || NOISE.iter().any(|start| message.starts_with(start))
}

/// `2026-11-21T04:35:53.042Z warn tidegate::store: the store does not answer`
fn line(now: Timestamp, record: &Record<'_>) -> String {
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let moment = i64::try_from(now.as_micros()).ok();
    let moment = moment
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .unwrap_or_default();
    let message = record.args().to_string();
    let mut line = format!("{moment:.3} {level} {}: ", record.target());
    for character in message.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hears(directives: &str, target: &str, level: Level, message: &str) -> bool {
        let log = EventLog::new(directives, Timestamp::default);
        let args = format_args!("{message}");
        log.hears(&Record::builder().target(target).level(level).args(args).build())
    }

    #[test]
    fn pingora_is_heard_from_warn_on_and_the_rest_from_info() {
        for (target, level, is_heard) in [
            ("tidegate::store", Level::Info, true),
            ("tidegate::store", Level::Debug, false),
            ("pingora_core::server", Level::Info, false),
            ("pingora_core::server", Level::Warn, true),
            ("pingora_proxy", Level::Error, true),
        ] {
            assert_eq!(hears("", target, level, "x"), is_heard, "{target} {level}");
        }
        assert!(hears("debug", "tidegate", Level::Debug, "x"));
        assert!(!hears("debug", "pingora_core", Level::Debug, "x"));
        assert!(hears("pingora_core=debug", "pingora_core::x", Level::Debug, "x"));
        assert!(!hears("error", "tidegate", Level::Warn, "x"));
    }

    #[test]
    fn what_a_client_does_to_its_connection_is_not_an_event() {
        for message in [
            "Downstream handshake error from 203.0.113.9:4711:  TLSHandshakeFailure context: x",
            "Downstream handshake timeout",
            "Fail to proxy:  Downstream ReadError cause: reset, downstream session type: HTTP1.x",
            "Fail to proxy: Downstream ConnectionClosed, status: 0, tries: 1, retry: false, GET /",
            "Fail to filter request: Downstream WriteError cause: Broken pipe, status: 0, request x on route y",
            "TLS shutdown failed, peer closed connection without sending TLS close_notify",
            "Data received on idle client connection, close it",
            "invalid content-length header value <script>",
        ] {
            assert!(!hears("", "pingora_proxy", Level::Error, message), "{message}");
            assert!(
                hears("pingora_proxy=info", "pingora_proxy", Level::Error, message),
                "{message}"
            );
            assert!(hears("", "tidegate", Level::Error, message), "{message}");
        }
        for message in [
            "Fail to filter request: InternalError context: x, status: 500, request x on route y",
            "Fail to proxy: Upstream ConnectRefused context: x, status: 502, tries: 1, retry: false, GET /",
            "Accept() failed too many open files",
        ] {
            assert!(hears("", "pingora_core", Level::Error, message), "{message}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let args = format_args!("the reply was \u{1b}[31m\r\n{}", "caf\u{e9}");
        let record = Record::builder()
            .target("tidegate::store")
            .level(Level::Warn)
            .args(args)
            .build();
        assert_eq!(
            line(Timestamp::from_micros(1_795_235_753_042_137), &record),
            "2026-11-21T04:35:53.042Z warn tidegate::store: the reply was \\u{1b}[31m\\r\\ncaf\u{e9}\n"
        );
    }
}
