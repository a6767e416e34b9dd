//! Code that insists on tokio's runtime, inside tasks of mainspring. There is nothing to call: with the feature
//! `tokio-compat`, every thread that runs tasks, timer functions or functions of
//! [`spawn_blocking`](crate::spawn_blocking), and every thread while it is in [`block_on`](crate::block_on), is in a context
//! of tokio's. So `tokio::net`, `tokio::time`, `tokio::fs`, `tokio::spawn` and `tokio::task::spawn_blocking` work,
//! and with them the crates that are built on them: reqwest, sqlx, tonic's `Channel`, redis.
//!
//! # What it costs
//!
//! One thread for the process, `mainspring-tokio`, on which tokio's reactor and timers are, started with the first
//! runtime. It sleeps while nobody uses tokio. Beyond that:
//!
//! * each event of a socket of tokio's comes through that thread, and wakes the task's worker from there: a hop from
//!   thread to thread, of some microseconds. Sockets of [`net`](crate::net) have no such hop;
//! * tokio's timers count in milliseconds;
//! * what is spawned by `tokio::spawn`, by a library too, runs on that thread, all of it. Code that blocks there stalls
//!   every socket and timer of tokio's, and is not rescued. Spawn by [`mainspring::spawn`](crate::spawn) what you spawn
//!   yourself;
//! * tokio's blocking pool, which `tokio::fs` uses, has threads of its own.
//!
//! Measured with an echo service over tokio's sockets in tasks of mainspring, 64 connections, two processors that are all
//! taken (medians of 3 rounds): 0.85 of the throughput over mainspring's own sockets, 7.7 instead of 6.8 us of CPU time a
//! message, and a median answer after 0.46 instead of 0.24 ms.
//!
//! A poll of a task pays nothing: the context is entered once for each thread.
//!
//! # Whose context
//!
//! A thread that is in a context of tokio's already, in `#[tokio::main]` for example, keeps that one in `block_on`. Tasks
//! of mainspring do not inherit it: they run on threads of their own, in the context described above. A socket or timer
//! of tokio's belongs to the context in which it was made, wherever it is used. A runtime of tokio's of one's own may be
//! made, used and dropped in a task.
//!
//! When a thread ends, it has left the context before the destructors of its thread-locals run, so
//! `tokio::runtime::Handle::current()` panics in these, as it does in those of tokio's own threads.
//!
//! # Blocking
//!
//! In a task of mainspring, `Handle::current().block_on(..)` and `tokio::task::block_in_place` block the thread like any
//! other call that blocks: it works, and after a while the processor goes to another thread. Inside of
//! [`blocking`](crate::blocking) it goes at once.
//!
//! In what was spawned by `tokio::spawn`, both panic, as on any runtime of tokio's that has one thread. Beware of
//! [`block_on`](crate::block_on) there: it blocks the reactor that it may be waiting for, and that of the whole process. The
//! same holds on the thread of any other runtime of tokio's that has one thread only.
//!
//! # Errors
//!
//! If the operating system does not give the thread, [`Builder::build`](crate::runtime::Builder::build) says so.
//!
//! # Examples
//!
//! ```
//! # use std::time::Duration;
//! mainspring::block_on(async {
//!     let task = mainspring::spawn(async {
//!         tokio::time::sleep(Duration::from_millis(1)).await;
//!         tokio::task::spawn_blocking(|| "slept by tokio").await.unwrap()
//!     });
//!     assert_eq!(task.await.unwrap(), "slept by tokio");
//! });
//! ```
