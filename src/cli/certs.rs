//! `causeway certs`.

use std::path::PathBuf;

use causeway::certs::{CertsOptions, generate};

use super::Failure;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where to; made if missing.
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// The realm of all names.
    #[arg(long, default_value = "causeway.dev")]
    trust_domain: String,
    /// A partner network. May be given more than once.
    #[arg(long = "partner", value_name = "NAME", default_values = ["apple-pay", "alipay", "paypal"])]
    partners: Vec<String>,
    /// An operator. May be given more than once.
    #[arg(long = "operator", value_name = "NAME", default_values = ["ops"])]
    operators: Vec<String>,
    /// How long the certificates are valid, in days.
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Overwrite what exists.
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let generated = generate(&CertsOptions {
        dir: arguments.dir.clone(),
        trust_domain: arguments.trust_domain.clone(),
        partners: arguments.partners.clone(),
        operators: arguments.operators.clone(),
        force: arguments.force,
        valid_days: arguments.days,
        ..CertsOptions::default()
    })?;
    for (principal, files) in &generated.leaves {
        println!("{}  {}", files.cert.display(), principal.spiffe_uri());
    }
    println!("for development only; the keys are in {}", arguments.dir.display());
    Ok(())
}
