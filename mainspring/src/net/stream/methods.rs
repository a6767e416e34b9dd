//! The public methods of a stream socket, written once for TCP and Unix.
//!
//! The type that invokes [`stream_methods!`] has a field `descriptor`, and the names of its module's halves in
//! scope.

/// `$std` is std's type of the stream; `$calls` are the system calls by which it is read and written.
macro_rules! stream_methods {
    ($stream:ident, $std:ty, $calls:ty) => {
        impl $stream {
            /// Reads what is there, at most as much as fits; 0 means that the peer has finished writing, or that
            /// `buffer` is empty.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for reading; otherwise the system's.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been read.
            pub fn read<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> {
                self.descriptor.read::<$calls>(buffer)
            }

            /// Reads until `buffer` is full.
            ///
            /// # Errors
            ///
            /// `UnexpectedEof` if the peer finished writing before; otherwise as [`read`](Self::read).
            ///
            /// # Cancel safety
            ///
            /// None: what was read before the future was dropped, or before an error, is in `buffer`, but how much
            /// that is is lost.
            pub fn read_exact<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<()>> {
                self.descriptor.read_exact::<$calls>(buffer)
            }

            /// Reads into several buffers, one after the other; otherwise as [`read`](Self::read).
            ///
            /// # Errors
            ///
            /// As [`read`](Self::read).
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been read.
            pub async fn readv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.descriptor.readv::<$calls>(buffers).await
            }

            /// Reads what is there without taking it.
            ///
            /// # Errors
            ///
            /// As [`read`](Self::read).
            ///
            /// # Cancel safety
            ///
            /// Nothing is taken in any case.
            pub fn peek<'a>(&'a self, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> {
                self.descriptor.peek(buffer)
            }

            /// Writes as much of `bytes` as the socket takes.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for writing; otherwise the system's, commonly `BrokenPipe` or
            /// `ConnectionReset`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been written.
            pub fn write<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<usize>> {
                self.descriptor.write::<$calls>(bytes)
            }

            /// Writes all of `bytes`.
            ///
            /// # Errors
            ///
            /// `WriteZero` if the socket takes no more; otherwise as [`write`](Self::write). How much was
            /// written before an error is lost: after a timeout, use [`write`](Self::write) to know.
            ///
            /// # Cancel safety
            ///
            /// None: how much was written before the future was dropped is lost.
            pub fn write_all<'a>(&'a self, bytes: &'a [u8]) -> impl Future<Output = io::Result<()>> {
                self.descriptor.write_all::<$calls>(bytes)
            }

            /// Writes from several buffers, one after the other; otherwise as [`write`](Self::write).
            ///
            /// # Errors
            ///
            /// As [`write`](Self::write).
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, nothing has been written.
            pub async fn writev(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
                self.descriptor.writev::<$calls>(buffers).await
            }

            /// Waits until there may be something to read, or the end. It may be that
            /// [`try_read`](Self::try_read) finds nothing all the same.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for reading.
            ///
            /// # Cancel safety
            ///
            /// Nothing is taken in any case.
            pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
                self.descriptor.ready(Direction::Read)
            }

            /// Waits until there may be room to write. It may be that [`try_write`](Self::try_write) finds none
            /// all the same.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for writing.
            ///
            /// # Cancel safety
            ///
            /// Nothing is written in any case.
            pub fn writable(&self) -> impl Future<Output = io::Result<()>> {
                self.descriptor.ready(Direction::Write)
            }

            /// Reads what is there now, without waiting; otherwise as [`read`](Self::read). Where nothing is known
            /// to be there, this makes no system call.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is nothing; otherwise as [`read`](Self::read).
            pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.descriptor.try_read::<$calls>(buffer)
            }

            /// As [`try_read`](Self::try_read), into several buffers, one after the other.
            ///
            /// # Errors
            ///
            /// As there.
            pub fn try_readv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.descriptor.try_readv::<$calls>(buffers)
            }

            /// Writes what there is room for now, without waiting; otherwise as [`write`](Self::write). Where there
            /// is known to be no room, this makes no system call.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if there is no room; otherwise as [`write`](Self::write).
            pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                self.descriptor.try_write::<$calls>(bytes)
            }

            /// As [`try_write`](Self::try_write), from several buffers, one after the other.
            ///
            /// # Errors
            ///
            /// As there.
            pub fn try_writev(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
                self.descriptor.try_writev::<$calls>(buffers)
            }

            /// Makes a call that reads, as soon as it does not block: `call` returns `WouldBlock` if it did, and is
            /// then called again when there is something. For what has no method here, `recvmsg` for example.
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for reading; otherwise those of `call`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, no call has succeeded.
            pub async fn read_with<R>(&self, call: impl FnMut(&$std) -> io::Result<R>) -> io::Result<R> {
                self.descriptor.call(Direction::Read, call).await
            }

            /// Makes a call that writes, as soon as it does not block; otherwise as [`read_with`](Self::read_with).
            ///
            /// # Errors
            ///
            /// `TimedOut` after the deadline for writing; otherwise those of `call`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, no call has succeeded.
            pub async fn write_with<R>(&self, call: impl FnMut(&$std) -> io::Result<R>) -> io::Result<R> {
                self.descriptor.call(Direction::Write, call).await
            }

            /// Makes a call that reads, unless it is known that it would block; together with
            /// [`readable`](Self::readable), where [`read_with`](Self::read_with) does not fit. tokio's `try_io`.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if it would block or did; `TimedOut` after the deadline for reading; otherwise those
            /// of `call`.
            pub fn try_read_with<R>(&self, call: impl FnMut(&$std) -> io::Result<R>) -> io::Result<R> {
                self.descriptor.try_call(Direction::Read, call)
            }

            /// Makes a call that writes, unless it is known that it would block; together with
            /// [`writable`](Self::writable), where [`write_with`](Self::write_with) does not fit.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if it would block or did; `TimedOut` after the deadline for writing; otherwise those
            /// of `call`.
            pub fn try_write_with<R>(&self, call: impl FnMut(&$std) -> io::Result<R>) -> io::Result<R> {
                self.descriptor.try_call(Direction::Write, call)
            }

            /// Ends reading, writing or both. Whoever waits on that side is woken.
            ///
            /// # Errors
            ///
            /// The system's, `NotConnected` among them.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.descriptor.get().shutdown(how)
            }

            /// The error that the socket has pending, which is taken (SO_ERROR).
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.descriptor.get().take_error()
            }

            /// The address of this end.
            ///
            /// # Errors
            ///
            /// The system's.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.descriptor.get().local_addr()
            }

            /// The address of the other end.
            ///
            /// # Errors
            ///
            /// The system's, `NotConnected` among them.
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                self.descriptor.get().peer_addr()
            }

            $crate::net::deadlines::deadline_methods!();

            /// A half for reading and a half for writing, for functions that want a reader and a writer.
            pub fn split(&self) -> (ReadHalf<'_>, WriteHalf<'_>) {
                (ReadHalf::new(self), WriteHalf::new(self))
            }

            /// A half for reading and a half for writing, for different tasks. Dropping the half for writing ends
            /// writing.
            pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
                let stream = std::sync::Arc::new(self);
                (OwnedReadHalf::new(std::sync::Arc::clone(&stream)), OwnedWriteHalf::new(stream))
            }

            /// Takes the socket out of the runtime. It stays in non-blocking mode.
            pub fn into_std(self) -> $std {
                self.descriptor.into_inner()
            }
        }

        impl From<Descriptor<$std>> for $stream {
            fn from(descriptor: Descriptor<$std>) -> $stream {
                $stream { descriptor }
            }
        }

        impl Stream for $stream {
            type Io = $std;
            type Calls = $calls;

            fn descriptor(&self) -> &Descriptor<$std> {
                &self.descriptor
            }

            fn end(&self) -> io::Result<()> {
                match self.shutdown(Shutdown::Write) {
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                    result => result,
                }
            }
        }

        $crate::net::traits::impl_read!($stream, |this| this);
        $crate::net::traits::impl_read!(&$stream, |this| *this);
        $crate::net::traits::impl_write!($stream, |this| this);
        $crate::net::traits::impl_write!(&$stream, |this| *this);

        /// For what has no method here: all options are there in `socket2::SockRef::from(&stream)`.
        impl AsFd for $stream {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.descriptor.as_fd()
            }
        }

        /// As [`AsFd`].
        impl AsRawFd for $stream {
            fn as_raw_fd(&self) -> RawFd {
                self.descriptor.as_fd().as_raw_fd()
            }
        }

        impl fmt::Debug for $stream {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.descriptor.get().fmt(f)
            }
        }

        /// As `into_std`.
        impl From<$stream> for $std {
            fn from(stream: $stream) -> $std {
                stream.into_std()
            }
        }

        /// Registers std's stream with the runtime at hand and puts it into non-blocking mode.
        impl TryFrom<$std> for $stream {
            type Error = io::Error;

            fn try_from(stream: $std) -> io::Result<$stream> {
                stream.set_nonblocking(true)?;
                Ok(Descriptor::new(stream)?.into())
            }
        }
    };
}

pub(crate) use stream_methods;
