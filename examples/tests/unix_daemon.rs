//! The daemon with real clients and real signals.

use mainspring::time::timeout;
use signal_hook::low_level::raise;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

struct Client(BufReader<UnixStream>);

impl Client {
    /// Connects as soon as the daemon listens, and reads its greeting.
    async fn new(path: &Path) -> (Client, String) {
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(_) => mainspring::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let mut client = Client(BufReader::new(stream));
        let greeting = client.line().await;
        (client, greeting)
    }

    /// The next line without its end; empty at the end.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        timeout(Duration::from_secs(30), read).await.expect("it answers").unwrap();
        line.trim_end().to_owned()
    }

    async fn ask(&mut self, command: &str) -> String {
        self.0.get_ref().write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.line().await
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mainspring-daemon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The only test with signals: all tests of the file are one process.
#[mainspring::test]
async fn it_reloads_on_hangup_and_ends_in_order_on_terminate() {
    let folder = Folder::new("signals");
    let (socket, config) = (folder.0.join("socket"), folder.0.join("config"));
    std::fs::write(&config, "greeting = first\n").unwrap();
    let daemon = mainspring::spawn({
        let (socket, config) = (socket.clone(), config.clone());
        async move { run(&socket, Some(config)).await }
    });
    let (mut one, greeting) = Client::new(&socket).await;
    assert_eq!(greeting, "first");
    assert_eq!(one.ask("add 3").await, "3");

    std::fs::write(&config, "greeting = second\n").unwrap();
    raise(SignalKind::hangup().as_raw_value()).unwrap();
    let mut two = loop {
        let (client, greeting) = Client::new(&socket).await;
        if greeting == "second" {
            break client;
        }
    };
    assert_eq!(two.ask("add 4").await, "7");
    assert_eq!(one.ask("get").await, "7");

    raise(SignalKind::terminate().as_raw_value()).unwrap();
    assert_eq!(one.line().await, "bye");
    // The path is free for the next daemon before the last client is gone.
    assert!(!socket.exists());
    assert_eq!(two.line().await, "bye");
    assert_eq!(two.line().await, "");
    daemon.await.unwrap().unwrap();
}

#[mainspring::test]
async fn clients_are_served_side_by_side_and_the_silent_one_is_sent_away() {
    let folder = Folder::new("clients");
    let (socket, config) = (folder.0.join("socket"), folder.0.join("config"));
    std::fs::write(&config, "").unwrap();
    let daemon = Daemon::new(Some(config.clone())).await.unwrap();
    let listener = listen(&socket).await.unwrap();
    let server = mainspring::spawn({
        let daemon = Arc::clone(&daemon);
        async move { daemon.serve(listener).await }
    });
    let adders: Vec<_> = (0..20)
        .map(|_| {
            let socket = socket.clone();
            mainspring::spawn(async move {
                let (mut client, _) = Client::new(&socket).await;
                for _ in 0..100 {
                    assert!(!client.ask("add 1").await.starts_with("error"));
                }
                assert_eq!(client.ask("quit").await, "bye");
            })
        })
        .collect();
    for adder in adders {
        adder.await.unwrap();
    }
    std::fs::write(&config, "idle_ms = 50\n").unwrap();
    daemon.reload().await.unwrap();
    let (mut silent, _) = Client::new(&socket).await;
    assert_eq!(silent.line().await, "error: silent for too long");
    assert_eq!(silent.line().await, "");
    std::fs::write(&config, "idle_ms = 60000\n").unwrap();
    daemon.reload().await.unwrap();
    // A bad configuration changes nothing.
    for bad in ["nonsense", "idle_ms = soon", "color = red"] {
        std::fs::write(&config, bad).unwrap();
        assert_eq!(daemon.reload().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(daemon.config().idle, Duration::from_secs(60));
    }

    let (mut client, _) = Client::new(&socket).await;
    assert_eq!(client.ask("get").await, "2000");
    // The others are on their way out.
    while !client.ask("status").await.starts_with("clients 1 ") {}
    assert!(client.ask("subtract 1").await.starts_with("error"));
    let (endless, _) = Client::new(&socket).await;
    endless.0.get_ref().write_all(&[b'x'; 2 * LINE_MAX]).await.unwrap();
    daemon.stop();
    server.await.unwrap();
}

#[mainspring::test]
async fn the_file_of_a_daemon_that_is_gone_is_taken_over_and_that_of_one_that_runs_is_not() {
    let folder = Folder::new("file");
    let socket = folder.0.join("socket");
    // Closing it leaves the file.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let listener = listen(&socket).await.unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(listen(&socket).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(listener);
}
