//! A Redis server of a test's own: on a free port, in a directory of its own, ended by its id.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::skip;

/// Where Debian has it.
const REDIS: &str = "/usr/bin/redis-server";

/// A server starts in some 20 ms on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Ports that are tried: another may take one between looking and starting.
const TRIES: usize = 5;

/// A running server. It is ended when it is dropped.
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    child: Child,
    more: Vec<String>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server with these arguments besides its own. None, and a word on it, where it is not installed.
    pub(crate) fn start(more: &[&str]) -> Option<Self> {
        if !Path::new(REDIS).exists() {
            skip(&format!("there is no {REDIS}"));
            return None;
        }
        let more: Vec<_> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let mut dir = tempfile::tempdir().unwrap();
        for _ in 0..TRIES {
            let address = free_address();
            let child = spawn(address, &more, dir.path());
            let mut server = Self {
                address,
                child,
                more: more.clone(),
                dir,
            };
            if server.answers() {
                return Some(server);
            }
            dir = std::mem::replace(&mut server.dir, tempfile::tempdir().unwrap());
        }
        panic!("no redis-server could be started");
    }

    /// The URL of it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// A plain connection, for what a test does behind the gateway's back.
    pub(crate) fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection_with_timeout(START_WITHIN).unwrap()
    }

    fn answers(&mut self) -> bool {
        let end = Instant::now() + START_WITHIN;
        while Instant::now() < end {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(address: SocketAddr, more: &[String], dir: &Path) -> Child {
    let mut command = Command::new(REDIS);
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
    command
        .args(["--save", "", "--appendonly", "no"])
        .args(more)
        .arg("--dir")
        .arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
