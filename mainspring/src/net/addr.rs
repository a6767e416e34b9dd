//! From what users write to socket addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Deref;
use std::slice;

use self::sealed::Addrs;
use super::lookup;
use crate::poll::source::Refused;
use crate::time::{Instant, timeout_at};

/// What can be resolved to socket addresses: addresses, and names with a port. Names are looked up by
/// the system's resolver, on the blocking pool; what is an address already costs no thread.
///
/// Implemented for what std's trait of this name is implemented for. It cannot be implemented elsewhere.
pub trait ToSocketAddrs: sealed::Resolve {}

impl<T: sealed::Resolve + ?Sized> ToSocketAddrs for T {}

/// Looks up a host's addresses, in the order in which they should be tried.
///
/// A name is looked up by the system's resolver, which knows of `/etc/hosts` and of whatever else is configured,
/// on a thread of the blocking pool. At most 64 lookups run at once in the process, so that a name server that
/// does not answer cannot take every thread; those beyond wait in line. What is an address already costs no
/// thread.
///
/// # Errors
///
/// `InvalidInput` for what is neither an address nor a name with a port; otherwise the resolver's, with its text.
///
/// # Cancel safety
///
/// A lookup that is given up goes on in the background, as the system has no way to end it, and counts as running
/// for that long.
///
/// # Examples
///
/// ```
/// # mainspring::block_on(async {
/// let mut addrs = mainspring::net::lookup_host("localhost:80").await?;
/// assert!(addrs.all(|addr| addr.ip().is_loopback()));
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn lookup_host(host: impl ToSocketAddrs) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    Ok(match resolve(host).await? {
        Addrs::One(addr) => vec![addr],
        Addrs::Several(addrs) => addrs,
    }
    .into_iter())
}

/// As [`lookup_host`], but not beyond `deadline`, waiting in line included.
///
/// # Errors
///
/// `TimedOut` after the deadline, also where nothing has to be looked up; otherwise as [`lookup_host`].
///
/// # Cancel safety
///
/// As [`lookup_host`].
///
/// # Examples
///
/// ```
/// use mainspring::net::lookup_host_until;
/// use mainspring::time::{Duration, Instant};
///
/// # mainspring::block_on(async {
/// let deadline = Instant::now() + Duration::from_secs(10);
/// assert_ne!(lookup_host_until(("localhost", 80), deadline).await?.len(), 0);
/// let error = lookup_host_until(("localhost", 80), Instant::now()).await.unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub async fn lookup_host_until(
    host: impl ToSocketAddrs,
    deadline: Instant,
) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    // As an operation on a socket has it; also for what would be ready at once.
    if deadline <= Instant::now() {
        return Err(Refused::Expired.into());
    }
    timeout_at(deadline, lookup_host(host)).await.unwrap_or_else(|_| Err(Refused::Expired.into()))
}

/// Looks up, off the workers if need be; never gives an empty list.
pub(crate) async fn resolve(addr: impl ToSocketAddrs) -> io::Result<Addrs> {
    let addrs = match addr.resolve()? {
        sealed::Resolved::Addrs(addrs) => addrs,
        sealed::Resolved::Name(host, port) => {
            let name = move || std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port));
            // In a box, as it is larger than all the rest of what waits for it, and seldom there.
            Box::pin(lookup::look_up(move || Ok(name()?.collect()))).await.map(Addrs::Several)?
        }
    };
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to use"));
    }
    Ok(addrs)
}

mod sealed {
    use super::{Deref, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, io, slice};

    /// What an address or a name stands for: at least one address. What is one already, as the receiver of a datagram
    /// commonly is, costs no allocation.
    #[derive(Debug)]
    pub enum Addrs {
        One(SocketAddr),
        Several(Vec<SocketAddr>),
    }

    impl Deref for Addrs {
        type Target = [SocketAddr];

        fn deref(&self) -> &[SocketAddr] {
            match self {
                Addrs::One(addr) => slice::from_ref(addr),
                Addrs::Several(addrs) => addrs,
            }
        }
    }

    #[derive(Debug)]
    pub enum Resolved {
        Addrs(Addrs),
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
                    Ok(Resolved::Addrs(Addrs::One(SocketAddr::from(*self))))
                }
            }
        )*};
    }

    addresses!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

    impl Resolve for [SocketAddr] {
        fn resolve(&self) -> io::Result<Resolved> {
            Ok(Resolved::Addrs(Addrs::Several(self.to_vec())))
        }
    }

    impl Resolve for (&str, u16) {
        fn resolve(&self) -> io::Result<Resolved> {
            let (host, port) = *self;
            Ok(match host.parse::<IpAddr>() {
                Ok(ip) => Resolved::Addrs(Addrs::One(SocketAddr::new(ip, port))),
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
                return Ok(Resolved::Addrs(Addrs::One(addr)));
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
        assert_eq!(kind("127.0.0.1:80"), "One(127.0.0.1:80)");
        assert_eq!(kind("[::1]:80"), "One([::1]:80)");
        assert_eq!(kind("localhost:80"), "localhost 80");
        assert_eq!(kind("localhost"), "an address without a port");
        assert_eq!(kind("localhost:http"), "an address with an invalid port");
        assert_eq!(kind("localhost:65536"), "an address with an invalid port");
    }
}
