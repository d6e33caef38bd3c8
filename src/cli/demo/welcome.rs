//! What the demo says at start: where to look and what to try. Plain text; headings are bold on a terminal.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
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
            let found = listeners.find(|(_, is_tls)| *is_tls == tls);
            found.map_or(0, |(address, _)| address.port())
        };
        let site = format!("http://localhost:{}", port(false));
        let secure = format!("https://localhost:{}", port(true));
        let admin = format!("http://{}", bound.admin);
        let mut page = Page {
            text: String::new(),
            bold,
        };
        page.heading(&self.title());
        page.line(
            "the shop",
            &format!("{site}/ or {secure}/ (its certificate is self-signed)"),
        );
        page.line("its rules", &self.files());
        page.line("operator", &format!("{admin}/metrics, /rooms, /healthz, /readyz"));
        page.line("access log", &self.access_log.display().to_string());
        page.heading("What to try");
        page.line("a queue", &self.queue(&site));
        what_to_try(&mut page, &site, bound.admin);
        page.text.push_str("\nCtrl-C ends it.\n\n");
        page.text
    }

    fn files(&self) -> String {
        let directory = &self.rules.directory;
        let main = Some(directory.join("shop.yaml")).filter(|file| file.exists());
        let files = main.unwrap_or_else(|| directory.join("*.yaml"));
        let note = self.rules.copied.map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{}{note}", files.display())
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

fn what_to_try(page: &mut Page, site: &str, admin: SocketAddr) {
    let room = crowd::ROOM;
    let steer = |action: &str| format!("{} room {action} {room} --admin {admin}", program());
    page.line(
        "the rules",
        "write `admit: 20/s` for `admit: 5/s`, and save: the queue goes faster",
    );
    page.line(
        "a fault",
        "write `opennig` for one `opening`, and save: it is named here, and the old rules stay",
    );
    page.line(
        "a limit",
        &format!(r"for i in $(seq 30); do curl -so /dev/null -w '%{{http_code}} %header{{ratelimit}}\n' {site}/api/quote; done"),
    );
    page.line("a refusal", &format!("curl -i {site}/office"));
    page.line(
        "the room",
        &format!("{} says when the queue will be empty", steer("show")),
    );
    page.line("an order", &steer("hold"));
    page.line(
        "",
        "`open` lets the queue go on; `off` shows what the room spares the shop; `room --help` has them all",
    );
    page.line(
        "figures",
        &format!("curl -s http://{admin}/metrics | grep -E 'tidegate_(requests|room|throttle)'"),
    );
}

/// This program, as it can be called from where the demo was started.
fn program() -> String {
    let here = env::current_dir().ok();
    let program = env::current_exe().ok();
    let below = program.as_ref().and_then(|program| program.strip_prefix(here?).ok());
    let shown = below.or(program.as_deref());
    shown.map_or_else(|| "tidegate".to_owned(), |path| path.display().to_string())
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
