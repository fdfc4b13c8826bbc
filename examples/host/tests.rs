use std::process::{self, Command};

use super::asked_to_end;

#[tokio::test]
async fn a_signal_that_comes_before_anybody_waits_for_it_ends_nothing_at_once() {
    let end = asked_to_end();
    let sent = Command::new("kill").arg(process::id().to_string()).status();
    assert!(sent.is_ok_and(|sent| sent.success()), "SIGTERM is sent");
    end.await;
}
