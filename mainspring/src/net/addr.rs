//! From what users write to socket addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What can be resolved to socket addresses: addresses, and names with a port. Names are looked up by
/// the system's resolver, on the blocking pool; what is an address already costs no thread.
///
/// Implemented for what std's trait of this name is implemented for. It cannot be implemented elsewhere.
pub trait ToSocketAddrs: sealed::Resolve {}

impl<T: sealed::Resolve + ?Sized> ToSocketAddrs for T {}

/// Looks up, off the workers if need be; never gives an empty list.
pub(super) async fn resolve(addr: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let addrs = match addr.resolve()? {
        sealed::Resolved::Addrs(addrs) => addrs,
        sealed::Resolved::Name(host, port) => {
            let lookup = move || std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port));
            crate::spawn_blocking(lookup).await??.collect()
        }
    };
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to use"));
    }
    Ok(addrs)
}

mod sealed {
    use super::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, io};

    #[derive(Debug)]
    pub enum Resolved {
        Addrs(Vec<SocketAddr>),
        Name(String, u16),
    }

    #[expect(unnameable_types, reason = "that is what seals the trait")]
    pub trait Resolve {
        fn resolve(&self) -> io::Result<Resolved>;
    }

    macro_rules! addresses {
        ($($ty:ty),*) => {$(
            impl Resolve for $ty {
                fn resolve(&self) -> io::Result<Resolved> {
                    Ok(Resolved::Addrs(vec![SocketAddr::from(*self)]))
                }
            }
        )*};
    }

    addresses!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

    impl Resolve for [SocketAddr] {
        fn resolve(&self) -> io::Result<Resolved> {
            Ok(Resolved::Addrs(self.to_vec()))
        }
    }

    impl Resolve for (&str, u16) {
        fn resolve(&self) -> io::Result<Resolved> {
            let (host, port) = *self;
            Ok(match host.parse::<IpAddr>() {
                Ok(ip) => Resolved::Addrs(vec![SocketAddr::new(ip, port)]),
                Err(_) => Resolved::Name(host.to_owned(), port),
            })
        }
    }

    impl Resolve for (String, u16) {
        fn resolve(&self) -> io::Result<Resolved> {
            (self.0.as_str(), self.1).resolve()
        }
    }

    impl Resolve for str {
        fn resolve(&self) -> io::Result<Resolved> {
            if let Ok(addr) = self.parse::<SocketAddr>() {
                return Ok(Resolved::Addrs(vec![addr]));
            }
            let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
            let (host, port) = self.rsplit_once(':').ok_or_else(|| invalid("an address without a port"))?;
            let port = port.parse().map_err(|_| invalid("an address with an invalid port"))?;
            Ok(Resolved::Name(host.to_owned(), port))
        }
    }

    impl Resolve for String {
        fn resolve(&self) -> io::Result<Resolved> {
            self.as_str().resolve()
        }
    }

    impl<T: Resolve + ?Sized> Resolve for &T {
        fn resolve(&self) -> io::Result<Resolved> {
            (**self).resolve()
        }
    }
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use super::sealed::{Resolve, Resolved};

    fn kind(text: &str) -> String {
        match text.resolve() {
            Ok(Resolved::Addrs(addrs)) => format!("{addrs:?}"),
            Ok(Resolved::Name(host, port)) => format!("{host} {port}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_an_address_is_not_looked_up() {
        assert_eq!(kind("127.0.0.1:80"), "[127.0.0.1:80]");
        assert_eq!(kind("[::1]:80"), "[[::1]:80]");
        assert_eq!(kind("localhost:80"), "localhost 80");
        assert_eq!(kind("localhost"), "an address without a port");
        assert_eq!(kind("localhost:http"), "an address with an invalid port");
        assert_eq!(kind("localhost:65536"), "an address with an invalid port");
    }
}
