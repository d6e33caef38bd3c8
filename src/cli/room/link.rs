//! `tidegate room link`: signs a link around a room, with the keys that the gateways verify by. It asks no gateway.

use std::fmt;
use std::time::Duration;

use clap::Args;

use crate::base::clock::{Clock, SystemClock};
use crate::base::name::Name;
use crate::base::unit::parse_duration;
use crate::cli::{ConfigFile, Outcome, run};
use crate::config::load::{self, Loaded};
use crate::room::bypass::{LINK_LIFE_MAX, LINK_PARAMETER, link};
use crate::server::build::written_keyring;

/// Around which room, and for how long.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Options {
    /// The room, by its name under `rooms`.
    #[arg(long)]
    room: Name,
    /// How long the link is good from now on, as in `2h`.
    #[arg(long, value_parser = life)]
    valid: Duration,
    /// The page to open, as in `https://shop.example.com/tickets`. Without it, the query parameter is printed.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
}

/// Why there is no link to print.
#[derive(Debug)]
enum Denied {
    NoRoom(Name),
    NotTaken(Name),
    NoKeys,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom(room) => write!(f, "there is no room `{room}` in the rules"),
            Self::NotTaken(room) => write!(
                f,
                "the room `{room}` takes no links: write `bypass: {{ links: true }}` in its rule"
            ),
            Self::NoKeys => f.write_str(
                "there is no key to sign with that the gateway takes: write `secrets: { tickets: { file: ... }, \
                 hashes: { file: ... } }` in the process file",
            ),
        }
    }
}

impl std::error::Error for Denied {}

impl Denied {
    /// Says it. What is wrong is what was given: nobody was asked.
    fn outcome(&self) -> Outcome {
        run::failed(self);
        Outcome::Faulty
    }
}

fn life(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text)?;
    let fits = !life.is_zero() && life <= LINK_LIFE_MAX;
    fits.then_some(life).ok_or_else(|| {
        let days = LINK_LIFE_MAX.as_secs() / 86_400;
        format!("a link is good for at least 1ms and at most {days} days")
    })
}

/// Signs and prints.
#[expect(clippy::print_stdout, reason = "the result of the subcommand")]
pub(super) fn print(options: &Options) -> Outcome {
    let loaded = match load::load(&options.config.config) {
        Ok(loaded) => loaded,
        Err(error) => return run::refused(&error),
    };
    if let Err(denied) = taken(&loaded, &options.room) {
        return denied.outcome();
    }
    let keyring = match written_keyring(&loaded.process) {
        Ok(Some(keyring)) => keyring,
        Ok(None) => return Denied::NoKeys.outcome(),
        Err(error) => return run::failed(&error),
    };
    let until = SystemClock::start().now() + options.valid;
    let slip = link(&keyring, &options.room, until);
    println!("{}", address(options.url.as_deref(), slip.reveal()));
    Outcome::Done
}

fn taken(loaded: &Loaded, room: &Name) -> Result<(), Denied> {
    let found = loaded.rules.iter().find_map(|file| file.rules.rooms.get(room));
    let found = found.ok_or_else(|| Denied::NoRoom(room.clone()))?;
    let links = found.bypass.as_ref().is_some_and(|bypass| bypass.links);
    links.then_some(()).ok_or_else(|| Denied::NotTaken(room.clone()))
}

/// The link as it is to be opened. What follows a `#` never reaches a server, so the link goes before it.
fn address(url: Option<&str>, slip: &str) -> String {
    let Some(url) = url else {
        return format!("{LINK_PARAMETER}={slip}");
    };
    let (page, fragment) = url.find('#').map_or((url, ""), |at| url.split_at(at));
    let joint = if page.contains('?') { '&' } else { '?' };
    format!("{page}{joint}{LINK_PARAMETER}={slip}{fragment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_a_parameter_wherever_the_address_already_has_some() {
        for (url, expected) in [
            (None, "tidegate-link=x"),
            (Some("https://a.example/t"), "https://a.example/t?tidegate-link=x"),
            (
                Some("https://a.example/t?d=1#top"),
                "https://a.example/t?d=1&tidegate-link=x#top",
            ),
        ] {
            assert_eq!(address(url, "x"), expected);
        }
    }

    #[test]
    fn a_life_is_bounded() {
        assert_eq!(life("2h"), Ok(Duration::from_secs(7_200)));
        assert!(life("0s").is_err() && life("400d").is_err() && life("2").is_err());
    }
}
