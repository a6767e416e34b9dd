//! The I/O traits of the ecosystem on TCP streams and their halves: futures-io's always, tokio's and
//! hyper's as features. All of them are doors to the same few poll functions of [`TcpStream`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf};

/// Implements a trait for reading for everything that reads.
macro_rules! for_readers {
    ($implement:ident) => {
        $implement!(TcpStream, |this| this);
        $implement!(&TcpStream, |this| *this);
        $implement!(ReadHalf<'_>, |this| this.stream);
        $implement!(OwnedReadHalf, |this| &*this.stream);
    };
}

/// Implements a trait for writing for everything that writes. The three traits differ in their names, in
/// that of the method that ends writing, and in what `more` says.
macro_rules! for_writers {
    ($write:path, $end:ident, $more:tt) => {
        poll_write!(TcpStream, |this| this, $write, $end, $more);
        poll_write!(&TcpStream, |this| *this, $write, $end, $more);
        poll_write!(WriteHalf<'_>, |this| this.stream, $write, $end, $more);
        poll_write!(OwnedWriteHalf, |this| &*this.stream, $write, $end, $more);
    };
}

macro_rules! poll_write {
    ($ty:ty, |$this:ident| $stream:expr, $write:path, $end:ident, { $($more:tt)* }) => {
        impl $write for $ty {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $this = &*self;
                ($stream).poll_write_bytes(context, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffers: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $this = &*self;
                ($stream).poll_write_buffers(context, buffers)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn $end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = &*self;
                ($stream).poll_end()
            }

            $($more)*
        }
    };
}

macro_rules! futures_read {
    ($ty:ty, |$this:ident| $stream:expr) => {
        impl futures_io::AsyncRead for $ty {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let $this = &*self;
                ($stream).poll_read_bytes(context, buffer)
            }
        }
    };
}

for_readers!(futures_read);
for_writers!(futures_io::AsyncWrite, poll_close, {});

#[cfg(feature = "tokio-io")]
mod tokio_io {
    //! tokio's traits.
    #![allow(unsafe_code)]

    use tokio::io::ReadBuf;

    use super::{
        Context, IoSlice, OwnedReadHalf, OwnedWriteHalf, Pin, Poll, ReadHalf, TcpStream, WriteHalf, io,
    };

    fn poll_read(
        stream: &TcpStream,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
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

    macro_rules! tokio_read {
        ($ty:ty, |$this:ident| $stream:expr) => {
            impl tokio::io::AsyncRead for $ty {
                fn poll_read(
                    self: Pin<&mut Self>,
                    context: &mut Context<'_>,
                    buffer: &mut ReadBuf<'_>,
                ) -> Poll<io::Result<()>> {
                    let $this = &*self;
                    poll_read($stream, context, buffer)
                }
            }
        };
    }

    for_readers!(tokio_read);
    for_writers!(tokio::io::AsyncWrite, poll_shutdown, {
        fn is_write_vectored(&self) -> bool {
            true
        }
    });
}

#[cfg(feature = "hyper")]
mod hyper_rt {
    //! hyper's traits.
    #![allow(unsafe_code)]

    use hyper::rt::ReadBufCursor;

    use super::{
        Context, IoSlice, OwnedReadHalf, OwnedWriteHalf, Pin, Poll, ReadHalf, TcpStream, WriteHalf, io,
    };

    fn poll_read(
        stream: &TcpStream,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
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

    macro_rules! hyper_read {
        ($ty:ty, |$this:ident| $stream:expr) => {
            impl hyper::rt::Read for $ty {
                fn poll_read(
                    self: Pin<&mut Self>,
                    context: &mut Context<'_>,
                    cursor: ReadBufCursor<'_>,
                ) -> Poll<io::Result<()>> {
                    let $this = &*self;
                    poll_read($stream, context, cursor)
                }
            }
        };
    }

    for_readers!(hyper_read);
    for_writers!(hyper::rt::Write, poll_shutdown, {
        fn is_write_vectored(&self) -> bool {
            true
        }
    });
}
