//! The I/O traits of the ecosystem, futures-io's always, tokio's and hyper's as features, for whatever is a
//! `Stream` or has one.
//!
//! Knows nothing of particular types: each type that reads calls [`impl_read!`], and each that writes
//! [`impl_write!`]. All of the traits are doors to the few poll functions of that trait.
//!
//! ```text
//! impl_read!(TcpStream, |this| this);
//! impl_read!([T: AsFd] Async<T>, |this| this);        generics in front
//! impl_write!(WriteHalf<'_>, |this| this.stream);     from `&Self` to the `&Stream`
//! ```
#![allow(unsafe_code)]

#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use std::io;
#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use std::task::{Context, Poll};

#[cfg(any(feature = "tokio-io", feature = "hyper"))]
use super::stream::Stream;

/// Reads behind what `buffer` holds.
#[cfg(feature = "tokio-io")]
pub(crate) fn read_for_tokio(
    stream: &impl Stream,
    context: &mut Context<'_>,
    buffer: &mut tokio::io::ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    // SAFETY: `unfilled_mut` asks that no initialised byte is made uninitialised; `poll_read_uninit`
    // only has the kernel write bytes there.
    let unfilled = unsafe { buffer.unfilled_mut() };
    let count = std::task::ready!(stream.poll_read_uninit(context, unfilled))?;
    // SAFETY: `assume_init` asks that the first `count` bytes of the unfilled part are initialised;
    // the kernel has just written them.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Poll::Ready(Ok(()))
}

/// Reads at the cursor.
#[cfg(feature = "hyper")]
pub(crate) fn read_for_hyper(
    stream: &impl Stream,
    context: &mut Context<'_>,
    mut cursor: hyper::rt::ReadBufCursor<'_>,
) -> Poll<io::Result<()>> {
    // SAFETY: `as_mut` asks that no initialised byte is made uninitialised; `poll_read_uninit` only
    // has the kernel write bytes there.
    let unfilled = unsafe { cursor.as_mut() };
    let count = std::task::ready!(stream.poll_read_uninit(context, unfilled))?;
    // SAFETY: `advance` asks that the next `count` bytes are initialised; the kernel has just
    // written them.
    unsafe { cursor.advance(count) };
    Poll::Ready(Ok(()))
}

/// Implements the traits for reading.
macro_rules! impl_read {
    ([$($generics:tt)*] $ty:ty, |$this:ident| $stream:expr) => {
        impl<$($generics)*> futures_io::AsyncRead for $ty {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                $crate::net::stream::Stream::poll_read_bytes($stream, context, buffer)
            }
        }

        #[cfg(feature = "tokio-io")]
        impl<$($generics)*> tokio::io::AsyncRead for $ty {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = &*self;
                $crate::net::traits::read_for_tokio($stream, context, buffer)
            }
        }

        #[cfg(feature = "hyper")]
        impl<$($generics)*> hyper::rt::Read for $ty {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                cursor: hyper::rt::ReadBufCursor<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = &*self;
                $crate::net::traits::read_for_hyper($stream, context, cursor)
            }
        }
    };
    ($ty:ty, |$this:ident| $stream:expr) => {
        $crate::net::traits::impl_read!([] $ty, |$this| $stream);
    };
}

/// Implements the traits for writing.
macro_rules! impl_write {
    ([$($generics:tt)*] $ty:ty, |$this:ident| $stream:expr) => {
        $crate::net::traits::impl_one_write!(
            [$($generics)*] $ty, |$this| $stream, futures_io::AsyncWrite, poll_close, {}
        );

        #[cfg(feature = "tokio-io")]
        $crate::net::traits::impl_one_write!(
            [$($generics)*] $ty, |$this| $stream, tokio::io::AsyncWrite, poll_shutdown,
            { fn is_write_vectored(&self) -> bool { true } }
        );

        #[cfg(feature = "hyper")]
        $crate::net::traits::impl_one_write!(
            [$($generics)*] $ty, |$this| $stream, hyper::rt::Write, poll_shutdown,
            { fn is_write_vectored(&self) -> bool { true } }
        );
    };
    ($ty:ty, |$this:ident| $stream:expr) => {
        $crate::net::traits::impl_write!([] $ty, |$this| $stream);
    };
}

/// The three traits for writing differ in their names, in that of the method that ends writing, and in what
/// `more` says.
macro_rules! impl_one_write {
    (
        [$($generics:tt)*] $ty:ty, |$this:ident| $stream:expr,
        $write:path, $end:ident, { $($more:tt)* }
    ) => {
        impl<$($generics)*> $write for $ty {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                $crate::net::stream::Stream::poll_write_bytes($stream, context, bytes)
            }

            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
                buffers: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let $this = &*self;
                $crate::net::stream::Stream::poll_write_buffers($stream, context, buffers)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn $end(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let $this = &*self;
                std::task::Poll::Ready($crate::net::stream::Stream::end($stream))
            }

            $($more)*
        }
    };
}

pub(crate) use {impl_one_write, impl_read, impl_write};
