//! Whose request is it? The address behind trusted proxies, and how much of an address counts as one client.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::misfit::Misfit;

/// Most hops of a forwarding header that are looked at; a longer chain is read as ending there.
const HOPS_MAX: usize = 32;

/// A sorted, merged set of networks: one lookup is a binary search, however many networks were written.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// The union of `networks`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in IpNet::aggregate(&networks.into_iter().collect::<Vec<_>>()) {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { v4, v6 }
    }

    /// The union of what is written: addresses, and networks such as `192.0.2.0/24`.
    ///
    /// # Errors
    /// All that is no network, each under its index.
    pub fn read(texts: &[String]) -> Result<Self, Vec<Misfit>> {
        let (mut networks, mut misfits) = (Vec::with_capacity(texts.len()), Vec::new());
        for (index, text) in texts.iter().enumerate() {
            match parse_network(text.trim()) {
                Ok(network) => networks.push(network),
                Err(why) => misfits.push(Misfit::new(why).under(index)),
            }
        }
        if misfits.is_empty() {
            Ok(Self::new(networks))
        } else {
            Err(misfits)
        }
    }

    /// Whether `address` lies in one of the networks. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }
}

/// Reads `192.0.2.0/24`, `2001:db8::/32` or a single address. Bits beyond the prefix are refused: they show that the
/// prefix or the address is not the one that was meant.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse::<IpNet>().map_err(|_| {
            format!(
                "`{text}` is neither an address nor a network: write `192.0.2.7`, `192.0.2.0/24` or `2001:db8::/32`"
            )
        })?,
    };
    if network.addr() != network.network() {
        let (network, address) = (network.trunc(), network.addr());
        return Err(format!(
            "`{text}` has bits beyond its prefix: write `{network}`, or `{address}` for the one address"
        ));
    }
    Ok(plain(network))
}

/// A client that comes in as `::ffff:192.0.2.7` is looked up as 192.0.2.7; so a network of such addresses must be an
/// IPv4 network, or it would never be found.
fn plain(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.prefix_len().checked_sub(96).zip(v6.network().to_ipv4_mapped());
    let v4 = mapped.and_then(|(prefix, address)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], point: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= point);
    after > 0 && point <= ranges[after - 1].1
}

/// The client's address: the peer's, unless the peer is trusted; then the right-most address of
/// `forwarded_for` (the values of `X-Forwarded-For`, in order) that is not trusted itself.
///
/// A hop that is not an address ends the walk at the hop before it: what lies further left was written by
/// someone we know nothing of. (The rule of nginx's `real_ip_recursive on`.) So values are read hop by hop and as bytes:
/// a stranger who sends what is no text must not have the line overlooked to which a proxy added its address.
pub fn client_ip<'a>(
    peer: IpAddr,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &Networks,
) -> IpAddr {
    let mut client = peer.to_canonical();
    if !trusted.contain(client) {
        return client;
    }
    let hops = forwarded_for.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for hop in hops.take(HOPS_MAX) {
        let Some(address) = parse_hop(hop) else { break };
        client = address;
        if !trusted.contain(client) {
            break;
        }
    }
    client
}

/// Reads `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` and `[2001:db8::1]:4711`.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let plain = hop.parse::<IpAddr>().ok();
    plain
        .or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
        .map(|address| address.to_canonical())
}

/// Leading bits of an IPv6 address that are one client, unless an operator says otherwise: it owns its whole network, and
/// could change its address with every request.
pub const CLIENT_PREFIX_V6: u8 = 64;

/// The address that a client counts by: of IPv6 the network of `prefix_v6` bits, 0 to 128, such as [`CLIENT_PREFIX_V6`];
/// of IPv4 all of it.
pub fn fold(address: IpAddr, prefix_v6: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if prefix_v6 < 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_v6)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(list.iter().map(|n| n.parse().unwrap()))
    }

    fn seen(peer: &str, header: &[&str], trusted: &[&str]) -> String {
        let header = header.iter().map(|value| value.as_bytes());
        client_ip(peer.parse().unwrap(), header, &networks(trusted)).to_string()
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        assert_eq!(seen("203.0.113.9", &["10.0.0.1"], &["10.0.0.0/8"]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &["10.0.0.1"], &[]), "203.0.113.9");
    }

    #[test]
    fn behind_trusted_hops_the_right_most_stranger_counts() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, 2.2.2.2, 10.9.9.9"], &trusted), "2.2.2.2");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1", "2.2.2.2"], &trusted), "2.2.2.2");
        assert_eq!(seen("::ffff:10.0.0.1", &["[2001:db8::7]:443"], &trusted), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["10.0.0.2, 10.0.0.3"], &trusted), "10.0.0.2");
    }

    #[test]
    fn garbage_ends_the_walk_at_the_last_hop_that_made_sense() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, unknown"], &trusted), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, <script>, 10.0.0.9"], &trusted), "10.0.0.9");
        assert_eq!(seen("10.0.0.1", &[""], &trusted), "10.0.0.1");
    }

    #[test]
    fn what_is_no_text_hides_nothing_that_a_proxy_has_written() {
        let header: [&[u8]; 2] = [b"1.1.1.1, \xff", b"\xff\xfe, 2.2.2.2, 10.0.0.9"];
        let client = client_ip(
            "10.0.0.1".parse().unwrap(),
            header.into_iter(),
            &networks(&["10.0.0.0/8"]),
        );
        assert_eq!(client.to_string(), "2.2.2.2");
    }

    #[test]
    fn networks_are_merged_and_found() {
        let set = networks(&["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32", "198.51.100.7/32"]);
        for inside in [
            "192.0.2.0",
            "192.0.2.255",
            "2001:db8:ffff::1",
            "198.51.100.7",
            "::ffff:192.0.2.9",
        ] {
            assert!(set.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.0.1.255", "192.0.3.0", "2001:db9::", "198.51.100.8", "::"] {
            assert!(!set.contain(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn an_ipv6_client_counts_by_its_network() {
        let one = fold("2001:db8:1:2:aaaa::1".parse().unwrap(), 64);
        assert_eq!(one, fold("2001:db8:1:2:bbbb::2".parse().unwrap(), 64));
        assert_ne!(one, fold("2001:db8:1:3::1".parse().unwrap(), 64));
        assert_eq!(fold("2001:db8::1".parse().unwrap(), 128).to_string(), "2001:db8::1");
        assert_eq!(fold("2001:db8::1".parse().unwrap(), 0).to_string(), "::");
        assert_eq!(fold("192.0.2.1".parse().unwrap(), 64).to_string(), "192.0.2.1");
    }
}
