//! The traits of tokio and hyper on mainspring's sockets, and hyper's executor and timer: used as the
//! crates that bring the traits use them.
#![cfg(any(feature = "tokio-io", feature = "hyper"))]

mod common;

#[cfg(feature = "tokio-io")]
mod tokio_io {
    use std::io;
    use std::pin::pin;
    use std::task::Poll;

    use crate::common::run;
    use crate::common::sockets::{byte_at, is_timeout, pair, poll_once};

    use mainspring::net::UnixStream;
    use mainspring::time::{Duration, Instant};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

    #[test]
    fn copy_moves_everything_and_shutdown_ends_it() {
        run(2, async {
            let (a, b) = pair().await;
            let echo = mainspring::spawn(async move {
                let (mut read, mut write) = b.into_split();
                tokio::io::copy(&mut read, &mut write).await.unwrap()
            });
            let (mut read, mut write) = a.into_split();
            let writer = mainspring::spawn(async move {
                let all: Vec<u8> = (0..1_000_000).map(byte_at).collect();
                AsyncWriteExt::write_all(&mut write, &all).await.unwrap();
                AsyncWriteExt::flush(&mut write).await.unwrap();
                AsyncWriteExt::shutdown(&mut write).await.unwrap();
                AsyncWriteExt::shutdown(&mut write).await.unwrap();
            });
            let mut back = Vec::new();
            AsyncReadExt::read_to_end(&mut read, &mut back).await.unwrap();
            assert_eq!(back.len(), 1_000_000);
            assert!(back.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
            assert_eq!(echo.await.unwrap(), 1_000_000);
            writer.await.unwrap();
        });
    }

    #[test]
    fn unix_streams_and_their_halves_are_copied_by_tokio_as_well() {
        run(2, async {
            let (mut a, b) = UnixStream::pair().unwrap();
            let echo = mainspring::spawn(async move {
                let (mut read, mut write) = b.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                AsyncWriteExt::shutdown(&mut write).await.unwrap();
            });
            let all: Vec<u8> = (0..50_000).map(byte_at).collect();
            AsyncWriteExt::write_all(&mut a, &all).await.unwrap();
            AsyncWriteExt::shutdown(&mut a).await.unwrap();
            let mut back = Vec::new();
            AsyncReadExt::read_to_end(&mut a, &mut back).await.unwrap();
            assert_eq!(back, all);
            echo.await.unwrap();
        });
    }

    #[test]
    fn reading_goes_on_behind_what_a_buffer_holds_and_touches_nothing_else() {
        run(2, async {
            let (mut a, mut b) = pair().await;
            AsyncWriteExt::write_all(&mut a, b"cdef").await.unwrap();
            let mut memory = [b'.'; 10];
            let mut buffer = ReadBuf::new(&mut memory);
            buffer.put_slice(b"ab");
            std::future::poll_fn(|context| pin!(&b).poll_read(context, &mut buffer)).await.unwrap();
            assert_eq!(buffer.filled(), b"abcdef");
            assert_eq!(buffer.remaining(), 4);
            assert_eq!(&memory, b"abcdef....");
            // One that is full: nothing is read, and nobody waits.
            let mut full = ReadBuf::new(&mut []);
            let poll = std::future::poll_fn(|context| Poll::Ready(pin!(&b).poll_read(context, &mut full)));
            assert!(matches!(poll.await, Poll::Ready(Ok(()))));
            // Into memory that was never written.
            AsyncWriteExt::write_all(&mut a, b"xyz").await.unwrap();
            let mut fresh = Vec::with_capacity(100);
            assert_eq!(AsyncReadExt::read_buf(&mut b, &mut fresh).await.unwrap(), 3);
            assert_eq!(fresh, b"xyz");
        });
    }

    #[test]
    fn vectored_writes_and_deadlines_reach_the_socket() {
        run(2, async {
            let (mut a, mut b) = pair().await;
            assert!(AsyncWrite::is_write_vectored(&a));
            let buffers = [io::IoSlice::new(b"one"), io::IoSlice::new(b"two")];
            assert_eq!(AsyncWriteExt::write_vectored(&mut a, &buffers).await.unwrap(), 6);
            let mut buffer = [0; 6];
            AsyncReadExt::read_exact(&mut b, &mut buffer).await.unwrap();
            assert_eq!(&buffer, b"onetwo");
            let at = Instant::now() + Duration::from_millis(5);
            b.set_read_deadline(at).unwrap();
            assert!(is_timeout(&AsyncReadExt::read(&mut b, &mut buffer).await));
            assert!(Instant::now() >= at);
        });
    }

    /// The traits' one waker and the waiters of async functions do not get into each other's way.
    #[test]
    fn trait_and_async_readers_of_one_stream_are_both_woken() {
        run(2, async {
            let (a, b) = pair().await;
            for _ in 0..50 {
                let (mut x, mut y) = ([0], [0]);
                let mut shared = &b;
                let mut by_trait = pin!(AsyncReadExt::read(&mut shared, &mut x));
                let mut by_name = pin!(b.read(&mut y));
                assert!(poll_once(by_trait.as_mut()).await.is_pending());
                assert!(poll_once(by_name.as_mut()).await.is_pending());
                a.write_all(b"xy").await.unwrap();
                assert_eq!(by_trait.await.unwrap() + by_name.await.unwrap(), 2);
            }
        });
    }
}

#[cfg(feature = "hyper")]
mod hyper_rt {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use crate::common::sockets::{byte_at, is_timeout, pair};
    use crate::common::{SOON, run, watched};

    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::rt::{Executor as _, Sleep, Timer as _};
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use mainspring::compat::hyper::{Executor, Timer};
    use mainspring::net::{TcpListener, TcpStream, UnixStream};
    use mainspring::time::{Duration, Instant, sleep, timeout};

    async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(Response::new(Full::new(body)))
    }

    fn request(count: usize) -> Request<Full<Bytes>> {
        let body: Vec<u8> = (0..count).map(byte_at).collect();
        Request::post("http://localhost/").header("host", "localhost").body(Full::new(body.into())).unwrap()
    }

    #[test]
    fn http1_clients_and_servers_talk() {
        run(2, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = mainspring::spawn(async move {
                for _ in 0..8 {
                    let (stream, _) = listener.accept().await.unwrap();
                    mainspring::spawn(async move {
                        let mut http = hyper::server::conn::http1::Builder::new();
                        let http = http.timer(Timer::new()).header_read_timeout(SOON);
                        http.serve_connection(stream, service_fn(echo)).await.unwrap();
                    });
                }
            });
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    mainspring::spawn(async move {
                        let stream = TcpStream::connect(addr).await.unwrap();
                        let (mut sender, connection) =
                            hyper::client::conn::http1::handshake(stream).await.unwrap();
                        let connection = mainspring::spawn(connection);
                        for count in [0, 1, 1_000, 300_000] {
                            sender.ready().await.unwrap();
                            let answer = sender.send_request(request(count)).await.unwrap();
                            let body = answer.into_body().collect().await.unwrap().to_bytes();
                            assert_eq!(body.len(), count);
                            assert!(body.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
                        }
                        drop(sender);
                        connection.await.unwrap().unwrap();
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
            server.await.unwrap();
        });
    }

    #[test]
    fn http1_is_spoken_over_unix_streams_as_well() {
        run(2, async {
            let (client, server) = UnixStream::pair().unwrap();
            let server = mainspring::spawn(async move {
                hyper::server::conn::http1::Builder::new()
                    .timer(Timer::new())
                    .serve_connection(server, service_fn(echo))
                    .await
                    .unwrap();
            });
            let (mut sender, connection) = hyper::client::conn::http1::handshake(client).await.unwrap();
            let connection = mainspring::spawn(connection);
            let answer = sender.send_request(request(300_000)).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), 300_000);
            assert!(body.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
            drop(sender);
            connection.await.unwrap().unwrap();
            server.await.unwrap();
        });
    }

    #[test]
    fn http2_clients_and_servers_talk_with_many_requests_on_one_connection() {
        run(2, async {
            let (client, server) = pair().await;
            let server = mainspring::spawn(async move {
                let mut http = hyper::server::conn::http2::Builder::new(Executor::new());
                let http = http.timer(Timer::new()).keep_alive_interval(Duration::from_millis(5));
                http.serve_connection(server, service_fn(echo)).await.unwrap();
            });
            let (sender, connection) =
                hyper::client::conn::http2::handshake(Executor::new(), client).await.unwrap();
            let connection = mainspring::spawn(connection);
            let requests: Vec<_> = (0..50)
                .map(|number| {
                    let mut sender = sender.clone();
                    mainspring::spawn(async move {
                        let count = number * 1_000;
                        let answer = sender.send_request(request(count)).await.unwrap();
                        let body = answer.into_body().collect().await.unwrap().to_bytes();
                        assert_eq!(body.len(), count);
                        assert!(body.iter().enumerate().all(|(place, byte)| *byte == byte_at(place)));
                    })
                })
                .collect();
            for request in requests {
                request.await.unwrap();
            }
            // Idle for some pings, then again.
            sleep(Duration::from_millis(30)).await;
            let mut sender = sender;
            sender.send_request(request(7)).await.unwrap();
            drop(sender);
            connection.await.unwrap().unwrap();
            server.await.unwrap();
        });
    }

    #[test]
    fn a_client_that_sends_no_header_is_cut_off_by_hypers_timer_or_by_the_deadline() {
        run(2, async {
            let (client, server) = pair().await;
            let start = Instant::now();
            let mut http = hyper::server::conn::http1::Builder::new();
            let http = http.timer(Timer::new()).header_read_timeout(Duration::from_millis(20));
            let result = http.serve_connection(server, service_fn(echo)).await;
            assert!(result.unwrap_err().is_timeout());
            assert!(start.elapsed() >= Duration::from_millis(20));
            drop(client);

            let (client, server) = pair().await;
            let at = Instant::now() + Duration::from_millis(20);
            let deadlines = server.deadlines();
            deadlines.set_read_deadline(at).unwrap();
            client.write_all(b"GET / HT").await.unwrap();
            let http = hyper::server::conn::http1::Builder::new();
            let error = http.serve_connection(server, service_fn(echo)).await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap();
            let io = source.downcast_ref::<std::io::Error>().unwrap();
            assert!(is_timeout(&Err::<(), _>(std::io::Error::from(io.kind()))));
            assert!(Instant::now() >= at);
            deadlines.set_deadline(None).unwrap_err();
        });
    }

    #[test]
    fn the_executor_spawns_where_it_was_told_to() {
        let (_watchdog, one) = watched(1);
        let (_watchdog, two) = watched(2);
        let executor = Executor::on(two.handle());
        let (sender, receiver) = std::sync::mpsc::channel();
        one.block_on(async {
            for executor in [executor, Executor::new(), Executor::default()] {
                let sender = sender.clone();
                executor.execute(async move {
                    sender.send(mainspring::runtime::Handle::current().metrics().processors).unwrap();
                });
            }
        });
        drop(sender);
        let mut processors: Vec<_> = receiver.iter().collect();
        processors.sort_unstable();
        assert_eq!(processors, [1, 1, 2]);
        one.metrics();
    }

    struct Foreign;
    impl Future for Foreign {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }
    impl Sleep for Foreign {}

    #[test]
    fn the_timer_moves_its_own_sleeps_and_replaces_those_of_others() {
        run(2, async {
            let timer = Timer::new();
            let start = timer.now();
            let mut sleep = timer.sleep(Duration::from_secs(3600));
            assert!(timeout(Duration::from_millis(2), &mut sleep).await.is_err());
            timer.reset(&mut sleep, start + Duration::from_millis(10));
            let place = std::ptr::from_ref(&*sleep).cast::<()>();
            timeout(SOON, &mut sleep).await.expect("it was moved to an earlier time");
            assert!(timer.now() >= start + Duration::from_millis(10));
            let later = timer.now() + Duration::from_millis(10);
            timer.reset(&mut sleep, later);
            assert_eq!(std::ptr::from_ref(&*sleep).cast::<()>(), place, "moved, not made anew");
            sleep.as_mut().await;
            assert!(timer.now() >= later);

            let mut foreign: Pin<Box<dyn Sleep>> = Box::pin(Foreign);
            timer.reset(&mut foreign, timer.now() + Duration::from_millis(2));
            timeout(SOON, foreign).await.expect("it is a sleep of ours now");
            timer.sleep_until(start).await;
        });
    }
}
