//! What the system allows this process.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Allows as many descriptors as the process may allow itself.
pub(crate) fn raise_descriptors() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
