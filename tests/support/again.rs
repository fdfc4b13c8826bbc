//! A test in a process of its own: one that may end badly, or needs another environment.

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::sleep;

const TOLD: &str = "THROTTLE_TEST_TOLD";

/// Returns what this process was told, if it is the one that is run [again](run).
pub(crate) fn told() -> Option<String> {
    env::var(TOLD).ok()
}

/// Runs this test once more in a process that is told something, and returns whether the process ended well, and what
/// it has written.
///
/// A process that has not ended after two minutes hangs, and is ended.
pub(crate) async fn run(test: &str, told: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let own = env::current_exe().expect("this program");
    let child = Command::new(own)
        .args(["--exact", test, "--nocapture"])
        .env(TOLD, told)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("it runs");
    for _ in 0..6_000 {
        if child.try_wait().expect("ours").is_some() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let _ = child.kill();
    let output = child.wait_with_output().expect("it has ended");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}
