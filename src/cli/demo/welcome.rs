//! What the demo says at start: where to look and what to try. Plain text; headings are bold on a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;

use super::rules::RulesInForce;
use super::{Options, crowd, shop};
use crate::server::Bound;

/// What there is to tell.
pub(super) struct Welcome<'a> {
    pub(super) options: &'a Options,
    pub(super) rules: &'a RulesInForce,
    pub(super) access_log: PathBuf,
}

impl Welcome<'_> {
    /// Says it on the standard output.
    pub(super) fn print(&self, bound: &Bound) {
        let mut out = io::stdout();
        let text = self.text(bound, out.is_terminal());
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            log::warn!("the welcome could not be written: {error}");
        }
    }

    fn text(&self, bound: &Bound, bold: bool) -> String {
        let port = |tls| {
            let mut listeners = bound.listeners.iter();
            listeners
                .find(|(_, is_tls)| *is_tls == tls)
                .map_or(0, |(address, _)| address.port())
        };
        let (site, secure) = (
            format!("http://localhost:{}", port(false)),
            format!("https://localhost:{}", port(true)),
        );
        let (admin, room) = (format!("http://{}", bound.admin), crowd::ROOM);
        let files = self.rules.directory.join("shop.yaml");
        let rules = format!(
            "{}  ({})",
            files.display(),
            self.rules.copied.unwrap_or("saved changes hold at once")
        );
        let headers = "grep -iE '^(HTTP|RateLimit:|Retry-After)' | tr -d '\\r' | paste -sd ' '";
        let order = format!("curl -X POST -H 'content-type: application/json' {admin}/rooms/{room}");
        let mut page = Page {
            text: String::new(),
            bold,
        };

        page.heading(&self.title());
        page.line(
            "the shop",
            &format!("{site}/  or  {secure}/  (the certificate is self-signed)"),
        );
        page.line("its rules", &rules);
        page.line("operator", &format!("{admin}/metrics  /rooms  /healthz  /readyz"));
        page.line("access log", &self.access_log.display().to_string());
        page.heading("What to try");
        page.line("the queue", &self.queue(&site));
        page.line("faster", "in the rules, write `admit: 20/s` for `admit: 5/s`, and save");
        page.line("hold it", &format!("{order} -d '{{\"mode\":\"hold\"}}'"));
        page.line(
            "",
            "and `auto` to let it go on, `off` to see what the room spared the shop",
        );
        page.line(
            "a limit",
            &format!("for i in $(seq 30); do curl -si {site}/api/quote | {headers}; done"),
        );
        page.line("a refusal", &format!("curl -i {site}/office"));
        page.line(
            "a fault",
            "in the rules, write `opennig` for one `opening`, and save: the line is named here,",
        );
        page.line("", "and the shop goes on under the old rules");
        page.line(
            "figures",
            &format!("curl -s {admin}/metrics | grep -E '^tidegate_(requests|room|throttle)'"),
        );
        page.text.push_str("\nCtrl-C ends it.\n\n");
        page.text
    }

    fn title(&self) -> String {
        let seats = shop::grouped(shop::SEATS);
        match self.options.crowd {
            0 => format!("A ticket shop with {seats} seats stands behind the gateway"),
            crowd => {
                let crowd = shop::grouped(crowd);
                format!("A ticket shop with {seats} seats stands behind the gateway, and {crowd} visitors want in")
            }
        }
    }

    fn queue(&self, site: &str) -> String {
        match self.options.crowd {
            0 => format!("start again with --crowd 500, then open {site}/tickets"),
            _ => format!("open {site}/tickets in a browser and wait for your turn"),
        }
    }
}

struct Page {
    text: String,
    bold: bool,
}

impl Page {
    fn heading(&mut self, heading: &str) {
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        // Writing to a string cannot fail.
        let _written = writeln!(self.text, "\n{on}{heading}{off}\n");
    }

    fn line(&mut self, label: &str, text: &str) {
        let _written = writeln!(self.text, "  {label:<12}{text}");
    }
}
