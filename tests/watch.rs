//! A file of rules is followed in whatever way it is written, and only while it is valid.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tower_throttle::{
    Rules, ThrottleLayer,
    config::{self, Watch, WatchError, Watching},
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

/// Follows a file that holds [`RULES`] at the start; the receiver hears what is told of its changes.
fn follow(path: &PathBuf) -> (Watching, Receiver<Result<String, String>>) {
    fs::write(path, RULES).expect("a file");
    follow_as_it_is(path)
}

/// Follows such a file without a look that no event has called for.
fn follow_by_events(path: &PathBuf) -> (Watching, Receiver<Result<String, String>>) {
    fs::write(path, RULES).expect("a file");
    follow_with(path, |watch| watch.poll_every(Duration::ZERO))
}

fn follow_as_it_is(path: &PathBuf) -> (Watching, Receiver<Result<String, String>>) {
    follow_with(path, |watch| watch)
}

fn follow_with(
    path: &PathBuf,
    set: impl FnOnce(Watch) -> Watch,
) -> (Watching, Receiver<Result<String, String>>) {
    let layer = ThrottleLayer::new(Rules::new()).expect("no rules");
    let (told, tells) = channel();
    let watch = config::watch(path).telling(move |changes| {
        let changes = changes.as_ref().map(ToString::to_string);
        let _ = told.send(changes.map_err(ToString::to_string));
    });
    let watching = set(watch).start(&layer.handle()).expect("a good file");
    // The file was read; whoever looks now finds nothing new.
    let again = layer
        .handle()
        .reload(Rules::from_toml(RULES).expect("rules"));
    assert!(again.expect("rules that hold together").is_empty());
    (watching, tells)
}

/// Returns what is told next. A file that is written where it is may be seen empty.
fn told(tells: &Receiver<Result<String, String>>) -> Result<String, String> {
    loop {
        let told = tells.recv_timeout(LONG).expect("it is told");
        match &told {
            Err(error) if error.ends_with("an empty document") => {}
            _ => return told,
        }
    }
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
                "{name}: line 1, column 1: default_rout: unknown setting; did you mean `default_route`?"
            ),
        ),
        (
            "total = { rate = 1, name = \"a b\" }",
            format!(
                "{name}: the total: name `a b`: a name has 1 to 64 of the characters A-Z, a-z, 0-9 and _, such as `chat_daily`"
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
    // The previous rules stay, and the file is followed when it is there again.
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
        WatchError::File { .. }
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

/// Rules of so many a second, and what is told when they take the place of others.
fn rules(count: u64) -> String {
    format!("default_route = {count}")
}

fn became(from: u64, to: u64) -> Result<String, String> {
    Ok(format!(
        "default route, limit `default`: {from} in 1s, burst {from} => {to} in 1s, burst {to}"
    ))
}

#[test]
fn a_file_that_is_edited_through_another_of_its_names_is_followed() {
    let directory = Directory::new("hard-link");
    let elsewhere = Directory::new("hard-link-elsewhere");
    let (path, other) = (
        directory.file("throttle.toml"),
        elsewhere.file("rules.toml"),
    );
    fs::write(&other, RULES).expect("a file");
    fs::hard_link(&other, &path).expect("another name of it");
    let (_watching, tells) = follow_by_events(&path);
    fs::write(&other, rules(11)).expect("in place");
    assert_eq!(told(&tells), became(10, 11));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_elsewhere_is_followed_through_all_its_links() {
    use std::os::unix::fs::symlink;

    let directory = Directory::new("chain");
    let elsewhere = Directory::new("chain-elsewhere");
    for (version, count) in [("v1", 10), ("v2", 20)] {
        fs::create_dir_all(elsewhere.file(version)).expect("a directory");
        fs::write(elsewhere.file(version).join("rules.toml"), rules(count)).expect("a file");
    }
    symlink("v1", elsewhere.file("current")).expect("a link");
    symlink("current/rules.toml", elsewhere.file("rules.toml")).expect("a link");
    let path = directory.file("throttle.toml");
    symlink(elsewhere.file("rules.toml"), &path).expect("a link");
    let (_watching, tells) = follow_by_events(&path);

    fs::write(elsewhere.file("v1/rules.toml"), rules(11)).expect("edited");
    assert_eq!(told(&tells), became(10, 11));

    let switch = |version: &str| {
        symlink(version, elsewhere.file("next")).expect("a link");
        fs::rename(elsewhere.file("next"), elsewhere.file("current")).expect("switched");
    };
    switch("v2");
    assert_eq!(told(&tells), became(11, 20));
    fs::write(elsewhere.file("v2/rules.toml"), rules(21)).expect("edited");
    assert_eq!(told(&tells), became(20, 21));
    switch("v1");
    assert_eq!(told(&tells), became(21, 11));

    // The first link is turned to a file of its own.
    symlink(elsewhere.file("v2/rules.toml"), directory.file("next")).expect("a link");
    fs::rename(directory.file("next"), &path).expect("turned");
    assert_eq!(told(&tells), became(11, 21));
}

#[test]
fn a_directory_that_is_made_anew_is_followed() {
    let directory = Directory::new("anew");
    let (inner, away) = (directory.file("rules"), directory.file("away"));
    fs::create_dir_all(&inner).expect("a directory");
    let path = inner.join("throttle.toml");
    let (_watching, tells) = follow_by_events(&path);
    for (from, to) in [(10, 11), (11, 12)] {
        fs::remove_dir_all(&inner).expect("removed");
        let gone = told(&tells).expect_err("it is gone");
        assert!(gone.starts_with(&path.display().to_string()), "{gone}");
        fs::create_dir_all(&inner).expect("made anew");
        fs::write(&path, rules(to)).expect("written");
        assert_eq!(told(&tells), became(from, to));
    }
    // And one that is put into its place.
    fs::create_dir_all(&away).expect("a directory");
    fs::write(away.join("throttle.toml"), rules(13)).expect("written");
    fs::rename(&inner, directory.file("old")).expect("taken away");
    fs::rename(&away, &inner).expect("put into its place");
    let mut last = told(&tells);
    if last.is_err() {
        // The file was read between the two.
        last = told(&tells);
    }
    assert_eq!(last, became(12, 13));
    fs::write(&path, rules(14)).expect("written");
    assert_eq!(told(&tells), became(13, 14));
}

/// Containers mount a single file like this: the mount has the file itself, and not the directory it lies in.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_mounted_by_itself_is_followed() {
    use std::process::Command;

    /// Taken away when the test is over.
    struct Mount(PathBuf);

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }

    let directory = Directory::new("mount");
    let host = Directory::new("mount-host");
    let (path, source) = (directory.file("throttle.toml"), host.file("rules.toml"));
    fs::write(&source, RULES).expect("a file");
    fs::write(&path, "").expect("a place for it");
    let mount = |source: &PathBuf| {
        let mount = Command::new("mount")
            .arg("--bind")
            .arg(source)
            .arg(&path)
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        mounted.then(|| Mount(path.clone()))
    };
    let Some(_mount) = mount(&source) else {
        // No right to mount. The same file by two names is what a mount makes of it, and that is tested above.
        eprintln!("nothing can be mounted here: a hard link stands for it");
        return;
    };
    let (_watching, tells) =
        follow_with(&path, |watch| watch.poll_every(Duration::from_millis(50)));
    fs::write(&source, rules(11)).expect("edited on the host");
    assert_eq!(told(&tells), became(10, 11));
    // Another one over it, of which no event tells.
    let other = host.file("other.toml");
    fs::write(&other, rules(12)).expect("a file");
    let _other = mount(&other).expect("as before");
    assert_eq!(told(&tells), became(11, 12));
}

#[test]
fn a_listener_that_panics_is_told_of_the_next_change_all_the_same() {
    let directory = Directory::new("panics");
    let path = directory.file("throttle.toml");
    fs::write(&path, RULES).expect("a file");
    let layer = ThrottleLayer::new(Rules::new()).expect("no rules");
    let (tell, tells) = channel();
    let watch = config::watch(&path)
        .reading(|text| match text {
            "panic" => panic!("in the reader"),
            text => Ok(Rules::from_toml(text)?),
        })
        .telling(move |changes| {
            let _ = tell.send(
                changes
                    .as_ref()
                    .map(ToString::to_string)
                    .map_err(ToString::to_string),
            );
            panic!("in the listener");
        });
    let watching = watch.start(&layer.handle()).expect("a good file");
    for (from, to) in [(10, 11), (11, 12)] {
        fs::write(&path, rules(to)).expect("written");
        assert_eq!(told(&tells), became(from, to));
        assert!(watching.is_following());
    }
    fs::write(&path, "panic").expect("written");
    let panicked = told(&tells);
    let expected = format!("{}: the reader panicked: in the reader", path.display());
    assert_eq!(panicked, Err(expected));
    fs::write(&path, rules(13)).expect("written");
    assert_eq!(
        tells.recv_timeout(LONG).expect("it is told"),
        became(12, 13)
    );
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    let directory = Directory::new("long");
    let path = directory.file("throttle.toml");
    fs::write(&path, RULES).expect("a file");
    let (_watching, tells) = follow_with(&path, |watch| watch.max_bytes(100));
    fs::write(&path, "#".repeat(101)).expect("written");
    let expected = format!("{}: the file has more than 100 bytes", path.display());
    assert_eq!(told(&tells), Err(expected));
}

/// Eight megabytes are read, and not one byte more.
#[test]
fn a_file_has_a_bound_that_nobody_has_set() {
    const MOST: usize = 8 * 1024 * 1024;
    let directory = Directory::new("bound");
    let path = directory.file("throttle.toml");
    let layer = ThrottleLayer::new(Rules::new()).expect("no rules");
    let start = || {
        let watch = config::watch(&path).reading(|text| {
            assert_eq!(text.len(), MOST);
            Ok(Rules::new())
        });
        watch.start(&layer.handle())
    };
    fs::write(&path, "#".repeat(MOST)).expect("a file");
    assert!(start().is_ok());
    fs::write(&path, "#".repeat(MOST + 1)).expect("a file");
    let error = start().expect_err("it is too long");
    assert!(
        matches!(
            error,
            WatchError::Length {
                max_bytes: MOST,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_file_that_is_emptied_lifts_no_limit() {
    let directory = Directory::new("emptied");
    let path = directory.file("throttle.toml");
    let (_watching, tells) = follow(&path);
    for empty in ["", " \n", "\u{feff}\r\n"] {
        fs::write(&path, empty).expect("emptied");
        let changes = tells.recv_timeout(LONG).expect("it is told");
        let expected = format!("{}: an empty document", path.display());
        assert_eq!(changes, Err(expected));
        // The limits are those of before.
        fs::write(&path, "# none\n").expect("written");
        let lifted = told(&tells).expect("rules");
        assert!(lifted.contains("10 in 1s, burst 10, gone"), "{lifted}");
        fs::write(&path, RULES).expect("written");
        assert!(told(&tells).is_ok());
    }
}

/// Members of a plan stand in no file. Each reading of the file adds them again.
#[test]
fn what_code_adds_to_a_file_is_added_at_each_reading() {
    let directory = Directory::new("mapped");
    let path = directory.file("throttle.toml");
    let rules = |pro| format!("clients = {{ by = 'bearer', each = 1, plans.pro = {pro} }}");
    fs::write(&path, rules(20)).expect("a file");
    let layer = ThrottleLayer::new(Rules::new()).expect("rules");
    let handle = layer.handle();
    let (tell, tells) = channel();
    let _watching = config::watch(&path)
        .map_rules(|rules| rules.map_clients(|clients| clients.member("pro", "sk-7")))
        .telling(move |changes| {
            let changes = changes.as_ref().map(ToString::to_string);
            let _ = tell.send(changes.map_err(ToString::to_string));
        })
        .start(&handle)
        .expect("a good file");
    let request = http::Request::post("/").header("authorization", "Bearer sk-7");
    let request = request.body(()).expect("a request");
    let remaining = || {
        let decision = handle.preview(&request);
        let mut limits = decision.limits();
        limits
            .next()
            .map(|limit| (limit.name().to_owned(), limit.remaining()))
    };
    assert_eq!(remaining(), Some(("pro".to_owned(), 19)));
    fs::write(&path, rules(30)).expect("written");
    assert!(told(&tells).is_ok());
    assert_eq!(remaining(), Some(("pro".to_owned(), 29)));
}
