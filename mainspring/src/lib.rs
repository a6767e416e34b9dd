//! An async runtime that never holds one of its locks while your code runs.
#![deny(unsafe_code)]
#![allow(dead_code)]

mod base;
mod poll;
mod timers;
