//! `tidegate limits`: what a running gateway knows of its limits, asked of its operator's listener.

use std::fmt::Write as _;

use super::admin::{self, Question, Silence};
use super::{Outcome, run, table};
use crate::throttle::LimitView;

/// What the listener tells of, when it is the right one.
const OF: &str = "limits";

/// Asks once and prints.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn print(options: admin::Listener) -> Outcome {
    let admin::Listener { admin, json } = options;
    let question = Question {
        path: "/limits".to_owned(),
        order: None,
        of: OF,
    };
    match admin::ask(admin, &question) {
        Ok(body) if json => println!("{body}"),
        Ok(body) => match serde_json::from_str::<Vec<LimitView>>(&body) {
            Ok(limits) => print!("{}", table(&limits)),
            Err(_) => return run::failed(&Silence::Strange { admin, of: OF }),
        },
        Err(silence) => return silence.outcome(),
    }
    Outcome::Done
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
    let lines = table::lines(COLUMNS, &rows, 2);
    let (heading, lines) = lines
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut text = heading.to_owned();
    for (line, limit) in lines.iter().zip(limits) {
        text.push_str(line);
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
