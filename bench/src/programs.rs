//! Which program measures a peer: this one, a second build of it for tokio's alternative timer, or the one
//! in Go. All of them take the command line of `run` and print an outcome.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers::PeerName;

/// Where the build for the alternative timer goes, below the folder of this one. It is a build of its own
/// because `tokio_unstable` changes more of tokio than what it allows us to turn on.
const UNSTABLE: &str = "tokio_unstable";

/// Where the build with the feature of this name goes. It is one of its own because the feature changes what every
/// thread of mainspring does.
const COMPAT: &str = "compat";

const GO_SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");

/// The program for `peer`, where `own` is the running one; or why there is none. Go's is built by this.
pub(crate) fn find(peer: PeerName, own: &Path) -> Result<PathBuf, String> {
    match peer {
        PeerName::Tokio | PeerName::Smol | PeerName::Mainspring | PeerName::MainspringOff => {
            Ok(own.to_owned())
        }
        PeerName::MainspringCompat => build_below(own, COMPAT).filter(|path| path.exists()).ok_or_else(|| {
            format!(
                "build it with CARGO_TARGET_DIR=target/{COMPAT} cargo build --release -p bench --features {COMPAT}"
            )
        }),
        PeerName::TokioAlt => build_below(own, UNSTABLE).filter(|path| path.exists()).ok_or_else(|| {
            format!(
                "build it with RUSTFLAGS=\"--cfg {UNSTABLE}\" CARGO_TARGET_DIR=target/{UNSTABLE} \
                 cargo build --release -p bench"
            )
        }),
        PeerName::Go => build_go(own),
    }
}

/// `target/release/bench` becomes `target/tokio_unstable/release/bench`.
fn build_below(own: &Path, folder: &str) -> Option<PathBuf> {
    let profile = own.parent()?;
    let target = profile.parent()?;
    Some(target.join(folder).join(profile.file_name()?).join(own.file_name()?))
}

fn build_go(own: &Path) -> Result<PathBuf, String> {
    let program = own.with_file_name("bench-go");
    let go = env::var_os("GO").unwrap_or_else(|| OsString::from("go"));
    let status = Command::new(go)
        .args(["build", "-C", GO_SOURCES, "-buildvcs=false", "-o"])
        .arg(&program)
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(program),
        Ok(_) => Err("go build failed".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("no go, neither on the PATH nor in the variable GO".to_owned())
        }
        Err(error) => Err(format!("go does not start: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_build_lies_below_the_first_ones_folder() {
        let path = build_below(Path::new("/a/target/release/bench"), UNSTABLE);
        assert_eq!(path.as_deref(), Some(Path::new("/a/target/tokio_unstable/release/bench")));
    }

    #[test]
    fn a_build_that_is_missing_is_asked_for() {
        let reason = find(PeerName::TokioAlt, Path::new("/nowhere/release/bench")).unwrap_err();
        assert!(reason.starts_with("build it with"), "{reason}");
    }
}
