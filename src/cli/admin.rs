//! How a subcommand speaks to the operator's listener of a running gateway: one request, one answer.

use std::fmt;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{Outcome, run};

/// Longest wait for the gateway: to connect, and for each piece of its answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Largest answer, in bytes: some thousand limits.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Whom to ask, and how to say it.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Listener {
    /// The operator's listener of the gateway: `admin: { bind }` in its process file.
    #[arg(long, default_value = "127.0.0.1:9180", value_parser = address, global = true)]
    pub(super) admin: SocketAddr,
    /// Print the answer as it is, for programs.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// An address, or the first that a name stands for; of both kinds, one of IPv4, as the listener has it unless told
/// otherwise.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wanted = "write a host and a port, as in `127.0.0.1:9180` or `localhost:9180`, without `http://`";
    let mut known: Vec<_> = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; {wanted}"))?
        .collect();
    known.sort_by_key(SocketAddr::is_ipv6);
    known.first().copied().ok_or_else(|| wanted.to_owned())
}

/// Why there is nothing to print.
#[derive(Debug)]
pub(super) enum Silence {
    /// Nobody answers.
    Unreachable(SocketAddr, std::io::Error),
    /// What answers is no gateway.
    Strange {
        /// Who was asked.
        admin: SocketAddr,
        /// What a gateway would tell of.
        of: &'static str,
    },
    /// The gateway says that what was asked for is wrong, and why.
    Refused(String),
    /// The gateway could not do it now, and says why.
    Unable(String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(admin, error) => write!(
                f,
                "no gateway answers on {admin}: {error}; is it running, and is this the address under `admin` in its \
                 process file?"
            ),
            Self::Strange { admin, of } => write!(
                f,
                "what answers on {admin} does not tell of {of}; is this the address under `admin` in the gateway's \
                 process file?"
            ),
            Self::Refused(detail) | Self::Unable(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for Silence {}

impl Silence {
    /// Says it, and gives the code to end with.
    pub(super) fn outcome(&self) -> Outcome {
        match (self, run::failed(self)) {
            (Self::Refused(_), _) => Outcome::Faulty,
            (_, failed) => failed,
        }
    }
}

/// What is asked of a gateway.
#[derive(Debug)]
pub(super) struct Question {
    /// The path on its operator's listener.
    pub(super) path: String,
    /// An order to send; none to look only.
    pub(super) order: Option<Value>,
    /// What the answer tells of, for whoever asked somebody else by mistake.
    pub(super) of: &'static str,
}

/// The body of the answer.
///
/// # Errors
/// When nobody answers, or no gateway, or when the gateway says no.
pub(super) fn ask(admin: SocketAddr, question: &Question) -> Result<String, Silence> {
    let answer = exchange(admin, question).map_err(|error| Silence::Unreachable(admin, error))?;
    let of = question.of;
    let strange = || Silence::Strange { admin, of };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match status {
        Some("200") if body.starts_with(['[', '{']) => Ok(body.to_owned()),
        Some(status) => Err(refusal(status, body).ok_or_else(strange)?),
        None => Err(strange()),
    }
}

/// What a problem document says; none when the body is no such thing.
fn refusal(status: &str, body: &str) -> Option<Silence> {
    let problem: Value = serde_json::from_str(body).ok()?;
    let detail = problem.get("detail")?.as_str()?.to_owned();
    Some(match status.starts_with('4') {
        true => Silence::Refused(detail),
        false => Silence::Unable(detail),
    })
}

fn exchange(admin: SocketAddr, question: &Question) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.write_all(request(admin, question).as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn request(admin: SocketAddr, question: &Question) -> String {
    let Question { path, order, .. } = question;
    let rest = format!("{path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n");
    match order.as_ref().map(Value::to_string) {
        None => format!("GET {rest}\r\n"),
        Some(body) => {
            let length = body.len();
            format!("POST {rest}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_or_a_name_and_no_link() {
        assert_eq!(address("127.0.0.1:9180"), Ok(([127, 0, 0, 1], 9180).into()));
        assert!(address("localhost:9180").is_ok_and(|found| found.ip().is_loopback()));
        for wrong in ["http://127.0.0.1:9180", "127.0.0.1"] {
            assert!(
                address(wrong).unwrap_err().contains("write a host and a port"),
                "{wrong}"
            );
        }
    }
}
