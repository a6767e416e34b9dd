//! Who a peer is, as the kernel says.
//!
//! Unsafe, because rustix's `socket_peercred` gives a process id that must not be 0, and the kernel says 0 for
//! a process of another namespace.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

/// The credentials of the process at the other end of a Unix connection, from when it connected or began to listen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UCred {
    pid: i32,
    uid: u32,
    gid: u32,
}

impl UCred {
    /// Of the socket's peer.
    pub(super) fn of_peer(socket: impl AsFd) -> io::Result<UCred> {
        let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut size = mem::size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: getsockopt asks for a descriptor, which is open as it is borrowed, and for memory of `size` bytes
        // to write to: `cred` is that, any bytes are valid in it, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut cred).cast(),
                &raw mut size,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(UCred { pid: cred.pid, uid: cred.uid, gid: cred.gid })
    }

    /// The process; `None` if it is not visible from here, as it is in another namespace.
    pub fn pid(&self) -> Option<i32> {
        Some(self.pid).filter(|&pid| pid != 0)
    }

    /// The effective user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    pub fn gid(&self) -> u32 {
        self.gid
    }
}
