//! Adapters for crates that bring their own traits for runtimes. The I/O traits need none: they are
//! implemented on the sockets themselves.

#[cfg(feature = "hyper")]
pub mod hyper;
