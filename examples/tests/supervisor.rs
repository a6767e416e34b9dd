//! The supervisor with real commands and real signals.

use signal_hook::low_level::raise;

use super::*;

fn service(name: &str, command: &str) -> Service {
    format!("{name}={command}").parse().unwrap()
}

fn times() -> Times {
    Times {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
        stable: Duration::from_secs(60),
        grace: Duration::from_secs(30),
    }
}

/// One service without the rest: what it said is collected at its end.
async fn supervised(command: &str, times: Times, stop: &watch::Sender<bool>) -> Vec<String> {
    let (lines, mut said) = mpsc::channel(1024);
    supervise(service("it", command), times, lines, stop.subscribe()).await;
    let mut all = Vec::new();
    while let Some(line) = said.recv().await {
        all.push(line);
    }
    all
}

#[mainspring::test]
async fn a_command_that_fails_is_started_again_more_and_more_slowly_until_it_succeeds() {
    let count = std::env::temp_dir().join(format!("mainspring-supervisor-{}", std::process::id()));
    let path = count.display();
    let command = format!("echo run; echo x >> {path}; test $(wc -l < {path}) -ge 5");
    let (stop, _) = watch::channel(false);
    let said = supervised(&command, times(), &stop).await;
    std::fs::remove_file(count).unwrap();

    assert_eq!(said.iter().filter(|line| *line == "it | run").count(), 5);
    let pauses: Vec<_> = said.iter().filter_map(|line| line.strip_prefix("it: starts again in ")).collect();
    assert_eq!(pauses, ["5ms", "10ms", "20ms", "20ms"]);
    assert_eq!(said.iter().filter(|line| *line == "it: failed, exit status: 1").count(), 4);
    assert_eq!(said.last().unwrap(), "it: done");
}

#[mainspring::test]
async fn all_that_a_command_writes_is_shown_line_by_line() {
    let (stop, _) = watch::channel(false);
    let said = supervised("seq 1 500; echo error >&2; printf 'no end'", times(), &stop).await;
    let numbers: Vec<u32> = said.iter().filter_map(|line| line.strip_prefix("it | ")?.parse().ok()).collect();
    assert_eq!(numbers, (1..=500).collect::<Vec<u32>>());
    assert!(said.contains(&"it | error".to_owned()) && said.contains(&"it | no end".to_owned()));
}

#[mainspring::test]
async fn a_command_that_ignores_the_polite_request_is_killed_after_its_time_of_grace() {
    let (stop, _) = watch::channel(false);
    let grace = Duration::from_millis(100);
    let (lines, mut said) = mpsc::channel(64);
    let stubborn = service("it", "trap '' TERM; echo ready; while :; do sleep 0.01; done");
    let supervisor =
        mainspring::spawn(supervise(stubborn, Times { grace, ..times() }, lines, stop.subscribe()));
    assert_eq!(said.recv().await.unwrap(), "it | ready");
    let start = Instant::now();
    stop.send_replace(true);
    supervisor.await.unwrap();
    assert!(start.elapsed() >= grace);
    let mut last = String::new();
    while let Some(line) = said.recv().await {
        last = line;
    }
    assert_eq!(last, "it: stopped, signal: 9 (SIGKILL)");
}

#[mainspring::test]
async fn the_stop_reaches_what_a_command_has_started_as_well() {
    let (stop, _) = watch::channel(false);
    let (lines, mut said) = mpsc::channel(64);
    let parent = service("it", "sleep 1000 & echo $!; wait");
    let supervisor = mainspring::spawn(supervise(parent, times(), lines, stop.subscribe()));
    let line = said.recv().await.unwrap();
    let grandchild: u32 = line.strip_prefix("it | ").unwrap().parse().unwrap();
    stop.send_replace(true);
    supervisor.await.unwrap();
    assert_eq!(said.recv().await.unwrap(), "it: stopped, signal: 15 (SIGTERM)");
    // Whoever adopts orphans here may be slow to bury them.
    let runs = || {
        std::fs::read_to_string(format!("/proc/{grandchild}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    let gone = async {
        while runs() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.unwrap();
}

#[mainspring::test]
async fn the_stop_ends_a_pause_as_well() {
    let (stop, _) = watch::channel(false);
    let hour = Duration::from_secs(3600);
    let (lines, mut said) = mpsc::channel(64);
    let failing = service("it", "exit 3");
    let long = Times { first_pause: hour, longest_pause: hour, ..times() };
    let supervisor = mainspring::spawn(supervise(failing, long, lines, stop.subscribe()));
    while said.recv().await.unwrap() != "it: starts again in 3600s" {}
    stop.send_replace(true);
    supervisor.await.unwrap();
    assert_eq!(said.recv().await.unwrap(), "it: stopped while it waited");
}

/// The only test with signals: all tests of the file are one process.
#[mainspring::test]
async fn on_sigterm_all_are_asked_to_end_and_have_their_last_word() {
    let command = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let services = vec![service("one", command), service("two", command), service("three", "echo short")];
    let (lines, mut said) = mpsc::channel(64);
    let supervisor = mainspring::spawn(run(services, times(), lines));
    let (mut settled, mut all) = (0, Vec::new());
    while let Some(line) = said.recv().await {
        let settles = line.ends_with("| ready") || line == "three: done";
        settled += usize::from(settles);
        if settles && settled == 3 {
            raise(SignalKind::terminate().as_raw_value()).unwrap();
        }
        all.push(line);
    }
    supervisor.await.unwrap().unwrap();
    for line in [
        "one | bye",
        "two | bye",
        "three: done",
        "one: stopped, exit status: 0",
        "two: stopped, exit status: 0",
    ] {
        assert!(all.iter().any(|said| said == line), "{line}: {all:?}");
    }
}
