//! What everything else stands on: ranked locks, clock, alarm, random numbers, parking, looking at threads, slots
//! with generations, the door to tokio, and the switch between std and loom. Knows nothing of tasks, timers or descriptors.

pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod park;
pub(crate) mod primitive;
pub(crate) mod rank;
pub(crate) mod rng;
pub(crate) mod slab;
pub(crate) mod thread_probe;
pub(crate) mod tokio_context;
mod tsc;
