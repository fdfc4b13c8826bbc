//! A file of rules is followed: however it is written, and only while it is good.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tower_throttle::{
    Rules, ThrottleLayer,
    config::{self, WatchError, Watching},
};

/// Longer than any change takes on a machine that does other things, too.
const LONG: Duration = Duration::from_secs(30);
const RULES: &str = "default_route = 10";

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = target.join(format!("watch-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is told of the changes of a file that holds [`RULES`] at the start.
fn follow(path: &PathBuf) -> (Watching, Receiver<Result<String, String>>) {
    fs::write(path, RULES).expect("a file");
    let layer = ThrottleLayer::new(Rules::new()).expect("no rules");
    let (told, tells) = channel();
    let watch = config::watch(path).telling(move |changes| {
        let changes = changes.as_ref().map(ToString::to_string);
        let _ = told.send(changes.map_err(ToString::to_string));
    });
    let watching = watch.start(&layer.handle()).expect("a good file");
    // The file was read; whoever looks now finds nothing new.
    let again = layer
        .handle()
        .reload(Rules::from_toml(RULES).expect("rules"));
    assert!(again.expect("rules that hold together").is_empty());
    (watching, tells)
}

fn told(tells: &Receiver<Result<String, String>>) -> Result<String, String> {
    tells.recv_timeout(LONG).expect("it is told")
}

#[test]
fn a_file_is_followed_however_it_is_written() {
    let directory = Directory::new("written");
    let path = directory.file("throttle.toml");
    let (_watching, tells) = follow(&path);
    let became = |from: u64, to: u64| {
        Ok(format!(
            "default route, limit `default`: {from} in 1s, burst {from} => {to} in 1s, burst {to}"
        ))
    };
    fs::write(&path, "default_route = 11").expect("written in place");
    assert_eq!(told(&tells), became(10, 11));

    let beside = directory.file(".throttle.toml.swp");
    fs::write(&beside, "default_route = 12").expect("written beside it");
    fs::rename(&beside, &path).expect("put into its place");
    assert_eq!(told(&tells), became(11, 12));

    // Another file there, and the same once more, are no changes.
    fs::write(directory.file("other.toml"), "default_route = 99").expect("another");
    fs::write(&path, "default_route = 12").expect("the same");
    fs::write(&path, "default_route = 13").expect("in place");
    assert_eq!(told(&tells), became(12, 13));
    assert!(tells.try_recv().is_err(), "nothing else is told");
}

#[cfg(unix)]
#[test]
fn a_link_that_is_turned_to_another_file_is_followed() {
    // As Kubernetes does it: the file is a link through a directory that is a link, which is put into place.
    let directory = Directory::new("linked");
    for (name, count) in [("..one", 10), ("..two", 20)] {
        fs::create_dir_all(directory.file(name)).expect("a directory");
        let text = format!("default_route = {count}");
        fs::write(directory.file(name).join("throttle.toml"), text).expect("a file");
    }
    let link = |to: &str| std::os::unix::fs::symlink(to, directory.file("..next")).expect("a link");
    link("..one");
    fs::rename(directory.file("..next"), directory.file("..data")).expect("put into place");
    let path = directory.file("throttle.toml");
    std::os::unix::fs::symlink("..data/throttle.toml", &path).expect("a link");
    let (_watching, tells) = follow(&path);

    link("..two");
    fs::rename(directory.file("..next"), directory.file("..data")).expect("put into place");
    let changes = told(&tells).expect("good rules");
    assert!(changes.ends_with("=> 20 in 1s, burst 20"), "{changes}");
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let directory = Directory::new("bad");
    let path = directory.file("throttle.toml");
    let (_watching, tells) = follow(&path);
    let name = path.display();
    let table = [
        (
            "default_rout = 11",
            format!(
                "{name}: line 1, column 1: default_rout: no such setting; did you mean `default_route`?"
            ),
        ),
        (
            "total = { rate = 1, name = \"a b\" }",
            format!(
                "{name}: the total: name `a b` is not made of A-Z, a-z, 0-9 and _ alone, at least one of them"
            ),
        ),
    ];
    for (text, expected) in table {
        fs::write(&path, text).expect("written");
        assert_eq!(told(&tells), Err(expected));
    }
    fs::remove_file(&path).expect("removed");
    let gone = told(&tells).expect_err("it is gone");
    assert!(gone.starts_with(&name.to_string()), "{gone}");
    // What held before goes on, and the file is followed when it is there again.
    fs::write(&path, "default_route = 11").expect("written");
    let changes = "default route, limit `default`: 10 in 1s, burst 10 => 11 in 1s, burst 11";
    assert_eq!(told(&tells).as_deref(), Ok(changes));
}

#[test]
fn what_cannot_be_followed_is_an_error_at_once() {
    let directory = Directory::new("errors");
    let layer = ThrottleLayer::new(Rules::new()).expect("no rules");
    let start = |name: &str, text: Option<&str>| {
        let path = directory.file(name);
        if let Some(text) = text {
            fs::write(&path, text).expect("a file");
        }
        let watching = config::watch(path).start(&layer.handle());
        watching.expect_err("it cannot be followed")
    };
    assert!(matches!(start("none.toml", None), WatchError::File { .. }));
    assert!(matches!(
        start("rules.ini", Some("")),
        WatchError::Format { .. }
    ));
    assert!(matches!(
        start("a.toml", Some("=")),
        WatchError::Document { .. }
    ));
    assert!(matches!(
        start("a.yaml", Some("routes: { /a: 1 }")),
        WatchError::Document { .. }
    ));
    let same = "routes: { GET /a: 1, get /a: 1 }";
    assert!(matches!(
        start("b.yaml", Some(same)),
        WatchError::Document { .. }
    ));
    let same = "{ \"routes\": { \"GET /{a}\": 1, \"GET /{b}\": 1 } }";
    assert!(matches!(
        start("b.json", Some(same)),
        WatchError::Document { .. }
    ));
    let zero = "{ \"total\": \"1/0s\" }";
    assert!(matches!(
        start("c.json", Some(zero)),
        WatchError::Rules { .. }
    ));
    assert!(matches!(
        start("no/such/a.toml", None),
        WatchError::System { .. }
    ));
}

#[test]
fn nothing_is_followed_after_it_was_dropped() {
    let directory = Directory::new("dropped");
    let path = directory.file("throttle.toml");
    let (watching, tells) = follow(&path);
    drop(watching);
    fs::write(&path, "default_route = 11").expect("written");
    // Its thread has ended, and with it what it would have told by.
    assert!(
        tells
            .recv_timeout(LONG)
            .is_err_and(|error| error != std::sync::mpsc::RecvTimeoutError::Timeout)
    );
}
