//! Which IP addresses a webhook may be sent to: public unicast, and what the operator lists.
//!
//! A subscriber chooses the URL, so without this guard a subscription is a way to make our server
//! call machines that only it can reach (server-side request forgery).
//!
//! # Invariants
//!
//! - Every address that is not known to be public unicast belongs to an [`AddressClass`]; IPv6 is
//!   refused by default outside of `2000::/3`.
//! - An address that carries an IPv4 address inside (mapped, NAT64, 6to4 …) is refused, and where
//!   the operator lists its range, the address inside still has to be allowed by itself.
//! - The allow list opens private ranges. It never opens unspecified, multicast and broadcast
//!   addresses, and it opens a metadata address only if that very address is listed.
//!
//! # What is absent on purpose
//!
//! - No names: see [`crate::resolver`].
//! - Our own public addresses are not known here; what listens on them has to defend itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is not public unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0/8` and `::`: reach this very machine on Linux.
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// RFC 1918 and the deprecated IPv6 site-local range.
    Private,
    /// `100.64.0.0/10` (RFC 6598): the carrier's, and many a cloud's, inner network.
    SharedCgnat,
    /// `169.254.0.0/16` and `fe80::/10`.
    LinkLocal,
    /// `fc00::/7` (RFC 4193).
    UniqueLocal,
    /// A cloud's metadata or credential service.
    Metadata,
    /// Multicast.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// Documentation ranges (RFC 5737, 3849, 9637).
    Documentation,
    /// Benchmarking ranges (RFC 2544, 5180).
    Benchmarking,
    /// `::ffff:0:0/96` and the deprecated `::/96`.
    EmbeddedIpv4,
    /// `64:ff9b::/96` and `64:ff9b:1::/48` (RFC 6052, 8215).
    Nat64,
    /// `2002::/16` and its relay, `192.88.99.0/24` (RFC 3056, 7526).
    SixToFour,
    /// `2001::/32` (RFC 4380).
    Teredo,
    /// Anything else that IANA has not given to the public Internet.
    Reserved,
}

impl AddressClass {
    /// A word for texts and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedCgnat => "shared (CGNAT)",
            Self::LinkLocal => "link-local",
            Self::UniqueLocal => "unique local",
            Self::Metadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::EmbeddedIpv4 => "embedded IPv4",
            Self::Nat64 => "NAT64",
            Self::SixToFour => "6to4",
            Self::Teredo => "Teredo",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address that may not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address {address} is not allowed: {class}")]
pub struct ForbiddenAddress {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is.
    pub class: AddressClass,
}

/// Checks that `address` is public unicast or lies within one of `allowed`.
///
/// # Errors
///
/// [`ForbiddenAddress`] with the class that it falls into.
pub fn check(address: IpAddr, allowed: &[IpNet]) -> Result<(), ForbiddenAddress> {
    let Some(class) = classify(address) else {
        return Ok(());
    };
    let listed = || allowed.iter().any(|net| net.contains(&address));
    let opened = match class {
        AddressClass::Unspecified | AddressClass::Multicast | AddressClass::Broadcast => false,
        AddressClass::Metadata => {
            allowed.iter().any(|net| net.prefix_len() == net.max_prefix_len() && net.addr() == address)
        }
        AddressClass::EmbeddedIpv4 | AddressClass::Nat64 | AddressClass::SixToFour => {
            listed() && embedded_is_allowed(address, allowed)
        }
        _ => listed(),
    };
    if opened { Ok(()) } else { Err(ForbiddenAddress { address, class }) }
}

/// The kind of `address`; `None` if it is public unicast.
///
/// # Sources
///
/// IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890). Metadata services: AWS (also
/// ECS and EKS), Google Cloud, Azure (also its wire server), Alibaba, Oracle.
#[must_use]
pub fn classify(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(v4: Ipv4Addr) -> Option<AddressClass> {
    use AddressClass as Class;
    let class = match v4.octets() {
        [169, 254, 169, 254]
        | [169, 254, 170, 2]
        | [169, 254, 170, 23]
        | [168, 63, 129, 16]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192] => Class::Metadata,
        [0, ..] => Class::Unspecified,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [100, 64..=127, ..] => Class::SharedCgnat,
        [127, ..] => Class::Loopback,
        [169, 254, ..] => Class::LinkLocal,
        [192, 0, 0, _] => Class::Reserved,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [192, 88, 99, _] => Class::SixToFour,
        [198, 18..=19, ..] => Class::Benchmarking,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        [240..=255, ..] => Class::Reserved,
        _ => return None,
    };
    Some(class)
}

fn classify_v6(v6: Ipv6Addr) -> Option<AddressClass> {
    use AddressClass as Class;
    let class = match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Class::EmbeddedIpv4,
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Class::Nat64,
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Class::Metadata,
        [0xfc00..=0xfdff, ..] => Class::UniqueLocal,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xfec0..=0xfeff, ..] => Class::Private,
        [0xff00..=0xffff, ..] => Class::Multicast,
        [0x2001, 0, ..] => Class::Teredo,
        [0x2001, 2, 0, ..] => Class::Benchmarking,
        [0x2001, 0..=0x1ff, ..] => Class::Reserved, // IETF protocol assignments, ORCHID
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Class::Documentation,
        [0x2002, ..] => Class::SixToFour,
        [0x2000..=0x3fff, ..] => return None,
        _ => Class::Reserved,
    };
    Some(class)
}

/// Whether `address`, whose own range is listed, carries an IPv4 address that is allowed as well.
/// Where the place of the IPv4 address is not known (`64:ff9b:1::/48`), it is not.
fn embedded_is_allowed(address: IpAddr, allowed: &[IpNet]) -> bool {
    let embedded = match address {
        IpAddr::V4(_) => return true, // 192.88.99.0/24 carries nothing
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 1, ..] => return false,
            [0x2002, high, low, ..] => join(high, low),
            [.., high, low] => join(high, low),
        },
    };
    check(IpAddr::V4(embedded), allowed).is_ok()
}

const fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(((high as u32) << 16) | low as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: an address, then `ok` or the class it is refused as.
    fn check_lines(allowed: &[&str], lines: &str) {
        let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().expect("test network")).collect();
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (address, expected) = line.split_once(" => ").expect("address => class");
            let address: IpAddr = address.trim().parse().expect("test address");
            let got = match check(address, &allowed) {
                Ok(()) => "ok".to_owned(),
                Err(forbidden) => forbidden.class.to_string(),
            };
            assert_eq!(got, expected.trim(), "{address} with {allowed:?}");
        }
    }

    #[test]
    fn only_public_unicast_passes() {
        check_lines(
            &[],
            "
            8.8.8.8                   => ok
            1.1.1.1                   => ok
            93.184.216.34             => ok
            11.0.0.0                  => ok
            100.63.255.255            => ok
            100.128.0.0               => ok
            172.15.255.255            => ok
            172.32.0.0                => ok
            191.255.255.255           => ok
            192.0.1.0                 => ok
            192.167.255.255           => ok
            192.169.0.0               => ok
            198.17.255.255            => ok
            198.20.0.0                => ok
            223.255.255.255           => ok
            0.0.0.0                   => unspecified
            0.1.2.3                   => unspecified
            10.0.0.1                  => private
            10.255.255.255            => private
            172.16.0.1                => private
            172.31.255.255            => private
            192.168.1.1               => private
            100.64.0.1                => shared (CGNAT)
            100.127.255.255           => shared (CGNAT)
            127.0.0.1                 => loopback
            127.255.255.254           => loopback
            169.254.0.1               => link-local
            169.254.169.254           => cloud metadata
            169.254.170.2             => cloud metadata
            168.63.129.16             => cloud metadata
            100.100.100.200           => cloud metadata
            192.0.0.192               => cloud metadata
            192.0.0.1                 => reserved
            192.0.2.1                 => documentation
            198.51.100.1              => documentation
            203.0.113.255             => documentation
            192.88.99.1               => 6to4
            198.18.0.1                => benchmarking
            198.19.255.255            => benchmarking
            224.0.0.1                 => multicast
            239.255.255.255           => multicast
            240.0.0.1                 => reserved
            255.255.255.254           => reserved
            255.255.255.255           => broadcast
            2606:4700:4700::1111      => ok
            2001:4860:4860::8888      => ok
            2a00:1450:4001:81b::200e  => ok
            2001:200::1               => ok
            ::                        => unspecified
            ::1                       => loopback
            ::2                       => embedded IPv4
            ::8.8.8.8                 => embedded IPv4
            ::127.0.0.1               => embedded IPv4
            ::ffff:127.0.0.1          => embedded IPv4
            ::ffff:8.8.8.8            => embedded IPv4
            ::ffff:169.254.169.254    => embedded IPv4
            64:ff9b::8.8.8.8          => NAT64
            64:ff9b::169.254.169.254  => NAT64
            64:ff9b:1::10.0.0.1       => NAT64
            64:ff9b:1:ffff::1         => NAT64
            64:ff9b:2::1              => reserved
            100::1                    => reserved
            2001::1                   => Teredo
            2001:0:4136:e378::1       => Teredo
            2001:2::1                 => benchmarking
            2001:10::1                => reserved
            2001:20::1                => reserved
            2001:db8::1               => documentation
            3fff::1                   => documentation
            3fff:1000::1              => ok
            2002:7f00:1::             => 6to4
            2002:808:808::1           => 6to4
            4000::1                   => reserved
            5f00::1                   => reserved
            fc00::1                   => unique local
            fd12:3456::1              => unique local
            fd00:ec2::254             => cloud metadata
            fd00:ec2::23              => cloud metadata
            fd20:ce::254              => cloud metadata
            fe80::1                   => link-local
            fec0::1                   => private
            ff02::1                   => multicast
            ",
        );
    }

    #[test]
    fn the_allow_list_opens_what_it_names_and_no_more() {
        check_lines(
            &["127.0.0.0/8", "10.1.0.0/16", "fd00::/8", "::1/128"],
            "
            127.0.0.1        => ok
            127.9.9.9        => ok
            10.1.255.255     => ok
            10.2.0.0         => private
            192.168.0.1      => private
            ::1              => ok
            fd12::1          => ok
            fc00::1          => unique local
            fd00:ec2::254    => cloud metadata
            ::ffff:127.0.0.1 => embedded IPv4
            8.8.8.8          => ok
            ",
        );
        check_lines(
            &["0.0.0.0/0", "::/0"],
            "
            10.0.0.1           => ok
            169.254.0.1        => ok
            169.254.169.254    => cloud metadata
            0.0.0.0            => unspecified
            224.0.0.1          => multicast
            255.255.255.255    => broadcast
            ::                 => unspecified
            ff02::1            => multicast
            ::ffff:10.0.0.1    => ok
            64:ff9b:1::8.8.8.8 => NAT64
            ",
        );
        check_lines(
            &["64:ff9b::/96", "2002::/16"],
            "
            64:ff9b::8.8.8.8         => ok
            64:ff9b::10.0.0.1        => NAT64
            64:ff9b::169.254.169.254 => NAT64
            2002:808:808::1          => ok
            2002:7f00:1::1           => 6to4
            ",
        );
        check_lines(
            &["169.254.169.254/32", "fd00:ec2::254/128"],
            "
            169.254.169.254 => ok
            169.254.170.2   => cloud metadata
            fd00:ec2::254   => ok
            ",
        );
    }
}
