//! The demonstration, as a new user runs it.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{process::BINARY, world::beside_others};

fn demo(arguments: &[&str]) -> (Output, Duration) {
    let _machine = beside_others();
    let started = Instant::now();
    let output = Command::new(BINARY)
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, started.elapsed())
}

#[test]
fn the_demonstration_tells_its_story_and_its_books_balance() {
    let (output, took) = demo(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = text.lines().last().unwrap();
    assert_eq!(last, "books balanced: 7 payments, 5 completed, 2 aborted, 0 in doubt");
    // The rate is the ECB's of that day: 7.7935 CNY and 1.2748 USD for a euro.
    assert!(text.contains("6.11350800126"), "{text}");
    assert!(took < Duration::from_secs(60), "took {took:?}");
}

#[test]
fn another_day_has_another_rate_and_a_day_without_rates_is_refused() {
    let (output, _) = demo(&["--date", "2014-10-27"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("2014-10-27") && !text.contains("6.11350800126"), "{text}");

    let (output, _) = demo(&["--date", "1998-01-01"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(error.contains("1998-01-01"), "{error}");
}
