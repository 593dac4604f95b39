//! The commands of the README do what it says, pasted in order into an empty folder.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{between, ports::free_port, read};

const TIME_MAX: Duration = Duration::from_secs(120);

/// The commands in the fenced blocks of a text.
fn commands(markdown: &str) -> String {
    let mut commands = String::new();
    let mut inside = false;
    for line in markdown.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                commands += line;
                commands.push('\n');
            }
            _ => {}
        }
    }
    commands
}

fn has_grpcurl() -> bool {
    let mut command = Command::new("grpcurl");
    command.arg("-version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

#[test]
fn the_walk_of_the_readme_works() {
    if !has_grpcurl() {
        assert!(
            std::env::var_os("CAUSEWAY_REQUIRE_TOOLS").is_none(),
            "grpcurl is required and not on the PATH"
        );
        eprintln!("skipped: grpcurl is not on the PATH");
        return;
    }
    let mut script = commands(between(&read("README.md"), "<!-- walk -->", "<!-- /walk -->"));
    // As on the page, but on ports that are free here.
    for (written, free) in ["7000", "7001", "7002"]
        .into_iter()
        .zip(std::array::from_fn::<_, 3, _>(|_| free_port()))
    {
        assert!(script.contains(written));
        script = script.replace(&format!(":{written}"), &format!(":{free}"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(&script, folder.path());

    for needle in [
        "gateway.toml: good",
        "the same payment",
        "causeway.gateway.v1.PaymentService",
        "rpc CreatePayment",
        r#""midRate": "6.11350800126""#,
        r#""amount": "607.99""#,
        r#""state": "STATE_PREPARING""#,
        r#""state": "STATE_COMPLETED""#,
        r#""reason": "INSUFFICIENT_FUNDS""#,
        r#""reason": "REQUEST_ID_REUSED""#,
        r#""amount": "900.00""#,
        "gateway stopped",
        "apple-pay stopped",
        "alipay stopped",
    ] {
        assert!(output.contains(needle), "the walk should print {needle}:\n{output}");
    }
    for needle in ["command not found", "syntax error", "panicked"] {
        assert!(
            !output.contains(needle),
            "the walk should not print {needle}:\n{output}"
        );
    }
}

/// Runs a script with `causeway` on the PATH; answers with all that it printed.
fn run(script: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_causeway"));
    let programs = program.parent().expect("a program is in a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let log = folder.join("walk.log");
    let file = File::create(&log).expect("a log");
    let mut bash = Command::new("bash")
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", format!("{programs}:{path}"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a log"))
        .stderr(file)
        // A group of its own, so that what it started can be ended with it.
        .process_group(0)
        .spawn()
        .expect("bash runs");
    let until = Instant::now() + TIME_MAX;
    while bash.try_wait().expect("it is our child").is_none() {
        if Instant::now() > until {
            let group = format!("-{}", bash.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = bash.wait();
            let output = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("the walk did not end within {TIME_MAX:?}:\n{output}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::read_to_string(&log).expect("a log")
}
