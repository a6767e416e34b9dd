//! The two halves of a stream socket, written once for TCP and Unix.

/// Makes the types of the halves of `$stream` in the module that invokes it, where its name, `io`, `Arc`,
/// `Shutdown` and its `SocketAddr` are in scope.
macro_rules! halves {
    ($stream:ident) => {
        /// The half for reading of a borrowed stream; all that the stream can do is behind [`AsRef`].
        #[derive(Clone, Copy, Debug)]
        pub struct ReadHalf<'a> {
            stream: &'a $stream,
        }

        /// The half for writing of a borrowed stream; all that the stream can do is behind [`AsRef`].
        #[derive(Clone, Copy, Debug)]
        pub struct WriteHalf<'a> {
            stream: &'a $stream,
        }

        impl<'a> ReadHalf<'a> {
            pub(super) fn new(stream: &'a $stream) -> ReadHalf<'a> {
                ReadHalf { stream }
            }
        }

        impl<'a> WriteHalf<'a> {
            pub(super) fn new(stream: &'a $stream) -> WriteHalf<'a> {
                WriteHalf { stream }
            }
        }

        /// The half for reading of a stream; all that the stream can do is behind [`AsRef`].
        #[derive(Debug)]
        pub struct OwnedReadHalf {
            stream: Arc<$stream>,
        }

        /// The half for writing of a stream; all that the stream can do is behind [`AsRef`]. Dropping it
        /// ends writing, unless it was reunited or [forgotten](OwnedWriteHalf::forget).
        #[derive(Debug)]
        pub struct OwnedWriteHalf {
            stream: Arc<$stream>,
            end_on_drop: bool,
        }

        impl OwnedReadHalf {
            pub(super) fn new(stream: Arc<$stream>) -> OwnedReadHalf {
                OwnedReadHalf { stream }
            }

            /// As the stream's method of this name.
            ///
            /// # Errors
            ///
            /// As there.
            ///
            /// # Cancel safety
            ///
            /// As there.
            pub fn read<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> {
                self.stream.read(buffer)
            }

            /// As the stream's method of this name.
            ///
            /// # Errors
            ///
            /// As there.
            ///
            /// # Cancel safety
            ///
            /// None.
            pub fn read_exact<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<()>> {
                self.stream.read_exact(buffer)
            }

            /// Puts the two halves of one stream together again.
            ///
            /// # Errors
            ///
            /// Gives both back if they are of different streams.
            pub fn reunite(self, write: OwnedWriteHalf) -> Result<$stream, ReuniteError> {
                if !Arc::ptr_eq(&self.stream, &write.stream) {
                    return Err(ReuniteError(self, write));
                }
                write.forget();
                // The two halves were the only references.
                Ok(Arc::into_inner(self.stream).expect("a half of a stream was cloned"))
            }
        }

        impl OwnedWriteHalf {
            pub(super) fn new(stream: Arc<$stream>) -> OwnedWriteHalf {
                OwnedWriteHalf { stream, end_on_drop: true }
            }

            /// As the stream's method of this name.
            ///
            /// # Errors
            ///
            /// As there.
            ///
            /// # Cancel safety
            ///
            /// As there.
            pub fn write<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<usize>> {
                self.stream.write(bytes)
            }

            /// As the stream's method of this name.
            ///
            /// # Errors
            ///
            /// As there.
            ///
            /// # Cancel safety
            ///
            /// None.
            pub fn write_all<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> {
                self.stream.write_all(bytes)
            }

            /// Drops this half without ending writing. The socket is closed with the other half.
            pub fn forget(mut self) {
                self.end_on_drop = false;
            }
        }

        impl Drop for OwnedWriteHalf {
            fn drop(&mut self) {
                if self.end_on_drop {
                    // A connection that is gone already needs no end.
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
            }
        }

        $crate::net::stream::halves!(@each ReadHalf<'_>, $stream, impl_read, |this| this.stream);
        $crate::net::stream::halves!(@each OwnedReadHalf, $stream, impl_read, |this| &*this.stream);
        $crate::net::stream::halves!(@each WriteHalf<'_>, $stream, impl_write, |this| this.stream);
        $crate::net::stream::halves!(@each OwnedWriteHalf, $stream, impl_write, |this| &*this.stream);

        /// Two halves of different streams were to be put together.
        #[derive(Debug)]
        pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

        impl std::fmt::Display for ReuniteError {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the halves are of different streams")
            }
        }

        impl std::error::Error for ReuniteError {}
    };
    // What each half has.
    (@each $half:ty, $stream:ident, $implement:ident, |$this:ident| $inner:expr) => {
        impl $half {
            /// The address of this end.
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.stream.local_addr()
            }

            /// The address of the other end.
            ///
            /// # Errors
            ///
            /// The system's, `NotConnected` among them.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.stream.peer_addr()
            }
        }

        impl AsRef<$stream> for $half {
            fn as_ref(&self) -> &$stream {
                &self.stream
            }
        }

        $crate::net::traits::$implement!($half, |$this| $inner);
    };
}

pub(crate) use halves;
