//! Files: std's functions, declared as blocking.
//!
//! There is no second file API to learn. Each function here is the one of `std::fs` with its name, called inside
//! of [`mainspring::blocking`](crate::blocking): on the task's own thread, which costs some nanoseconds, while
//! other tasks go to another thread if the call takes its time. For everything else take std's types as they are,
//! in `blocking` too:
//!
//! ```
//! use std::io::Write;
//!
//! # mainspring::block_on(async {
//! # let path = std::env::temp_dir().join(format!("mainspring-doc-{}", std::process::id()));
//! let mut file = mainspring::blocking(|| std::fs::File::create(&path))?;
//! for number in 0..3 {
//!     mainspring::blocking(|| writeln!(file, "{number}"))?;
//! }
//! assert_eq!(mainspring::fs::read_to_string(&path).await?, "0\n1\n2\n");
//! mainspring::fs::remove_file(&path).await?;
//! # std::io::Result::Ok(()) }).unwrap();
//! ```
//!
//! A file in the page cache is there in microseconds; handing the call to another thread and back, as a pool
//! does, would cost more than that, and a copy. The price is that the rest of the *same task* waits: the other
//! branches of a `join!` or a `select!`, and a `timeout` around it. Where calls are to run beside one another, or
//! beside the rest of the task, give each a task or a [`spawn_blocking`](crate::spawn_blocking).
//!
//! # Cancel safety
//!
//! Of all functions here: a call runs to its end once it has begun, at the future's first poll or, if the task
//! has used up its turn, the one after. A future that is dropped before has done nothing.

use std::fs::{DirEntry, Metadata, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use crate::sched::current;

/// Calls a function that blocks, but lets others run first if the task has done a lot: a loop over files ends its
/// turn like one over sockets.
async fn call<R>(f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    if !current::spend_budget() {
        crate::task::yield_now().await;
    }
    crate::blocking(f)
}

macro_rules! functions {
    ($($(#[$meta:meta])* $std:path: $name:ident($($arg:ident: $ty:ty),+) -> $result:ty;)+) => {$(
        $(#[$meta])*
        ///
        #[doc = concat!("It is [`", stringify!($std), "`], inside of [`blocking`](crate::blocking).")]
        ///
        /// # Errors
        ///
        /// The system's, as there.
        ///
        /// # Cancel safety
        ///
        /// It runs to its end once it has begun; see [the module](self).
        pub async fn $name($($arg: $ty),+) -> io::Result<$result> {
            call(|| $std($($arg),+)).await
        }
    )+};
}

functions! {
    /// All of a file.
    std::fs::read: read(path: impl AsRef<Path>) -> Vec<u8>;
    /// All of a file, as text.
    std::fs::read_to_string: read_to_string(path: impl AsRef<Path>) -> String;
    /// Makes or replaces a file with these contents.
    std::fs::write: write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> ();
    /// Copies a file and its permissions; how many bytes these were.
    std::fs::copy: copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> u64;
    /// Renames a file or folder, replacing what is there.
    std::fs::rename: rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> ();
    /// Removes a file.
    std::fs::remove_file: remove_file(path: impl AsRef<Path>) -> ();
    /// Removes an empty folder.
    std::fs::remove_dir: remove_dir(path: impl AsRef<Path>) -> ();
    /// Removes a folder with all that is in it.
    std::fs::remove_dir_all: remove_dir_all(path: impl AsRef<Path>) -> ();
    /// Makes a folder.
    std::fs::create_dir: create_dir(path: impl AsRef<Path>) -> ();
    /// Makes a folder and those above it.
    std::fs::create_dir_all: create_dir_all(path: impl AsRef<Path>) -> ();
    /// What the system knows of a file, links followed.
    std::fs::metadata: metadata(path: impl AsRef<Path>) -> Metadata;
    /// What the system knows of a file, or of the link.
    std::fs::symlink_metadata: symlink_metadata(path: impl AsRef<Path>) -> Metadata;
    /// Sets a file's permissions.
    std::fs::set_permissions: set_permissions(path: impl AsRef<Path>, permissions: Permissions) -> ();
    /// The absolute path without links.
    std::fs::canonicalize: canonicalize(path: impl AsRef<Path>) -> PathBuf;
    /// Makes another name for a file.
    std::fs::hard_link: hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> ();
    /// Makes a link to a path.
    std::os::unix::fs::symlink: symlink(original: impl AsRef<Path>, link: impl AsRef<Path>) -> ();
    /// Where a link points.
    std::fs::read_link: read_link(path: impl AsRef<Path>) -> PathBuf;
    /// Whether there is something with this name; an error if that cannot be known.
    std::fs::exists: try_exists(path: impl AsRef<Path>) -> bool;
}

/// What is in a folder, in no order: all of it, since each step of [`std::fs::read_dir`]'s iterator may block.
///
/// # Errors
///
/// The system's, on opening or on any entry.
///
/// # Cancel safety
///
/// It runs to its end once it has begun; see [the module](self).
pub async fn read_dir(path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    call(|| std::fs::read_dir(path)?.collect()).await
}
