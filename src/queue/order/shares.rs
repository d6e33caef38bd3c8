//! Which network has how many places, of those that came with one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::queue::turn::Share;

/// The places of networks: as many entries as there are places of theirs.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    network_of: HashMap<u64, u64>,
    places: HashMap<u64, u32>,
}

impl Shares {
    /// Whether this network has as many places as it may.
    pub(super) fn is_used_up(&self, share: Share) -> bool {
        self.places.get(&share.network).copied().unwrap_or(0) >= share.most
    }

    /// A number was given to this network.
    pub(super) fn take(&mut self, number: u64, share: Option<Share>) {
        let Some(Share { network, .. }) = share else { return };
        if self.network_of.insert(number, network).is_none() {
            *self.places.entry(network).or_default() += 1;
        }
    }

    /// The place of a number is gone.
    pub(super) fn free(&mut self, number: u64) {
        let Some(network) = self.network_of.remove(&number) else {
            return;
        };
        if let Entry::Occupied(mut places) = self.places.entry(network) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }
}
