//! UDP.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use rustix::net::RecvFlags;

use super::addr::{ToSocketAddrs, resolve};
use super::datagram::{self, datagram_socket};
use super::descriptor::Descriptor;
use super::operation::operation;
use crate::poll::source::Direction;

/// A UDP socket.
///
/// Unconnected, it sends to anybody and receives from anybody, with [`send_to`](UdpSocket::send_to) and
/// [`recv_from`](UdpSocket::recv_from). After [`connect`](UdpSocket::connect) there is [`send`](UdpSocket::send), only
/// what the peer sends is received, and that nobody listens there is reported as an error of one operation.
///
/// All operations take `&self`. Several tasks may use them at once; each datagram goes to one of them.
///
/// Options that have no function here are set with `socket2`, whose `SockRef::from` takes `&UdpSocket`.
///
/// # Examples
///
/// ```
/// use mainspring::net::UdpSocket;
/// use mainspring::time::{Duration, Instant};
///
/// # mainspring::block_on(async {
/// let server = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// client.connect(server.local_addr()?).await?;
/// client.set_read_deadline(Instant::now() + Duration::from_secs(5))?;
/// client.send(b"ping").await?;
///
/// let mut buffer = [0; 1500];
/// let (length, peer) = server.recv_from(&mut buffer).await?;
/// assert_eq!(&buffer[..length], b"ping");
/// server.send_to(b"pong", peer).await?;
/// let length = client.recv(&mut buffer).await?;
/// assert_eq!(&buffer[..length], b"pong");
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
pub struct UdpSocket {
    descriptor: Descriptor<std::net::UdpSocket>,
}

datagram_socket!(UdpSocket, std::net::UdpSocket, SocketAddr);

fn peek_from(io: &std::net::UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    io.peek_from(buffer)
}

impl UdpSocket {
    /// A socket with the first of the addresses that can be had. Port 0 has the system choose one.
    ///
    /// # Errors
    ///
    /// That of the last address, commonly `AddrInUse`; `InvalidInput` for what is no address; the
    /// resolver's.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let io = std::net::UdpSocket::bind(&*resolve(addr).await?)?;
        UdpSocket::try_from(io)
    }

    /// Makes the first of the addresses that can be reached the peer: [`send`](UdpSocket::send) sends to it, and only
    /// what it sends is received from now on. What others sent before may still be there. A connected socket can be
    /// connected again, to another peer.
    ///
    /// # Errors
    ///
    /// That of the last address; `InvalidInput` for what is no address; the resolver's. That nobody listens there is
    /// known only after a datagram was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the peer is the former one.
    pub async fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        self.descriptor.get().connect(&*resolve(addr).await?)
    }

    /// Sends a datagram to the first of the addresses. Waits while there is no room for it.
    ///
    /// # Errors
    ///
    /// As [`send`](UdpSocket::send); `InvalidInput` for what is no address; the resolver's. (That nobody is there is
    /// not reported on a socket that is not connected.)
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has been sent.
    pub async fn send_to(&self, bytes: &[u8], addr: impl ToSocketAddrs) -> io::Result<usize> {
        let addr = resolve(addr).await?[0];
        let call = |io: &std::net::UdpSocket| io.send_to(bytes, addr);
        operation(&self.descriptor, Direction::Write, call).await
    }

    /// As [`send_to`](UdpSocket::send_to), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it would have to wait; otherwise as [`send`](UdpSocket::send).
    pub fn try_send_to(&self, bytes: &[u8], addr: SocketAddr) -> io::Result<usize> {
        self.descriptor.try_anyway(Direction::Write, |io| io.send_to(bytes, addr))
    }

    /// As [`send_to`](UdpSocket::send_to), for code written as poll functions; see
    /// [`poll_send`](UdpSocket::poll_send).
    ///
    /// # Errors
    ///
    /// As [`send`](UdpSocket::send).
    pub fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        addr: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let call = |io: &std::net::UdpSocket| io.send_to(bytes, addr);
        self.descriptor.poll_shared(Direction::Write, None, context, call)
    }

    /// For quinn, which has system calls of its own.
    #[cfg(feature = "quinn")]
    pub(crate) fn descriptor(&self) -> &Descriptor<std::net::UdpSocket> {
        &self.descriptor
    }

    /// Whether it may send to broadcast addresses (SO_BROADCAST).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.descriptor.get().broadcast()
    }

    /// Sets whether it may send to broadcast addresses (SO_BROADCAST); off at first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.descriptor.get().set_broadcast(on)
    }

    /// How many routers a datagram may pass (IP_TTL).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn ttl(&self) -> io::Result<u32> {
        self.descriptor.get().ttl()
    }

    /// Sets how many routers a datagram may pass (IP_TTL).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.descriptor.get().set_ttl(ttl)
    }

    /// Receives what is sent to a multicast group, on the interface with the address `interface`, or one that the
    /// system chooses if that is unspecified (IP_ADD_MEMBERSHIP).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.descriptor.get().join_multicast_v4(&group, &interface)
    }

    /// Ends what [`join_multicast_v4`](UdpSocket::join_multicast_v4) began (IP_DROP_MEMBERSHIP).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.descriptor.get().leave_multicast_v4(&group, &interface)
    }

    /// Receives what is sent to a multicast group, on the interface with the index `interface`, 0 for any
    /// (IPV6_ADD_MEMBERSHIP).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.descriptor.get().join_multicast_v6(group, interface)
    }

    /// Ends what [`join_multicast_v6`](UdpSocket::join_multicast_v6) began (IPV6_DROP_MEMBERSHIP).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.descriptor.get().leave_multicast_v6(group, interface)
    }

    /// Whether what it sends to multicast groups comes back to this machine (IP_MULTICAST_LOOP).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.descriptor.get().multicast_loop_v4()
    }

    /// Sets whether what it sends to multicast groups comes back to this machine (IP_MULTICAST_LOOP); on at first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_multicast_loop_v4(&self, on: bool) -> io::Result<()> {
        self.descriptor.get().set_multicast_loop_v4(on)
    }

    /// Whether what it sends to multicast groups comes back to this machine (IPV6_MULTICAST_LOOP).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.descriptor.get().multicast_loop_v6()
    }

    /// Sets whether what it sends to multicast groups comes back to this machine (IPV6_MULTICAST_LOOP); on at first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_multicast_loop_v6(&self, on: bool) -> io::Result<()> {
        self.descriptor.get().set_multicast_loop_v6(on)
    }

    /// How many routers a multicast datagram may pass (IP_MULTICAST_TTL).
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.descriptor.get().multicast_ttl_v4()
    }

    /// Sets how many routers a multicast datagram may pass (IP_MULTICAST_TTL); 1 at first, which stays in the local
    /// network.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_multicast_ttl_v4(&self, ttl: u32) -> io::Result<()> {
        self.descriptor.get().set_multicast_ttl_v4(ttl)
    }
}
