//! Adapters for crates that bring their own traits for runtimes. The I/O traits need none: they are
//! implemented on the sockets themselves.

#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "quinn")]
pub mod quinn;
#[cfg(feature = "tokio-compat")]
pub mod tokio;
#[cfg(feature = "tower")]
pub mod tower;
