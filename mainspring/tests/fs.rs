//! Files: that the functions are std's, that others run while a file blocks, and that a loop over files ends its turn.

mod common;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::sockets::poll_once;
use common::{SOON, check, run};
use mainspring::{fs, spawn};

/// An empty folder that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mainspring-fs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_written_read_copied_moved_and_removed() {
    check(|| async {
        let folder = Folder::new();
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path(name));
        fs::write(&a, "text").await.unwrap();
        assert_eq!(fs::read(&a).await.unwrap(), b"text");
        assert_eq!(fs::copy(&a, &b).await.unwrap(), 4);
        fs::rename(&b, &c).await.unwrap();
        assert_eq!(fs::read_to_string(&c).await.unwrap(), "text");
        assert_eq!(fs::metadata(&c).await.unwrap().len(), 4);
        fs::set_permissions(&c, std::fs::Permissions::from_mode(0o600)).await.unwrap();
        assert_eq!(fs::metadata(&c).await.unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::try_exists(&c).await.unwrap());
        assert!(!fs::try_exists(&b).await.unwrap());
        fs::remove_file(&c).await.unwrap();
        assert_eq!(fs::read(&c).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn folders_are_made_listed_and_removed() {
    check(|| async {
        let folder = Folder::new();
        fs::create_dir_all(folder.path("x/y")).await.unwrap();
        fs::create_dir(folder.path("z")).await.unwrap();
        fs::write(folder.path("f"), b"").await.unwrap();
        let entries = fs::read_dir(&folder.0).await.unwrap();
        let mut names: Vec<_> = entries.iter().map(std::fs::DirEntry::file_name).collect();
        names.sort();
        assert_eq!(names, ["f", "x", "z"]);
        fs::remove_dir(folder.path("z")).await.unwrap();
        assert_eq!(
            fs::remove_dir(folder.path("x")).await.unwrap_err().kind(),
            io::ErrorKind::DirectoryNotEmpty
        );
        fs::remove_dir_all(folder.path("x")).await.unwrap();
        assert_eq!(fs::read_dir(folder.path("x")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn links_are_made_and_followed() {
    check(|| async {
        let folder = Folder::new();
        let [file, hard, soft] = ["file", "hard", "soft"].map(|name| folder.path(name));
        fs::write(&file, "text").await.unwrap();
        fs::hard_link(&file, &hard).await.unwrap();
        fs::symlink(&file, &soft).await.unwrap();
        assert_eq!(fs::read_to_string(&hard).await.unwrap(), "text");
        assert_eq!(fs::read_link(&soft).await.unwrap(), file);
        assert!(fs::symlink_metadata(&soft).await.unwrap().is_symlink());
        assert!(!fs::metadata(&soft).await.unwrap().is_symlink());
        assert_eq!(fs::canonicalize(&soft).await.unwrap(), fs::canonicalize(&file).await.unwrap());
    });
}

#[test]
fn a_file_that_blocks_delays_nobody_else() {
    run(1, async {
        let folder = Folder::new();
        let fifo = folder.path("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        // Opening it for reading blocks until somebody opens it for writing: a task on the same processor.
        let reader = spawn({
            let fifo = fifo.clone();
            async move { fs::read_to_string(fifo).await.unwrap() }
        });
        let writer = spawn(async move { fs::write(fifo, "from another task").await.unwrap() });
        let text = mainspring::time::timeout(SOON, reader).await.unwrap().unwrap();
        assert_eq!(text, "from another task");
        writer.await.unwrap();
        // One of them has blocked, and had said that it might.
        assert!(mainspring::runtime::Handle::current().metrics().handoffs_declared > 0);
    });
}

#[test]
fn a_loop_over_files_lets_others_run() {
    run(1, async {
        spawn(async {
            let mut endless = pin!(async {
                loop {
                    fs::metadata("/").await.unwrap();
                }
            });
            // It comes back here now and then, instead of going round for ever.
            for _ in 0..10 {
                assert!(poll_once(endless.as_mut()).await.is_pending());
            }
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_call_that_was_not_begun_does_nothing() {
    check(|| async {
        let folder = Folder::new();
        drop(fs::write(folder.path("never"), "text"));
        assert!(!fs::try_exists(folder.path("never")).await.unwrap());
    });
}
