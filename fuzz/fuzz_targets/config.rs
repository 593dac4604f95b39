//! The configuration: what is taken is consistent; what is not is refused with every key that is wrong.
#![no_main]

use std::path::Path;

use causeway::{
    config::{Config, ConfigError},
    payment::PartnerName,
};
use causeway_fuzz::text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    match Config::parse(text, Path::new("/etc/causeway/gateway.toml")) {
        Ok(config) => {
            for corridor in config.corridors.keys() {
                let ends = [
                    (&corridor.source_partner, corridor.source),
                    (&corridor.target_partner, corridor.target),
                ];
                for (name, currency) in ends {
                    let name = PartnerName::parse(name).expect("a name");
                    let partner = config
                        .partners
                        .get(&name)
                        .expect("a corridor's partners are configured");
                    assert!(partner.currencies.contains(&currency));
                }
            }
            for (name, partner) in &config.partners {
                assert_eq!(
                    config.partner_of(&partner.identity),
                    Some(name),
                    "one identity, one partner"
                );
            }
            assert!(config.store.is_absolute() && config.tls.ca.is_absolute());
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.key.is_empty() && !problem.allowed.is_empty(), "{problem}");
            }
        }
        Err(error) => assert!(error.to_string().starts_with("/etc/causeway/gateway.toml: ")),
    }
});
