//! The store against what it promises: behaviour by behaviour, and all of it against a `BTreeMap`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, Weak};
use std::task::Wake;

use proptest::prelude::*;

use super::*;

/// Makes wakers with numbers, and notes the numbers of those that are woken.
#[derive(Default)]
struct Probes {
    woken: Arc<Mutex<Vec<usize>>>,
    alive: Vec<Weak<Probe>>,
}

struct Probe {
    number: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push(self.number);
    }
}

impl Probes {
    /// The waker with the next number; the first has 0.
    fn waker(&mut self) -> Waker {
        let probe = Arc::new(Probe { number: self.alive.len(), woken: Arc::clone(&self.woken) });
        self.alive.push(Arc::downgrade(&probe));
        Waker::from(probe)
    }

    /// The number of a waker, which is used up.
    fn number(&self, waker: Waker) -> usize {
        waker.wake();
        let mut woken = self.woken.lock().unwrap();
        assert_eq!(woken.len(), 1);
        woken.remove(0)
    }

    /// How many wakers with this number there are.
    fn count(&self, number: usize) -> usize {
        self.alive[number].strong_count()
    }
}

fn tick(nanos: u64) -> Tick {
    Tick::from_nanos(nanos)
}

/// Everything that is due at `now`, with batches of `limit`: true times and numbers.
fn fire(timers: &mut Timers, probes: &Probes, now: u64, limit: usize) -> Vec<(u64, usize)> {
    let mut due = Vec::new();
    while timers.take_due(tick(now), limit, &mut due) {
        timers.verify();
    }
    timers.verify();
    due.into_iter().map(|due| (due.at.as_nanos(), probes.number(due.waker))).collect()
}

/// Timers at `times`, numbered in this order, and their keys.
fn armed(times: &[u64]) -> (Timers, Probes, Vec<Key>) {
    let (mut timers, mut probes) = (Timers::new(), Probes::default());
    let keys = times
        .iter()
        .map(|&at| {
            let (key, _) = timers.insert(tick(0), tick(at), probes.waker());
            key
        })
        .collect();
    timers.verify();
    (timers, probes, keys)
}

#[test]
fn nothing_fires_one_nanosecond_early() {
    let (mut timers, probes, _) = armed(&[100]);
    assert_eq!(fire(&mut timers, &probes, 99, 10), []);
    assert_eq!(fire(&mut timers, &probes, 100, 10), [(100, 0)]);
    assert_eq!(timers.len(), 0);
}

#[test]
fn the_order_is_time_and_then_arming() {
    let (mut timers, probes, _) = armed(&[7, 5, 7, 0, 5, 7]);
    assert_eq!(fire(&mut timers, &probes, 10, 2), [(0, 3), (5, 1), (5, 4), (7, 0), (7, 2), (7, 5)]);
}

#[test]
fn a_reset_to_the_same_instant_counts_as_arming_anew() {
    let (mut timers, probes, keys) = armed(&[5, 5, 5]);
    assert_eq!(timers.reset(keys[0], tick(5)), Some(Earliest::Unchanged));
    assert_eq!(fire(&mut timers, &probes, 5, 10), [(5, 1), (5, 2), (5, 0)]);
}

#[test]
fn a_timer_moved_away_and_back_is_last_of_its_instant() {
    let (mut timers, probes, keys) = armed(&[5, 5]);
    assert_eq!(timers.reset(keys[0], tick(9)), Some(Earliest::Unchanged));
    assert_eq!(timers.reset(keys[0], tick(5)), Some(Earliest::Unchanged));
    assert_eq!(fire(&mut timers, &probes, 5, 10), [(5, 1), (5, 0)]);
}

#[test]
fn moved_later_fires_at_the_new_time_only() {
    let (mut timers, probes, keys) = armed(&[10, 15]);
    assert_eq!(timers.reset(keys[0], tick(20)), Some(Earliest::Unchanged));
    assert_eq!(timers.next(), tick(10), "it is not re-filed yet");
    assert_eq!(fire(&mut timers, &probes, 19, 10), [(15, 1)]);
    assert_eq!(timers.next(), tick(20), "it has been re-filed");
    assert_eq!(fire(&mut timers, &probes, 20, 10), [(20, 0)]);
}

#[test]
fn moved_later_and_then_part_of_the_way_back_is_not_early() {
    let (mut timers, probes, keys) = armed(&[10]);
    assert_eq!(timers.reset(keys[0], tick(30)), Some(Earliest::Unchanged));
    assert_eq!(timers.reset(keys[0], tick(20)), Some(Earliest::Unchanged), "it is filed earlier still");
    assert_eq!(timers.deadline(keys[0]), Some(tick(20)));
    assert_eq!(fire(&mut timers, &probes, 19, 10), []);
    assert_eq!(fire(&mut timers, &probes, 20, 10), [(20, 0)]);
}

#[test]
fn moved_before_all_others_says_so() {
    let (mut timers, probes, keys) = armed(&[10, 20, 30]);
    assert_eq!(timers.reset(keys[2], tick(15)), Some(Earliest::Unchanged));
    assert_eq!(timers.reset(keys[1], tick(5)), Some(Earliest::Moved(tick(5))));
    assert_eq!(fire(&mut timers, &probes, 30, 10), [(5, 1), (10, 0), (15, 2)]);
}

#[test]
fn an_insert_says_whether_a_sleeper_would_oversleep() {
    let (mut timers, mut probes) = (Timers::new(), Probes::default());
    assert_eq!(timers.insert(tick(0), Tick::NEVER, probes.waker()).1, Earliest::Unchanged);
    assert_eq!(timers.insert(tick(0), tick(10), probes.waker()).1, Earliest::Moved(tick(10)));
    assert_eq!(timers.insert(tick(0), tick(10), probes.waker()).1, Earliest::Unchanged);
    assert_eq!(timers.insert(tick(0), tick(11), probes.waker()).1, Earliest::Unchanged);
    assert_eq!(timers.insert(tick(0), tick(9), probes.waker()).1, Earliest::Moved(tick(9)));
}

#[test]
fn never_does_not_fire_at_the_end_of_time_but_can_be_reset_and_removed() {
    let (mut timers, probes, keys) = armed(&[u64::MAX, u64::MAX, u64::MAX - 1]);
    assert_eq!(fire(&mut timers, &probes, u64::MAX, 10), [(u64::MAX - 1, 2)]);
    assert_eq!(timers.next(), Tick::NEVER);
    assert_eq!(timers.len(), 2);
    assert_eq!(timers.reset(keys[0], tick(3)), Some(Earliest::Moved(tick(3))));
    assert_eq!(probes.number(timers.remove(keys[1]).unwrap()), 1);
    assert_eq!(fire(&mut timers, &probes, 3, 10), [(3, 0)]);
}

#[test]
fn a_timer_moved_to_never_lets_the_store_sleep_after_its_old_time() {
    let (mut timers, probes, keys) = armed(&[3]);
    assert_eq!(timers.reset(keys[0], Tick::NEVER), Some(Earliest::Unchanged));
    assert_eq!(fire(&mut timers, &probes, 3, 10), []);
    assert_eq!(timers.next(), Tick::NEVER);
}

#[test]
fn a_removed_timer_is_gone_at_once_and_its_key_finds_nothing() {
    let (mut timers, mut probes, keys) = armed(&[10, 20]);
    assert_eq!(probes.number(timers.remove(keys[0]).unwrap()), 0);
    assert_eq!(timers.len(), 1);
    assert!(timers.settle(10));
    assert_eq!(timers.next(), tick(20));
    // Its slot goes to another one, which the stale key must not touch.
    let (key, _) = timers.insert(tick(0), tick(30), probes.waker());
    assert_eq!(key.index(), keys[0].index());
    assert!(timers.remove(keys[0]).is_none());
    assert_eq!(timers.reset(keys[0], tick(1)), None);
    assert_eq!(timers.deadline(keys[0]), None);
    assert!(timers.waker(keys[0]).is_none());
    let stranger = timers.replace_waker(keys[0], probes.waker()).expect_err("a stale key");
    assert_eq!(probes.number(stranger), 3);
    assert_eq!(fire(&mut timers, &probes, 30, 10), [(20, 1), (30, 2)]);
}

#[test]
fn a_fired_timer_leaves_a_stale_key() {
    let (mut timers, probes, keys) = armed(&[1]);
    assert_eq!(fire(&mut timers, &probes, 1, 1), [(1, 0)]);
    assert_eq!(timers.reset(keys[0], tick(2)), None);
    assert!(timers.remove(keys[0]).is_none());
}

#[test]
fn a_replaced_waker_is_the_one_that_is_woken() {
    let (mut timers, mut probes, keys) = armed(&[1]);
    let former = timers.replace_waker(keys[0], probes.waker()).expect("a pending timer");
    assert_eq!(probes.number(former), 0);
    assert_eq!(fire(&mut timers, &probes, 1, 1), [(1, 1)]);
}

#[test]
fn a_batch_is_bounded_by_the_entries_it_looks_at() {
    let (mut timers, mut probes, keys) = armed(&[1; 100]);
    for &key in &keys {
        assert_eq!(timers.reset(key, tick(1_000)), Some(Earliest::Unchanged));
    }
    let _ = timers.insert(tick(0), tick(2), probes.waker());
    let mut due = Vec::new();
    for _ in 0..10 {
        assert!(timers.take_due(tick(2), 10, &mut due));
        assert!(due.is_empty(), "a batch re-filed more than ten");
    }
    assert!(!timers.take_due(tick(2), 10, &mut due));
    assert_eq!(due.len(), 1);
    assert_eq!(timers.next(), tick(1_000));
}

#[test]
fn slots_that_begin_together_are_emptied_widest_first() {
    let (mut timers, mut probes) = (Timers::new(), Probes::default());
    let begin = 3 << 26;
    // From far away into a wide slot.
    for at in [begin + 4, begin + 5, 2 << 26] {
        let _ = timers.insert(tick(0), tick(at), probes.waker());
    }
    // A limit that leaves nothing for what is ahead of time.
    assert!(timers.take_due(tick(2 << 26), 1, &mut Vec::new()));
    // From near into the narrow slot that begins with the wide one, but later.
    let _ = timers.insert(tick(2 << 26), tick(begin + 7), probes.waker());
    let fired = fire(&mut timers, &probes, begin + 7, 1);
    assert_eq!(fired, [(2 << 26, 2), (begin + 4, 0), (begin + 5, 1), (begin + 7, 3)]);
}

#[test]
fn a_slot_that_was_left_open_and_empty_is_not_taken_for_the_one_that_comes_round_to_its_place() {
    // On level 0, and on level 1.
    for (width, slots_ahead) in [(1_u64 << 18, 4), (1 << 26, 400)] {
        let (mut timers, mut probes) = (Timers::new(), Probes::default());
        let ring = 512 * width;
        assert!(!timers.take_due(tick(ring), 10, &mut Vec::new()));
        let at = ring + slots_ahead * width + 5;
        let keys = [at, at + 1].map(|at| timers.insert(tick(ring), tick(at), probes.waker()).0);
        // The batch ends with the last entry of the slot; then both are removed.
        assert!(!timers.take_due(tick(at - 1), keys.len(), &mut Vec::new()));
        for key in keys {
            drop(timers.remove(key).expect("a pending timer"));
        }
        // Nothing was due for long; then one that falls into the same place, and one that is due soon.
        let now = at + 100 * width;
        let _ = timers.insert(tick(now), tick(at + ring), probes.waker());
        let _ = timers.insert(tick(now), tick(now + 10 * width), probes.waker());
        let (mut due, mut batches) = (Vec::new(), 0);
        while timers.take_due(tick(now + 20 * width), 10, &mut due) {
            batches += 1;
            assert!(batches < 100, "what is due is not taken");
        }
        assert_eq!(due.len(), 1);
    }
}

#[test]
fn two_slots_with_one_earliest_time_that_is_out_of_date_are_both_settled() {
    let (mut timers, mut probes) = (Timers::new(), Probes::default());
    // The same time from far and from near, hence on two levels: from near, the lower one covers the time, but
    // not the whole slot of the higher one. And both are moved later.
    let (far, near) = ((40 << 26) + 3, (38 << 26) + (1 << 25));
    let (one, _) = timers.insert(tick(0), tick(far), probes.waker());
    let _ = timers.take_due(tick(near), 1, &mut Vec::new());
    let (other, _) = timers.insert(tick(near), tick(far), probes.waker());
    for key in [one, other] {
        assert_eq!(timers.reset(key, tick(far + (1 << 26))), Some(Earliest::Unchanged));
    }
    assert!(timers.settle(10));
    assert_eq!(timers.next(), tick(far + (1 << 26)));
}

#[test]
fn what_lies_far_ahead_is_brought_near_bit_by_bit_before_it_is_due() {
    let (mut timers, mut probes) = (Timers::new(), Probes::default());
    // 10,000 timers within a tenth of a second, twenty seconds from now, and one each millisecond before.
    let (second, milli) = (1_000_000_000_u64, 1_000_000_u64);
    for n in 0..10_000 {
        let _ = timers.insert(tick(0), tick(20 * second + n * 10_000), probes.waker());
    }
    for n in 0..20_000 {
        let _ = timers.insert(tick(0), tick(n * milli), probes.waker());
    }
    let mut due = Vec::new();
    for n in 0..20_000 {
        assert!(!timers.take_due(tick(n * milli), 128, &mut due), "one pass was not enough for one timer");
        assert_eq!(due.len(), 1);
        due.clear();
    }
    assert!(!timers.take_due(tick(20 * second), 128, &mut due));
    assert_eq!(due.len(), 1, "the first was late because of those behind it");
}

#[test]
fn a_limit_of_zero_asks_and_takes_nothing() {
    let (mut timers, _, _) = armed(&[5]);
    let mut due = Vec::new();
    assert!(!timers.take_due(tick(4), 0, &mut due));
    assert!(timers.take_due(tick(5), 0, &mut due));
    assert!(due.is_empty());
}

#[test]
fn settling_makes_the_next_time_exact() {
    let (mut timers, probes, keys) = armed(&[10, 20, 30]);
    assert_eq!(timers.reset(keys[0], tick(40)), Some(Earliest::Unchanged));
    assert_eq!(timers.reset(keys[1], Tick::NEVER), Some(Earliest::Unchanged));
    assert!(!timers.settle(1));
    assert!(timers.next() < tick(30));
    assert!(timers.settle(10));
    assert_eq!(timers.next(), tick(30));
    timers.verify();
    assert_eq!(fire(&mut timers, &probes, 40, 10), [(30, 2), (40, 0)]);
}

#[test]
fn taking_all_returns_every_waker_and_ends_every_key() {
    let (mut timers, mut probes, keys) = armed(&[3, u64::MAX, 1]);
    let mut numbers: Vec<usize> = timers.take_all().into_iter().map(|waker| probes.number(waker)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!((timers.len(), timers.next()), (0, Tick::NEVER));
    let _ = timers.insert(tick(0), tick(1), probes.waker());
    assert!(keys.iter().all(|&key| timers.remove(key).is_none()));
    assert_eq!(fire(&mut timers, &probes, 1, 1), [(1, 3)]);
}

#[test]
fn a_pending_timer_takes_no_more_than_eighty_bytes() {
    // The slab finds room for its mark of vacancy in the waker, and adds a generation.
    assert_eq!(size_of::<Option<Entry>>(), size_of::<Entry>());
    assert_eq!(size_of::<(u32, Option<Entry>)>(), 56);
    assert_eq!(size_of::<heap::Node>(), 24);
}

/// What happens to the store. Times are spans from the present, which goes on with each batch.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Insert(At),
    Reset(prop::sample::Index, At),
    Remove(prop::sample::Index),
    ReplaceWaker(prop::sample::Index),
    TakeDue(u64, usize),
    Settle(usize),
    TakeAll,
}

#[derive(Clone, Copy, Debug)]
enum At {
    After(u64),
    Before(u64),
    Never,
}

/// Few different spans, so that equal times and moves in both directions are common, in all the orders of
/// magnitude that the wheel tells apart; some go once round a ring of it.
fn span(magnitudes: &'static [u32]) -> impl Strategy<Value = u64> {
    let few = prop_oneof![3 => 0_u64..12, 1 => 500_u64..530];
    (few, prop::sample::select(magnitudes)).prop_map(|(few, magnitude)| few << magnitude)
}

fn operation() -> impl Strategy<Value = Operation> {
    let at = || {
        prop_oneof![
            20 => span(&[0, 16, 18, 18, 20, 24, 26, 26, 30, 34, 38, 42, 50, 56]).prop_map(At::After),
            1 => span(&[0, 17, 25]).prop_map(At::Before),
            1 => Just(At::Never),
        ]
    };
    let which = any::<prop::sample::Index>;
    prop_oneof![
        60 => at().prop_map(Operation::Insert),
        40 => (which(), at()).prop_map(|(which, at)| Operation::Reset(which, at)),
        30 => which().prop_map(Operation::Remove),
        5 => which().prop_map(Operation::ReplaceWaker),
        40 => (span(&[0, 0, 16, 18, 18, 22, 24, 26, 28, 32, 36, 42, 50]), 0_usize..16)
            .prop_map(|(passed, limit)| Operation::TakeDue(passed, limit)),
        10 => (0_usize..6).prop_map(Operation::Settle),
        1 => Just(Operation::TakeAll),
    ]
}

/// The store and what it should be, side by side.
struct Model {
    timers: Timers,
    probes: Probes,
    /// The number of the waker of each pending timer, in the order of firing.
    pending: BTreeMap<(Tick, usize), usize>,
    /// Where each pending timer is in `pending`.
    orders: HashMap<Key, (Tick, usize)>,
    /// All keys that were ever given out, so stale ones are tried as well.
    keys: Vec<Key>,
    armings: usize,
    now: u64,
    /// How many entries batches were allowed to look at since one took something, or was through.
    in_vain: usize,
    /// Until when somebody sleeps who looked at `next` once and since then only heard what moved.
    sleeps_until: Tick,
}

impl Model {
    fn new() -> Model {
        Model {
            timers: Timers::new(),
            probes: Probes::default(),
            pending: BTreeMap::new(),
            orders: HashMap::new(),
            keys: Vec::new(),
            armings: 0,
            now: Tick::START.as_nanos(),
            in_vain: 0,
            sleeps_until: Tick::NEVER,
        }
    }

    fn time(&self, at: At) -> Tick {
        match at {
            At::After(span) => tick(self.now.saturating_add(span)),
            At::Before(span) => tick(self.now.saturating_sub(span)),
            At::Never => Tick::NEVER,
        }
    }

    fn arm(&mut self, key: Key, at: Tick, number: usize) {
        self.armings += 1;
        assert!(self.orders.insert(key, (at, self.armings)).is_none(), "a key was given out twice");
        self.pending.insert((at, self.armings), number);
    }

    fn disarm(&mut self, key: Key) -> Option<usize> {
        let order = self.orders.remove(&key)?;
        self.pending.remove(&order)
    }

    fn hear(&mut self, before: Tick, earliest: Earliest) {
        if let Earliest::Moved(at) = earliest {
            assert!(at < before, "it did not move earlier");
            assert_eq!(at, self.timers.next());
            self.sleeps_until = at;
        }
    }

    fn apply(&mut self, operation: Operation) {
        let before = self.timers.next();
        let key = |which: prop::sample::Index, keys: &[Key]| (!keys.is_empty()).then(|| *which.get(keys));
        match operation {
            Operation::Insert(at) => {
                let at = self.time(at);
                let number = self.probes.alive.len();
                let (key, earliest) = self.timers.insert(tick(self.now), at, self.probes.waker());
                self.arm(key, at, number);
                self.keys.push(key);
                self.hear(before, earliest);
            }
            Operation::Reset(which, at) => {
                let Some(key) = key(which, &self.keys) else { return };
                let at = self.time(at);
                let earliest = self.timers.reset(key, at);
                let number = self.disarm(key);
                assert_eq!(earliest.is_some(), number.is_some());
                if let (Some(earliest), Some(number)) = (earliest, number) {
                    self.arm(key, at, number);
                    self.hear(before, earliest);
                }
            }
            Operation::Remove(which) => {
                let Some(key) = key(which, &self.keys) else { return };
                let removed = self.timers.remove(key).map(|waker| self.probes.number(waker));
                assert_eq!(removed, self.disarm(key));
            }
            Operation::ReplaceWaker(which) => {
                let Some(key) = key(which, &self.keys) else { return };
                let number = self.probes.alive.len();
                let replaced = self.timers.replace_waker(key, self.probes.waker());
                match self.orders.get(&key) {
                    Some(order) => {
                        let former = self.pending.insert(*order, number);
                        assert_eq!(replaced.ok().map(|waker| self.probes.number(waker)), former);
                    }
                    None => assert_eq!(self.probes.number(replaced.expect_err("a stale key")), number),
                }
            }
            Operation::TakeDue(passed, limit) => {
                self.now = self.now.saturating_add(passed);
                let _ = self.take_due(tick(self.now), limit);
            }
            Operation::Settle(limit) => {
                if self.timers.settle(limit) {
                    let exact = self.pending.first_key_value().map_or(Tick::NEVER, |((at, _), _)| *at);
                    assert_eq!(self.timers.next(), exact);
                }
                self.sleeps_until = self.timers.next();
            }
            Operation::TakeAll => {
                let wakers = self.timers.take_all();
                let mut taken: Vec<_> = wakers.into_iter().map(|waker| self.probes.number(waker)).collect();
                let mut expected: Vec<usize> = std::mem::take(&mut self.pending).into_values().collect();
                taken.sort_unstable();
                expected.sort_unstable();
                assert_eq!(taken, expected);
                self.orders.clear();
            }
        }
    }

    fn take_due(&mut self, now: Tick, limit: usize) -> bool {
        let mut due = Vec::new();
        let more = self.timers.take_due(now, limit, &mut due);
        assert!(due.len() <= limit);
        self.check_progress(now, limit, due.is_empty() && more);
        for due in due {
            let ((at, arming), number) = self.pending.pop_first().expect("one that is pending");
            assert!(at <= now, "early");
            assert_eq!((due.at, self.probes.number(due.waker)), (at, number), "out of order");
            self.orders.retain(|_, order| *order != (at, arming));
        }
        let left = self.pending.first_key_value().is_some_and(|((at, _), _)| is_over(*at, now));
        assert!(more || !left, "one is left");
        assert_eq!(more, is_over(self.timers.next(), now));
        self.sleeps_until = self.timers.next();
        more
    }

    /// A batch that takes nothing although there is more has filed entries anew, each a few times at most.
    fn check_progress(&mut self, now: Tick, limit: usize, nothing: bool) {
        self.in_vain = if nothing { self.in_vain + limit } else { 0 };
        assert!(self.in_vain <= 8 * (self.armings + 8), "what is due at {now:?} is not taken");
    }

    fn check(&mut self) {
        self.timers.verify();
        assert_eq!(self.timers.len(), self.pending.len());
        for key in &self.keys {
            assert_eq!(self.timers.deadline(*key), self.orders.get(key).map(|order| order.0));
        }
        if let Some(((at, _), _)) = self.pending.first_key_value() {
            assert!(self.timers.next() <= *at, "the next time is too late");
            assert!(self.sleeps_until <= *at, "a sleeper was not told");
        }
        for number in self.pending.values() {
            assert_eq!(self.probes.count(*number), 1, "a waker was dropped or cloned");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn behaves_as_an_ordered_map(operations in prop::collection::vec(operation(), 1..150)) {
        let mut model = Model::new();
        for operation in operations {
            model.apply(operation);
            model.check();
        }
        // Whatever is left fires in order, in batches.
        model.now = Tick::NEVER.as_nanos();
        while model.take_due(Tick::NEVER, 16) {}
        prop_assert!(model.pending.keys().all(|(at, _)| *at == Tick::NEVER));
        model.check();
    }
}
