//! The operators' tool against a gateway: what it lists, describes, calls and prints.

use std::process::{Command, Stdio};

use crate::{
    process::BINARY,
    world::{APPLE, GATEWAY, QUICK, World, beside_others},
};

/// Whether grpcurl is there. `CAUSEWAY_REQUIRE_TOOLS` forbids that it is not.
fn installed() -> bool {
    let found = Command::new("grpcurl")
        .arg("-version")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        assert!(
            std::env::var_os("CAUSEWAY_REQUIRE_TOOLS").is_none(),
            "grpcurl is required and not on the PATH"
        );
        eprintln!("skipped: grpcurl is not on the PATH");
    }
    found
}

struct Grpcurl<'a> {
    world: &'a World,
    server: &'static str,
}

impl Grpcurl<'_> {
    /// What it prints, and whether it found no error.
    fn run(&self, options: &[&str], arguments: &[&str]) -> (String, bool) {
        let certs = self.world.path().join("certs");
        let file = |name: &str| certs.join(name).display().to_string();
        let output = Command::new("grpcurl")
            .args(["-cacert", &file("ca.pem")])
            .args([
                "-cert",
                &file("partner-apple-pay.pem"),
                "-key",
                &file("partner-apple-pay.key"),
            ])
            .args(["-max-time", "20"])
            .args(options)
            .arg(self.world.address(self.server).to_string())
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (text, output.status.success())
    }

    fn good(&self, options: &[&str], arguments: &[&str]) -> String {
        let (text, success) = self.run(options, arguments);
        assert!(success, "{options:?} {arguments:?}: {text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_lists_describes_quotes_pays_and_prints_errors() {
    if !installed() {
        return;
    }
    let _machine = beside_others();
    let mut world = World::new(QUICK);
    world.start_gateway(&[]);
    tokio::task::block_in_place(|| walk(&world));
}

fn walk(world: &World) {
    let gateway = Grpcurl { world, server: GATEWAY };
    let services = gateway.good(&[], &["list"]);
    for service in ["QuoteService", "PaymentService", "RateService", "DecisionService"] {
        assert!(
            services.contains(&format!("causeway.gateway.v1.{service}")),
            "{services}"
        );
    }
    assert!(
        services.contains("grpc.health.v1.Health") && !services.contains("MockService"),
        "{services}"
    );
    let health = gateway.good(&[], &["grpc.health.v1.Health/Check"]);
    assert!(health.contains("SERVING"), "{health}");

    let described = gateway.good(&[], &["describe", "causeway.gateway.v1.CreatePaymentRequest"]);
    assert!(described.contains("request_id"), "{described}");

    let rate = gateway.good(
        &["-d", r#"{"name": "rates/USD-CNY"}"#],
        &["causeway.gateway.v1.RateService/GetRate"],
    );
    assert!(rate.contains("6.11350800126"), "{rate}");

    let corridor = r#"{"source_partner": "partners/apple-pay", "source_currency": "USD",
        "target_partner": "partners/alipay", "target_currency": "CNY"}"#;
    let request = format!(
        r#"{{"quote": {{"corridor": {corridor}, "fixed_side": "FIXED_SIDE_SEND",
            "amount": {{"currency": "USD", "amount": "10.00"}}}}}}"#
    );
    let quote = gateway.good(&["-d", &request], &["causeway.gateway.v1.QuoteService/CreateQuote"]);
    let quote = field(&quote, "name");
    let pay = format!(
        r#"{{"request_id": "g-1", "payment": {{"quote": "{quote}",
            "payer": {{"partner": "partners/apple-pay", "account": "alice"}},
            "payee": {{"partner": "partners/alipay", "account": "bob"}}}}}}"#
    );
    let method = "causeway.gateway.v1.PaymentService/CreatePayment";
    let payment = gateway.good(&["-d", &pay], &[method]);
    assert!(payment.contains("STATE_COMPLETED"), "{payment}");
    assert_eq!(
        gateway.good(&["-d", &pay], &[method]),
        payment,
        "the same request is the same payment"
    );

    let name = field(&payment, "name");
    let get = format!(r#"{{"name": "{name}"}}"#);
    assert_eq!(
        gateway.good(&["-d", &get], &["causeway.gateway.v1.PaymentService/GetPayment"]),
        payment
    );

    // A stream that does not end by itself: what came before the deadline counts.
    let (watched, _) = gateway.run(
        &["-max-time", "2", "-d", r#"{"resume_token": "start"}"#],
        &["causeway.gateway.v1.PaymentService/WatchPayments"],
    );
    for state in ["STATE_PREPARING", "STATE_COMMITTING", "STATE_COMPLETED"] {
        assert!(watched.contains(state), "{watched}");
    }

    let (error, success) = gateway.run(&["-d", &pay.replace("alice", "mallory")], &[method]);
    assert!(!success);
    // In words, not as bytes: reflection knows the types of the details.
    for word in ["AlreadyExists", "REQUEST_ID_REUSED", "payment.payer.account"] {
        assert!(error.contains(word), "{word}: {error}");
    }

    let partner = Grpcurl { world, server: APPLE };
    let services = partner.good(&[], &["list"]);
    assert!(
        services.contains("ParticipantService") && !services.contains("PaymentService"),
        "{services}"
    );
    let moved = partner.good(&[], &["causeway.mock.v1.MockService/ListMovements"]);
    assert_eq!(field(&moved, "totalCount"), "1");
}

/// The first field of this name in what grpcurl prints.
fn field(json: &str, name: &str) -> String {
    let mark = format!("\"{name}\": \"");
    let start = json.find(&mark).unwrap_or_else(|| panic!("no {name} in {json}")) + mark.len();
    json[start..].split('"').next().unwrap().to_owned()
}

/// Runs the line that ends what the demonstration left running, whatever the test came to.
struct Ending(String);

impl Ending {
    fn run(&self) -> bool {
        Command::new("bash")
            .args(["-c", &self.0])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.run();
    }
}

/// The commands in what the demonstration prints: each starts with "grpcurl" and ends at an empty line.
fn printed_commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("grpcurl ") {
            commands.push(String::new());
            inside = true;
        }
        inside &= !line.is_empty();
        if let (true, Some(command)) = (inside, commands.last_mut()) {
            command.push_str(line);
            command.push('\n');
        }
    }
    commands
}

#[test]
fn what_the_demonstration_prints_works_when_pasted() {
    if !installed() {
        return;
    }
    let _machine = beside_others();
    let output = Command::new(BINARY)
        .args(["demo", "--keep"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let ending = text
        .lines()
        .find(|line| line.starts_with("kill "))
        .map(|line| Ending(line.to_owned()));
    let ending = ending.unwrap_or_else(|| panic!("no line to end it: {text}"));
    assert!(output.status.success(), "{text}");
    let commands = printed_commands(&text);
    assert_eq!(commands.len(), 10, "{commands:?}");
    let mut paid = 0;
    for command in &commands {
        let paste = || {
            // A watch goes on until it is ended.
            let endless = command.contains("WatchPayments");
            let bounded = if endless { "timeout 2 " } else { "timeout 30 " };
            let output = Command::new("bash")
                .args(["-c", &format!("{bounded}{command}")])
                .output()
                .unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let failed = !output.status.success() && !endless;
            assert!(
                !failed,
                "{command}\n{printed}\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            printed
        };
        let printed = paste();
        if command.contains("CreatePayment") {
            assert!(printed.contains("STATE_COMPLETED"), "{printed}");
            assert_eq!(paste(), printed, "pasted twice, it is one payment");
            paid += 1;
        }
        let expected = [
            ("GetRate", "6.11350800126"),
            ("CreateQuote", "quotes/"),
            ("WatchPayments", "STATE_COMMITTING"),
            ("ListPayments", "STATE_ABORTED"),
            ("ListAccounts", "settlement"),
        ];
        for (method, needle) in expected {
            assert!(
                !command.contains(method) || printed.contains(needle),
                "{command}\n{printed}"
            );
        }
    }
    assert_eq!(paid, 1);
    assert!(ending.run(), "{}", ending.0);
}
