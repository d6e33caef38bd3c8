//! The stores that the process file asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::build::BuildError;
use crate::base::clock::{Clock, WallClock};
use crate::base::key::KeySeed;
use crate::base::secret::HashSecret;
use crate::config::load::ProcessFile;
use crate::config::password::read_password;
use crate::config::raw::{self, Store};
use crate::store::limits::LimitStore;
use crate::store::memory::limits::MemoryLimits;
use crate::store::memory::rooms::MemoryRooms;
use crate::store::redis::RedisLimits;
use crate::store::redis::servers::{Access, Servers, Topology};
use crate::store::rooms::RoomStore;
use crate::throttle;

/// What a fleet hashes keys with that has no secret. Whoever reads this can find keys that collide, so a fleet should
/// have one.
const OPEN_SEED: KeySeed = KeySeed(*b"tidegate: a seed");

/// What the seed is derived for.
const SEED_PURPOSE: &[u8] = b"tidegate key seed";

/// Where counts and queues live.
pub(super) struct Stores {
    pub(super) limits: Arc<dyn LimitStore>,
    pub(super) rooms: Arc<dyn RoomStore>,
}

/// The stores, not connected yet. Limits and rooms of a fleet share one connection. Rooms in memory open by `wall`, as
/// those of a fleet do by their server's clock; limits are counted by `clock`, which never jumps.
pub(super) fn stores(file: &ProcessFile, clock: &Arc<dyn Clock>, wall: &Arc<WallClock>) -> Result<Stores, BuildError> {
    let Store::Redis(redis) = &file.process.store else {
        return Ok(Stores {
            limits: Arc::new(MemoryLimits::new(Arc::clone(clock))),
            rooms: Arc::new(MemoryRooms::new(Arc::<WallClock>::clone(wall))),
        });
    };
    let fault = |why: String| BuildError::Store(format!("the store: {why}"));
    let access = access(file, redis).map_err(fault)?;
    let servers = Servers::new(&access, redis.timeout.0).map_err(fault)?;
    let limits = RedisLimits::new(servers, &redis.prefix, redis.timeout.0, Arc::clone(clock));
    Ok(Stores {
        rooms: Arc::new(limits.rooms()),
        limits: Arc::new(limits),
    })
}

fn access(file: &ProcessFile, redis: &raw::Redis) -> Result<Access, String> {
    let password = redis.password.as_ref().map(|password| {
        let path = file.document.resolve(&password.file);
        read_password(&path).map_err(|why| format!("{}: {why}", path.display()))
    });
    let read = |path: &Option<PathBuf>| {
        let read = |path: PathBuf| std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
        path.as_ref().map(|path| read(file.document.resolve(path))).transpose()
    };
    Ok(Access {
        addresses: redis.urls.0.iter().map(|url| url.0.clone()).collect(),
        topology: match redis.topology {
            raw::Topology::Standalone => Topology::Standalone,
            raw::Topology::Sentinel => Topology::Sentinel {
                master: redis.master_name.clone().unwrap_or_default(),
            },
            raw::Topology::Cluster => Topology::Cluster,
        },
        user: redis.user.clone(),
        password: password.transpose()?,
        authorities: read(&redis.ca)?,
        own: read(&redis.cert)?.zip(read(&redis.key)?),
    })
}

/// With what keys are hashed. A fleet must do it alike, whatever becomes of the keys that it signs with. Not from the
/// store: there stands what was hashed, for whoever reads it.
pub(super) fn key_seed(store: &Store, secret: Option<&HashSecret>) -> Option<KeySeed> {
    match (store, secret) {
        (_, Some(secret)) => secret.derive(SEED_PURPOSE).first_chunk().copied().map(KeySeed),
        (Store::Redis(_), None) => Some(OPEN_SEED),
        (Store::Memory, None) => None,
    }
}

/// How long the store may take.
pub(super) fn timeout(process: &raw::Process) -> Duration {
    match &process.store {
        Store::Memory => throttle::Settings::default().store_timeout,
        Store::Redis(redis) => redis.timeout.0,
    }
}
