//! `tidegate demo`: a small ticket shop, the gateway in front of it, and a crowd that wants in.
//!
//! The gateway is the real thing: it reads a process file and rule files like any other, and the rules can be edited
//! while it runs. Only what surrounds it is made here, and nothing of it is left when it ends.

mod aside;
mod capacity;
mod crowd;
mod rules;
mod scratch;
mod setup;
mod shop;
mod welcome;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;

use self::aside::Aside;
use self::crowd::CROWD_MAX;
use self::rules::RulesInForce;
use self::scratch::Scratch;
use self::welcome::Welcome;
use super::{Outcome, run};
use crate::base::clock::SystemClock;
use crate::config::load::{self, LoadError};
use crate::server::build::{BuildError, build};
use crate::server::{Bound, StartError};
use crate::telemetry::event_log;

/// What can be chosen about the demo. A port of 0 means any that is free.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Simulated visitors, so that you stand in a queue that moves; at most 20000.
    #[arg(long, value_name = "VISITORS", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(CROWD_MAX)))]
    crowd: u32,

    /// The gateway's port; 0 for any that is free, here and below.
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// The gateway's port with TLS, under a certificate made for this run.
    #[arg(long, default_value_t = 8443)]
    tls_port: u16,

    /// The port of the operator's listener.
    #[arg(long, default_value_t = 9180)]
    admin_port: u16,

    /// The port of the shop behind the gateway. Another than 9000 makes a copy of the rules in which it stands.
    #[arg(long, default_value_t = rules::SHOP_PORT)]
    shop_port: u16,

    /// Visitors that the shop can stand at once. Beyond them it grows slow and begins to fail.
    #[arg(long, value_name = "VISITORS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    stands: u32,

    /// A directory of rule files to run on instead, as they are.
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
}

/// Why there is no demo.
#[derive(Debug)]
enum DemoError {
    /// A file or directory that the demo makes or reads.
    File(PathBuf, io::Error),
    /// The shop cannot listen.
    Shop(SocketAddr, io::Error),
    /// A thread or its run time cannot be had.
    Thread(&'static str, io::Error),
    /// The certificate cannot be made.
    Certificate(rcgen::Error),
    /// The configuration is refused.
    Refused(LoadError),
    /// The gateway cannot be built.
    Unbuilt(BuildError),
    /// The gateway cannot start.
    Unstarted(StartError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Shop(address, error) => write!(
                f,
                "the shop cannot listen on {address}: {error}; choose another port with --shop-port"
            ),
            Self::Thread(whose, error) => write!(f, "the {whose} cannot start: {error}"),
            Self::Certificate(error) => write!(f, "the certificate cannot be made: {error}"),
            Self::Refused(error) => error.fmt(f),
            Self::Unbuilt(error) => error.fmt(f),
            Self::Unstarted(error @ StartError::Bind(..)) => write!(
                f,
                "{error}; choose other ports with --port, --tls-port and --admin-port"
            ),
            Self::Unstarted(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DemoError {}

/// Runs the demo until it is told to stop.
pub(super) fn demo(options: Options) -> Outcome {
    event_log::install();
    match play(&options) {
        Ok(()) => Outcome::Done,
        Err(DemoError::Refused(error)) => run::refused(&error),
        Err(error) => run::failed(&error),
    }
}

fn play(options: &Options) -> Result<(), DemoError> {
    let scratch = Scratch::create()?;
    let (shop_socket, shop_address) = listen(options.shop_port)?;
    let rules = RulesInForce::choose(options.rules.as_deref(), &scratch, shop_address.port())?;
    let process_file = setup::write(options, &rules.directory, &scratch)?;
    let loaded = load::load(&process_file).map_err(DemoError::Refused)?;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    let process = build(&process_file, loaded).map_err(|error| match error {
        BuildError::Faulty(faults) => DemoError::Refused(LoadError::Faulty(faults)),
        other => DemoError::Unbuilt(other),
    })?;

    let shop = shop::Shop::new(options.stands, SystemClock::start());
    let _shop = Aside::start("shop", |stop| shop::serve(shop_socket, shop, stop))?;
    let mut crowd = None;
    let welcome = Welcome {
        options,
        rules: &rules,
        access_log: scratch.path(setup::ACCESS_LOG),
    };
    let ready = |bound: &Bound| {
        welcome.print(bound);
        crowd = come(options.crowd, bound);
    };
    process.run(ready).map_err(DemoError::Unstarted)
}

/// Sends the crowd to the plain listener. Without it the demo is duller, and still a demo.
fn come(visitors: u32, bound: &Bound) -> Option<Aside> {
    let (gateway, _) = bound.listeners.iter().find(|(_, tls)| !tls)?;
    let gateway = *gateway;
    if visitors == 0 {
        return None;
    }
    let crowd = Aside::start("crowd", move |stop| crowd::wait_in_line(visitors, gateway, stop));
    crowd.inspect_err(|error| log::error!("{error}")).ok()
}

/// The shop listens before the rules are read, because its port may have to be written into them.
fn listen(port: u16) -> Result<(TcpListener, SocketAddr), DemoError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    listen().map_err(|error| DemoError::Shop(address, error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Line::try_parse_from([&["demo"], arguments].concat()).map(|line| line.options)
    }

    /// Loads and builds the demo's configuration, without running it.
    fn prepare(options: &Options, shop_port: u16) -> String {
        let scratch = Scratch::create().unwrap();
        let rules = RulesInForce::choose(options.rules.as_deref(), &scratch, shop_port).unwrap();
        let process_file = setup::write(options, &rules.directory, &scratch).unwrap();
        let loaded = load::load(&process_file).unwrap();
        assert_eq!(loaded.warnings, []);
        let process = build(&process_file, loaded).unwrap();
        assert!(
            process.rooms.get(crowd::ROOM).is_some(),
            "the crowd knows the room by name"
        );
        assert_eq!(process.settings.listeners.len(), 2);
        let servers = process.upstreams.servers();
        format!("{servers:?}")
    }

    #[test]
    fn the_rules_of_the_demo_run() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/demo");
        let options = options(&["--rules", folder.to_str().unwrap()]).unwrap();
        assert!(prepare(&options, rules::SHOP_PORT).contains("9000"));
    }

    #[test]
    fn the_rules_follow_the_shop_to_another_port() {
        let servers = prepare(&options(&[]).unwrap(), 19_001);
        assert!(servers.contains("19001") && !servers.contains("9000"), "{servers}");
    }

    #[test]
    fn a_crowd_is_bounded_and_a_shop_stands_somebody() {
        assert_eq!(options(&["--crowd", "20000"]).unwrap().crowd, CROWD_MAX);
        assert!(options(&["--crowd", "20001"]).is_err());
        assert!(options(&["--stands", "0"]).is_err());
    }

    #[test]
    fn a_port_in_use_is_named_with_the_way_out() {
        let (_taken, address) = listen(0).unwrap();
        let error = listen(address.port()).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--shop-port"),
            "{error}"
        );
    }
}
