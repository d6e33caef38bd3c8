//! Places for connections: so many in all, and so many for one client.
//!
//! Without the second a single client could take all of the first, and it need send nothing to do so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::client_ip::{CLIENT_PREFIX_V6, Networks, fold};

/// The places of a process, over all listeners and workers.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    each: Option<Each>,
}

/// What one client may have. There are at most as many clients in the map as there are places.
#[derive(Debug)]
struct Each {
    most: usize,
    exempt: Arc<Networks>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One of a client's places, which is free again when this is dropped.
#[derive(Debug)]
pub struct OfClient {
    places: Arc<Places>,
    client: IpAddr,
}

impl Places {
    /// `all` places; a client (an IPv4 address, an IPv6 /64) may have `each` of them, but for those in `exempt`, who
    /// connect for others.
    pub fn new(all: usize, each: Option<usize>, exempt: Arc<Networks>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each: each.map(|most| Each {
                most,
                exempt,
                open: Mutex::default(),
            }),
        }
    }

    /// A place for a connection, before it is known whose it is; none when all are taken.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).try_acquire_owned().ok()
    }

    /// Counts the connection as the client's.
    ///
    /// # Errors
    /// The client has as many as it may.
    pub fn count(self: &Arc<Self>, client: IpAddr) -> Result<Option<OfClient>, Crowded> {
        let Some(each) = self.each.as_ref().filter(|each| !each.exempt.contain(client)) else {
            return Ok(None);
        };
        let client = fold(client.to_canonical(), CLIENT_PREFIX_V6);
        let mut open = each.open.lock().unwrap_or_else(PoisonError::into_inner);
        let there = open.entry(client).or_default();
        if *there >= each.most {
            return Err(Crowded);
        }
        *there += 1;
        let places = Arc::clone(self);
        Ok(Some(OfClient { places, client }))
    }
}

/// A client has as many connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

impl Drop for OfClient {
    fn drop(&mut self) {
        let Some(each) = &self.places.each else { return };
        let mut open = each.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(there) = open.get_mut(&self.client) else {
            return;
        };
        *there -= 1;
        if *there == 0 {
            open.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(each: Option<usize>) -> Arc<Places> {
        let proxies = Networks::new(["10.0.0.0/8".parse().unwrap()]);
        Arc::new(Places::new(10, each, Arc::new(proxies)))
    }

    fn count(places: &Arc<Places>, client: &str) -> Result<Option<OfClient>, Crowded> {
        places.count(client.parse().unwrap())
    }

    #[test]
    fn a_client_has_so_many_places_and_no_more_until_one_is_free() {
        let places = places(Some(2));
        let first = count(&places, "192.0.2.1").unwrap();
        let _second = count(&places, "::ffff:192.0.2.1").unwrap();
        assert_eq!(count(&places, "192.0.2.1").unwrap_err(), Crowded);
        assert!(count(&places, "192.0.2.2").is_ok(), "another has its own");
        drop(first);
        assert!(count(&places, "192.0.2.1").is_ok());
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let places = places(Some(1));
        let _one = count(&places, "2001:db8::1").unwrap();
        assert!(count(&places, "2001:db8::ffff:2").is_err());
        assert!(count(&places, "2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn who_connects_for_others_is_not_counted_and_nobody_where_nothing_is_said() {
        let bounded = places(Some(1));
        let proxied: Vec<_> = (0..5).map(|_| count(&bounded, "10.1.2.3").unwrap()).collect();
        assert!(proxied.iter().all(Option::is_none));
        let unbounded = places(None);
        assert!((0..5).all(|_| count(&unbounded, "192.0.2.1").unwrap().is_none()));
    }

    #[test]
    fn nothing_is_kept_of_clients_who_are_gone() {
        let places = places(Some(3));
        for number in 0..100 {
            drop(count(&places, &format!("192.0.2.{number}")));
        }
        assert!(places.each.as_ref().unwrap().open.lock().unwrap().is_empty());
    }
}
