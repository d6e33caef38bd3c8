//! `tidegate limits`: what a running gateway knows of its limits, asked of its operator's listener.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{Outcome, run};
use crate::throttle::LimitView;

/// Longest wait for the gateway: to connect, and for each piece of its answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Largest answer, in bytes: some thousand limits.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Whom to ask, and how to say it.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Options {
    /// The operator's listener of the gateway: `admin: { bind }` in its process file.
    #[arg(long, default_value = "127.0.0.1:9180")]
    admin: SocketAddr,
    /// Print the answer as it is, for programs.
    #[arg(long)]
    json: bool,
}

/// Why there is nothing to print.
#[derive(Debug)]
enum Silence {
    /// Nobody answers.
    Unreachable(SocketAddr, std::io::Error),
    /// What answers is no gateway.
    Strange(SocketAddr),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(admin, error) => write!(
                f,
                "no gateway answers on {admin}: {error}; is it running, and is this the address under `admin` in its \
                 process file?"
            ),
            Self::Strange(admin) => write!(
                f,
                "what answers on {admin} does not tell of limits; is this the address under `admin` in the gateway's \
                 process file?"
            ),
        }
    }
}

impl std::error::Error for Silence {}

/// Asks once and prints.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn print(options: Options) -> Outcome {
    let Options { admin, json } = options;
    match ask(admin) {
        Ok(body) if json => println!("{body}"),
        Ok(body) => match serde_json::from_str::<Vec<LimitView>>(&body) {
            Ok(limits) => print!("{}", table(&limits)),
            Err(_) => return run::failed(&Silence::Strange(admin)),
        },
        Err(silence) => return run::failed(&silence),
    }
    Outcome::Done
}

/// The body of the answer to `GET /limits`.
fn ask(admin: SocketAddr) -> Result<String, Silence> {
    let answer = exchange(admin).map_err(|error| Silence::Unreachable(admin, error))?;
    let strange = || Silence::Strange(admin);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let good = head.starts_with("HTTP/1.1 200 ") && body.starts_with('[');
    good.then(|| body.to_owned()).ok_or_else(strange)
}

fn exchange(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    write!(
        stream,
        "GET /limits HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const COLUMNS: [&str; 9] = [
    "LIMIT", "RULE", "KEYS", "BUDGET", "DRAWS/S", "ADMITTED", "REFUSED", "STRANDED", "HELD",
];

/// A line for each limit, and below it its hottest keys.
fn table(limits: &[LimitView]) -> String {
    if limits.is_empty() {
        return "no limits\n".to_owned();
    }
    let rows: Vec<[String; COLUMNS.len()]> = limits.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([COLUMNS[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
    let mut text = line(&COLUMNS.map(str::to_owned), &widths);
    for (row, limit) in rows.iter().zip(limits) {
        text.push_str(&line(row, &widths));
        for hot in &limit.hottest {
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "  {}  {} a second, {} held for it",
                hot.fingerprint, hot.demand_per_second, hot.budget
            );
        }
    }
    text
}

fn row(limit: &LimitView) -> [String; COLUMNS.len()] {
    [
        limit.name.clone(),
        limit.limit.clone(),
        format!("{}/{}", limit.hot_keys, limit.hot_keys_max),
        limit.budget_held.to_string(),
        format!("{:.1}", limit.draws_per_second),
        limit.admitted.to_string(),
        limit.refused.to_string(),
        format!("{:.1}%", limit.stranded_share * 100.0),
        limit.held.to_string(),
    ]
}

/// Names to the left, numbers to the right.
fn line(cells: &[String; COLUMNS.len()], widths: &[usize; COLUMNS.len()]) -> String {
    let aligned = cells.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
        if column < 2 {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::HotView;

    #[test]
    fn a_table_has_a_line_for_each_limit_and_its_hottest_keys() {
        let limit = LimitView {
            name: "per-client".to_owned(),
            limit: "100/min".to_owned(),
            tolerance: 0.05,
            hot_keys: 12,
            hot_keys_max: 100_000,
            budget_held: 340,
            draws_per_second: 19.96,
            admitted: 123_456,
            refused: 789,
            granted: 1_000,
            stranded_share: 0.0213,
            held: 3,
            drawing: 0,
            scanned: 12,
            hottest: vec![HotView {
                fingerprint: "0badcafe".to_owned(),
                demand_per_second: 950,
                budget: 40,
            }],
        };
        let expected = "\
LIMIT       RULE          KEYS  BUDGET  DRAWS/S  ADMITTED  REFUSED  STRANDED  HELD
per-client  100/min  12/100000     340     20.0    123456      789      2.1%     3
  0badcafe  950 a second, 40 held for it
";
        assert_eq!(table(&[limit]), expected);
        assert_eq!(table(&[]), "no limits\n");
    }
}
