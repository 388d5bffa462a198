//! From what a user writes for an address to socket addresses.
//!
//! Looking a name up is a blocking call that may take seconds, so it runs on the blocking pool. A literal is
//! parsed where it stands, without a thread and without an allocation beside the list.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use self::sealed::{Addresses, Sealed};

/// What can be bound or connected to: the types for which [`std::net::ToSocketAddrs`] is implemented.
///
/// This trait is sealed. Host names (`"localhost:80"`, `("localhost", 80)`) are looked up on the runtime's
/// blocking pool; everything else needs no lookup.
pub trait ToSocketAddrs: Sealed {}

impl<T: Sealed + ?Sized> ToSocketAddrs for T {}

mod sealed {
    use std::net::SocketAddr;

    #[derive(Debug)]
    pub enum Addresses {
        Literal(Vec<SocketAddr>),
        /// A host and its port, to be looked up.
        Name(String),
    }

    pub trait Sealed {
        fn addresses(&self) -> Addresses;
    }
}

/// The addresses that `target` stands for: at least one.
pub(super) async fn resolve(target: impl ToSocketAddrs) -> Result<Vec<SocketAddr>> {
    let found = match target.addresses() {
        Addresses::Literal(found) => found,
        Addresses::Name(name) => lookup(name).await?,
    };
    if found.is_empty() {
        return Err(no_address());
    }
    Ok(found)
}

/// What comes of the first address with which `attempt` succeeds, or the error of the last one.
pub(super) fn first_of<T>(addresses: Vec<SocketAddr>, attempt: impl Fn(SocketAddr) -> Result<T>) -> Result<T> {
    let mut last_error = None;
    for address in addresses {
        match attempt(address) {
            Ok(made) => return Ok(made),
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.unwrap_or_else(no_address))
}

/// [`resolve`] says so; who tries its addresses one after the other falls back to it.
pub(super) fn no_address() -> Error {
    Error::new(ErrorKind::InvalidInput, "no address to bind or connect to")
}

async fn lookup(name: String) -> Result<Vec<SocketAddr>> {
    let lookup = crate::spawn_blocking(move || std::net::ToSocketAddrs::to_socket_addrs(&name).map(Iterator::collect));
    match lookup.await {
        Ok(found) => found,
        Err(error) => Err(Error::other(error)),
    }
}

impl Sealed for str {
    fn addresses(&self) -> Addresses {
        match self.parse() {
            Ok(address) => Addresses::Literal(vec![address]),
            Err(_) => Addresses::Name(self.to_owned()),
        }
    }
}

impl Sealed for String {
    fn addresses(&self) -> Addresses {
        self.as_str().addresses()
    }
}

impl Sealed for (&str, u16) {
    fn addresses(&self) -> Addresses {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Addresses::Literal(vec![SocketAddr::new(ip, port)]),
            Err(_) => Addresses::Name(format!("{host}:{port}")),
        }
    }
}

impl Sealed for (String, u16) {
    fn addresses(&self) -> Addresses {
        (self.0.as_str(), self.1).addresses()
    }
}

impl Sealed for [SocketAddr] {
    fn addresses(&self) -> Addresses {
        Addresses::Literal(self.to_vec())
    }
}

impl<T: Sealed + ?Sized> Sealed for &T {
    fn addresses(&self) -> Addresses {
        (**self).addresses()
    }
}

macro_rules! one_address {
    ($($type:ty),+) => {
        $(impl Sealed for $type {
            fn addresses(&self) -> Addresses {
                Addresses::Literal(vec![SocketAddr::from(*self)])
            }
        })+
    };
}

one_address!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(target: impl ToSocketAddrs) -> Option<Vec<SocketAddr>> {
        match target.addresses() {
            Addresses::Literal(found) => Some(found),
            Addresses::Name(_) => None,
        }
    }

    #[test]
    fn literals_need_no_lookup() {
        let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(literal("127.0.0.1:80"), Some(vec![v4]));
        assert_eq!(literal(String::from("[::1]:80")), Some(vec![v6]));
        assert_eq!(literal(("::1", 80)), Some(vec![v6]));
        assert_eq!(literal((Ipv4Addr::LOCALHOST, 80)), Some(vec![v4]));
        assert_eq!(literal(&[v4, v6][..]), Some(vec![v4, v6]));
    }

    #[test]
    fn the_first_that_succeeds_is_taken_and_else_the_last_error() {
        let addresses = || [1, 2, 3].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).to_vec();
        let fails_below = |least: u16| {
            first_of(addresses(), |address| match address.port() {
                port if port < least => Err(Error::other(port.to_string())),
                port => Ok(port),
            })
        };
        assert_eq!(fails_below(2).unwrap(), 2);
        assert_eq!(fails_below(4).unwrap_err().to_string(), "3");
        assert_eq!(first_of(Vec::new(), |_| Ok(())).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn names_are_looked_up() {
        assert_eq!(literal("localhost:80"), None);
        assert_eq!(literal(("localhost", 80)), None);
    }
}
