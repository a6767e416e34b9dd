//! Connecting: until a deadline, and to one of several addresses.
//!
//! Knows nothing of sockets: an attempt is a future, and to drop it is to give it up.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream};

use crate::time::{Instant, sleep, timeout_at};

/// How long an attempt has before the next one begins beside it: what RFC 8305 recommends in section 5.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Gives a future up at the deadline; does not begin it after that.
pub(crate) async fn until<T>(
    deadline: Instant,
    connecting: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "deadline for connecting has passed");
    if deadline <= Instant::now() {
        return Err(timed_out());
    }
    timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err(timed_out()))
}

/// Connects to the first of the addresses that answers, as RFC 8305 has it ("happy eyeballs"): in the order of
/// [`take_turns`], the next one as soon as one has failed or [`ATTEMPT_DELAY`] has passed, beside those that
/// have not answered yet. The first success is the result, and the other attempts are dropped. If all
/// fail, the error is that which came last.
///
/// `addrs` is not empty.
pub(crate) async fn race<T, F>(addrs: &[SocketAddr], attempt: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    if let [addr] = addrs {
        return attempt(*addr).await;
    }
    let mut waiting = take_turns(addrs).into_iter();
    let mut attempts = FuturesUnordered::new();
    attempts.extend(waiting.next().map(&attempt));
    let mut delay = sleep(ATTEMPT_DELAY);
    poll_fn(move |context| {
        loop {
            // A success first: it counts more than that it is time for another attempt.
            let mut failed = None;
            match Pin::new(&mut attempts).poll_next(context) {
                Poll::Ready(Some(Ok(connected))) => return Poll::Ready(Ok(connected)),
                Poll::Ready(Some(Err(error))) => failed = Some(error),
                Poll::Ready(None) => unreachable!("the last attempt that fails ends it all"),
                Poll::Pending => {}
            }
            if waiting.len() > 0 {
                if failed.is_some() || Pin::new(&mut delay).poll(context).is_ready() {
                    attempts.extend(waiting.next().map(&attempt));
                    delay.reset_after(ATTEMPT_DELAY);
                } else {
                    return Poll::Pending;
                }
            } else {
                match failed {
                    Some(error) if attempts.is_empty() => return Poll::Ready(Err(error)),
                    Some(_) => {}
                    None => return Poll::Pending,
                }
            }
        }
    })
    .await
}

/// The two families by turns, beginning with the first address's, and each in the order that it had (RFC 8305,
/// section 4): a family that does not work at all costs one delay, not one for each of its addresses.
fn take_turns(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addrs.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addrs.iter().copied().partition(|addr| addr.is_ipv4() == first_is_v4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    while first.len() + second.len() > 0 {
        ordered.extend(first.next().into_iter().chain(second.next()));
    }
    ordered
}

#[cfg(all(test, not(mainspring_loom)))]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns_in_the_order_that_each_had() {
        let order = |addrs: &[&str]| -> Vec<String> {
            let addrs = take_turns(&addrs.iter().map(|text| addr(text)).collect::<Vec<_>>());
            addrs.iter().map(|addr| addr.port().to_string()).collect()
        };
        assert_eq!(
            order(&["[::1]:1", "[::1]:2", "[::1]:3", "1.1.1.1:4", "1.1.1.1:5"]),
            ["1", "4", "2", "5", "3"]
        );
        assert_eq!(
            order(&["1.1.1.1:1", "[::1]:2", "1.1.1.1:3", "[::1]:4", "[::1]:5"]),
            ["1", "2", "3", "4", "5"]
        );
        assert_eq!(order(&["1.1.1.1:1", "1.1.1.1:2"]), ["1", "2"]);
        assert_eq!(order(&[]), [""; 0]);
    }

    /// What becomes of an attempt on a port: it never answers, it fails, or it succeeds after so many
    /// milliseconds. The result is the port that won, and which attempts were made at which millisecond.
    fn race_of(ports: &[u16], fates: impl Fn(u16) -> (u64, bool)) -> (io::Result<u16>, Vec<(u16, u128)>) {
        let start = std::time::Instant::now();
        let made = RefCell::new(Vec::new());
        let addrs: Vec<_> = ports.iter().map(|&port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let result = crate::block_on(race(&addrs, |addr| {
            let port = addr.port();
            made.borrow_mut().push((port, start.elapsed().as_millis()));
            let (after, succeeds) = fates(port);
            async move {
                if after == u64::MAX {
                    pending::<()>().await;
                }
                sleep(Duration::from_millis(after)).await;
                if succeeds { Ok(port) } else { Err(io::Error::other(port.to_string())) }
            }
        }));
        (result, made.into_inner())
    }

    #[test]
    fn the_next_attempt_begins_beside_one_that_does_not_answer() {
        let (won, made) = race_of(&[1, 2, 3], |port| if port == 2 { (0, true) } else { (u64::MAX, false) });
        assert_eq!(won.unwrap(), 2);
        assert_eq!(made.len(), 2);
        assert!(made[1].1 >= 250, "{made:?}");
    }

    #[test]
    fn the_next_attempt_begins_at_once_when_one_fails() {
        // Ten failures in the time of one delay, or all delays would be waited for.
        let ports: Vec<u16> = (1..=10).collect();
        let (won, made) = race_of(&ports, |port| (0, port == 10));
        assert_eq!(won.unwrap(), 10);
        assert!(made[9].1 < 9 * 250, "{made:?}");
    }

    #[test]
    fn an_early_attempt_that_answers_late_still_wins() {
        let (won, made) = race_of(&[1, 2], |port| if port == 1 { (400, true) } else { (u64::MAX, false) });
        assert_eq!(won.unwrap(), 1);
        assert_eq!(made.len(), 2);
    }

    #[test]
    fn when_all_have_failed_the_error_is_that_which_came_last() {
        let (result, made) = race_of(&[1, 2, 3], |port| if port == 1 { (600, false) } else { (0, false) });
        assert_eq!(result.unwrap_err().to_string(), "1");
        assert_eq!(made.len(), 3);
    }
}
