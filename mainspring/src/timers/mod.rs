//! The name of a timer; the store itself comes with the timers.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id {
    pub(crate) store: u32,
    pub(crate) key: crate::base::slab::Key,
}
