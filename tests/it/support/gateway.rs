//! The gateway under test: the real program, with a configuration that the test writes.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// The program.
pub(crate) const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// Lines of the process file that a test need not write.
const DEFAULTS: &[(&str, &str)] = &[
    ("listeners", "listeners: [{ bind: 127.0.0.1:0 }]"),
    ("admin", "admin: { bind: 127.0.0.1:0 }"),
    ("threads", "threads: 1"),
    ("rules", "rules: [rules/*.yaml]"),
];

/// A configuration before it runs.
pub(crate) struct Setup {
    dir: TempDir,
    process: String,
}

impl Setup {
    /// A gateway with these rules, one plain listener and one thread.
    pub(crate) fn new(rules: &str) -> Self {
        let setup = Self {
            dir: tempfile::tempdir().unwrap(),
            process: String::new(),
        };
        setup.file("rules/rules.yaml", rules)
    }

    /// Adds lines to the process file.
    pub(crate) fn process(mut self, lines: &str) -> Self {
        writeln!(self.process, "{}", lines.trim()).unwrap();
        self
    }

    /// Writes a file beside the process file.
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// The directory of the process file.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the process file and gives its path.
    pub(crate) fn write(&self) -> PathBuf {
        let mut text = self.process.clone();
        for (key, line) in DEFAULTS {
            let written = self.process.lines().any(|line| line.starts_with(&format!("{key}:")));
            if !written {
                writeln!(text, "{line}").unwrap();
            }
        }
        let path = self.dir.path().join("tidegate.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the gateway and waits until it listens.
    pub(crate) async fn start(self) -> Gateway {
        super::client::provide();
        let mut command = Command::new(TIDEGATE);
        command.arg("run").arg("-c").arg(self.write());
        command.env("TIDEGATE_LOG", "info,tidegate=debug").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let access_log = Lines::of(child.stdout.take().unwrap());
        let mut gateway = Gateway {
            dir: self.dir,
            child,
            log,
            access_log,
            listeners: Vec::new(),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        gateway.listen().await;
        gateway
    }
}

/// A gateway that runs. It is killed when it is dropped.
pub(crate) struct Gateway {
    dir: TempDir,
    child: Child,
    /// What it says on standard error.
    pub(crate) log: Lines,
    /// What it says on standard output.
    pub(crate) access_log: Lines,
    listeners: Vec<(SocketAddr, String)>,
    /// The operator's listener.
    pub(crate) admin: SocketAddr,
}

impl Gateway {
    /// A gateway with these rules and nothing else of note.
    pub(crate) async fn start(rules: &str) -> Self {
        Setup::new(rules).start().await
    }

    async fn listen(&mut self) {
        let log = self.log.clone();
        let lines = eventually("the gateway listens", PATIENCE, async || {
            let lines = log.all();
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended with {status}:\n{}", lines.join("\n"));
            }
            lines
                .iter()
                .any(|line| line.contains("operator's listener on http://"))
                .then_some(lines)
        })
        .await;
        for line in lines {
            if let Some((_, url)) = line.split_once("operator's listener on http://") {
                self.admin = url.parse().unwrap();
            } else if let Some((_, url)) = line.split_once("listening on ") {
                let (scheme, address) = url.split_once("://").unwrap();
                self.listeners.push((address.parse().unwrap(), scheme.to_owned()));
            }
        }
    }

    /// The first listener of a scheme.
    pub(crate) fn listener(&self, scheme: &str) -> SocketAddr {
        let found = self.listeners.iter().find(|(_, of)| of == scheme);
        found.unwrap_or_else(|| panic!("there is no {scheme} listener")).0
    }

    /// The first plain listener.
    pub(crate) fn http(&self) -> SocketAddr {
        self.listener("http")
    }

    /// A URL on the first plain listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http())
    }

    /// A URL on the operator's listener.
    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// The directory of the process file.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The value of a series, written with its labels as in `tidegate_requests_total{code="200",route="a"}`; 0 where
    /// there is none.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// All metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        reqwest::get(self.admin_url("/metrics"))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Waits for a line of the log that holds `text`, and gives it.
    pub(crate) async fn says(&self, text: &str) -> String {
        let what = format!("the log says {text:?}");
        eventually(&what, PATIENCE, async || {
            self.log.all().into_iter().find(|line| line.contains(text))
        })
        .await
    }

    /// Waits until the access log has so many lines, and gives them, parsed.
    pub(crate) async fn access_lines(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} lines in the access log");
        let lines = eventually(&what, PATIENCE, async || {
            let lines = self.access_log.all();
            (lines.len() >= count).then_some(lines)
        });
        let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        lines.await.iter().map(parse).collect()
    }

    /// Sends a signal, as `TERM` or `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let order = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(order).status().unwrap().success());
    }

    /// Waits for the end of the process and gives its code.
    pub(crate) async fn exit_code(&mut self, within: Duration) -> Option<i32> {
        eventually("the gateway ends", within, async || self.child.try_wait().unwrap())
            .await
            .code()
    }

    /// Whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the gateway said:\n{}", self.log.all().join("\n"));
        }
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines that a process has written so far.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let written = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                written
                    .0
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        lines
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
