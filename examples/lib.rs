//! Programs that show mainspring at work; each is an example target of this package.

/// The program in the README, which is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
