//! Programs that show mainspring at work; each is an example target of this package. The tests of `NAME.rs` are in
//! `tests/NAME.rs`, which it includes, so that they run the functions of the program itself:
//!
//! ```text
//! #[cfg(test)]
//! #[path = "tests/NAME.rs"]
//! mod tests;
//! ```
//!
//! The library holds nothing but documents whose programs are compiled, and run where they can, as tests.

/// The program in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The programs in `docs/porting-from-tokio.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/porting-from-tokio.md")]
pub struct PortingFromTokio;
