//! A Redis server of a test's own: on a free port, in a directory of its own, ended by its id.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::skip;

/// Where Debian has it.
const REDIS: &str = "/usr/bin/redis-server";

/// A server starts in some 20 ms on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(20);

/// Ports that are tried: another may take one between looking and starting.
const TRIES: usize = 5;

/// A server, which runs or does not. It is ended when it is dropped.
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    arguments: Vec<String>,
    dir: TempDir,
    /// The setting that takes the port.
    port: &'static str,
    /// The port at which servers of its cluster talk.
    pub(crate) bus: String,
    /// The file of a sentinel.
    sentinel: Option<String>,
    /// A connection that is kept open.
    held: Option<redis::Connection>,
}

impl Redis {
    /// Starts a server with these arguments besides its own. None, and a word on it, where it is not installed.
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        for _ in 0..TRIES {
            let mut server = Self::stopped(arguments)?;
            if server.run() {
                return Some(server);
            }
        }
        panic!("no redis-server could be started");
    }

    /// A server of a cluster, which knows no other yet.
    pub(crate) fn of_cluster() -> Option<Self> {
        let bus = free_address().port().to_string();
        let mut server = Self::start(&[
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "600",
            "--cluster-port",
            &bus,
        ])?;
        server.bus = bus;
        Some(server)
    }

    /// A server that speaks TLS alone, with this certificate and key. With an authority it wants a certificate of that
    /// from its clients.
    pub(crate) fn by_tls(cert: &str, key: &str, authority: Option<&str>) -> Option<Self> {
        let files = ["--tls-cert-file", cert, "--tls-key-file", key];
        let clients = authority.map_or(["--tls-auth-clients", "no"], |file| ["--tls-ca-cert-file", file]);
        let mut server = Self::stopped(&[&files[..], &clients].concat())?;
        server.port = "--tls-port";
        assert!(server.run(), "no server with TLS could be started");
        Some(server)
    }

    /// A sentinel that looks after this server, as `shop`.
    pub(crate) fn sentinel_of(master: &Self) -> Option<Self> {
        let mut sentinel = Self::stopped(&[])?;
        let conf = sentinel.dir.path().join("sentinel.conf");
        let monitor = format!("sentinel monitor shop 127.0.0.1 {} 1", master.address.port());
        std::fs::write(&conf, format!("{monitor}\nsentinel down-after-milliseconds shop 500\n")).unwrap();
        sentinel.sentinel = Some(conf.to_str().unwrap().to_owned());
        assert!(sentinel.run(), "no sentinel could be started");
        Some(sentinel)
    }

    /// A server that does not run yet.
    pub(crate) fn stopped(arguments: &[&str]) -> Option<Self> {
        if !Path::new(REDIS).exists() {
            skip(&format!("there is no {REDIS}"));
            return None;
        }
        Some(Self {
            address: free_address(),
            port: "--port",
            bus: String::new(),
            sentinel: None,
            child: None,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            dir: tempfile::tempdir().unwrap(),
            held: None,
        })
    }

    /// Starts it, empty, and waits until it can be reached; `false` if it ends instead.
    pub(crate) fn run(&mut self) -> bool {
        let mut command = Command::new(REDIS);
        if let Some(conf) = &self.sentinel {
            command.args([conf, "--sentinel"]);
        } else {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        if self.port != "--port" {
            command.args(["--port", "0"]);
        }
        command.args([self.port, &self.address.port().to_string(), "--bind", "127.0.0.1"]);
        command.args(&self.arguments).arg("--dir").arg(self.dir.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let child = self.child.insert(child);
        let end = Instant::now() + START_WITHIN;
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    /// Ends it; all it knew is lost.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Sends a signal, as `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status();
        assert!(sent.unwrap().success());
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

    /// Whether it does what it is asked.
    pub(crate) fn serves(&self) -> bool {
        let pong: redis::RedisResult<String> = redis::cmd("PING").query(&mut self.connection());
        pong.is_ok()
    }

    /// Asks for a text, as `CLUSTER INFO`.
    pub(crate) fn ask(&self, question: &str) -> String {
        let mut words = question.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        let answer: redis::Value = command.query(&mut self.connection()).unwrap();
        redis::from_redis_value(answer.clone()).unwrap_or_else(|_| format!("{answer:?}"))
    }

    /// What it is started with from now on, besides the rest.
    pub(crate) fn add_arguments(&mut self, more: &[&str]) {
        self.arguments
            .extend(more.iter().map(|argument| (*argument).to_owned()));
    }

    /// Runs a script that needs no keys.
    pub(crate) fn run_script(&self, text: &str) {
        let mut connection = self.connection();
        let _: redis::Value = redis::cmd("EVAL").arg(text).arg(0).query(&mut connection).unwrap();
    }

    /// Gives orders, each a command and its arguments, over one connection.
    pub(crate) fn order(&self, orders: &[&str]) {
        order(&mut self.connection(), orders);
    }

    /// The same, logged in with a password.
    pub(crate) fn order_as(&self, password: &str, orders: &[&str]) {
        let mut connection = self.connection();
        order(&mut connection, &[&format!("AUTH {password}")]);
        order(&mut connection, orders);
    }

    /// Gives orders, and keeps the connection open.
    pub(crate) fn order_and_stay(&mut self, orders: &[&str]) {
        let mut connection = self.held.take().unwrap_or_else(|| self.connection());
        order(&mut connection, orders);
        self.held = Some(connection);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn order(connection: &mut redis::Connection, orders: &[&str]) {
    for order in orders {
        let mut words = order.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(if word == "-" { "" } else { word });
        }
        let done: redis::RedisResult<redis::Value> = command.query(connection);
        done.unwrap_or_else(|error| panic!("{order}: {error}"));
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
