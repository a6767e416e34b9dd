//! What everything else stands on: ranked locks, clock, random numbers, parking, slots with
//! generations, and the switch between std and loom. Knows nothing of tasks, timers or descriptors.

pub(crate) mod clock;
pub(crate) mod park;
pub(crate) mod primitive;
pub(crate) mod rank;
pub(crate) mod rng;
pub(crate) mod slab;
mod tsc;
