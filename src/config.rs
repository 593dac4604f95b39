//! The configuration file: what is read, what is allowed, and what is made of it.
//!
//! Every key has a default but for the listen address, the store, the TLS files, the rate source, the partners and the
//! corridors. A wrong file is refused as a whole, with every problem that was found: the key, what it holds, what is
//! allowed. Called by `gateway` at start; nothing else reads the file. Invariant: a [`Config`] is consistent, every
//! corridor's partners and currencies are configured.

mod raw;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rust_decimal::Decimal;
use time::Date;

use crate::{
    authn::{Principal, Role},
    coordinator::protocol::Policy,
    fx::{Corridor, CorridorPricing},
    money::{Amount, Currency, Margin},
    participant::Timeouts,
    payment::PartnerName,
    tls::TlsFiles,
};

/// All that a gateway needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// The SQLite file.
    pub store: PathBuf,
    /// The trust domain of operators' and participants' certificates.
    pub trust_domain: String,
    /// The gateway's certificate, and the authority of all others.
    pub tls: TlsFiles,
    /// Where rates come from.
    pub rates: Rates,
    /// How long things may take.
    pub timing: Timing,
    /// The waiting times between attempts.
    pub policy: Policy,
    /// How many repeated commands a second go to one partner at most.
    pub redeliveries_per_second: u32,
    /// What the gateway gives to strangers and partners.
    pub limits: Limits,
    /// Where the metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The partner networks.
    pub partners: BTreeMap<PartnerName, Partner>,
    /// Between whom money moves, and at what price.
    pub corridors: BTreeMap<Corridor, CorridorTerms>,
}

/// A partner network.
#[derive(Clone, Debug)]
pub struct Partner {
    /// The identity in its certificate, as a caller and as a participant.
    pub identity: Principal,
    /// Where it serves the participant API: `https://HOST:PORT`.
    pub endpoint: String,
    /// In which currencies it holds accounts.
    pub currencies: BTreeSet<Currency>,
}

/// A corridor's terms.
#[derive(Clone, Debug)]
pub struct CorridorTerms {
    /// Margin, fee, limits and lifetime of quotes.
    pub pricing: CorridorPricing,
    /// Who may quote and pay on it.
    pub initiators: BTreeSet<PartnerName>,
}

/// Where rates come from, and how long they are good for.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The source.
    pub source: RateSource,
    /// A rate is fetched anew after this.
    pub expire_after: Duration,
    /// A rate that is used after this is fetched anew in the background.
    pub refresh_after: Duration,
    /// No quote is made from a rate published longer ago than this. Not applied to a source pinned to a day.
    pub stale_after: Duration,
    /// A currency whose rate jumps by more than this fraction keeps its old rate.
    pub deviation_max: Decimal,
}

/// A rate source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateSource {
    /// The European Central Bank's rates that are part of the program: October 2014, and 90 days of 2026.
    Sample {
        /// The day to take; the newest if absent.
        date: Option<Date>,
    },
    /// The ECB's history as a CSV file.
    CsvFile {
        /// The file.
        path: PathBuf,
        /// The day to take; the newest if absent.
        date: Option<Date>,
    },
    /// The ECB's daily XML file.
    XmlFile {
        /// The file.
        path: PathBuf,
    },
    /// Either of the ECB's files by HTTPS.
    Https {
        /// The address.
        url: String,
        /// Further certificate authorities, PEM; the system's if absent.
        ca: Option<PathBuf>,
    },
}

impl RateSource {
    /// Whether the source always gives the same day.
    pub fn is_pinned(&self) -> bool {
        matches!(
            self,
            Self::Sample { date: Some(_) } | Self::CsvFile { date: Some(_), .. }
        )
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Calls to participants.
    pub timeouts: Timeouts,
    /// From the beginning of a payment to the latest instant of its decision.
    pub voting: Duration,
    /// A payment that has less than this for its voting is not begun.
    pub voting_min: Duration,
    /// A hold's lifetime, counted from the latest instant of the decision.
    pub hold: Duration,
    /// How much of the caller's deadline is kept for the answer.
    pub answer_margin: Duration,
    /// How long a caller without a deadline is kept waiting for the end; then it is told the decision.
    pub answer: Duration,
    /// How long a stopping gateway waits for payments under way.
    pub drain: Duration,
    /// How often the store is searched for payments that nobody drives.
    pub recovery_interval: Duration,
}

/// What the gateway gives to strangers and partners.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request.
    pub message_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Calls at once on one connection.
    pub streams_per_connection: u32,
    /// Prepares in flight to one partner, and as many commands that follow a decision; more wait.
    pub calls_per_partner: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key: `partner[1].endpoint`.
    pub key: String,
    /// What it holds.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}; allowed: {}", self.key, self.found, self.allowed)
    }
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: cannot be read: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not TOML, or a key holds what it cannot.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The key, what was found, and what was expected.
        message: String,
    },
    /// It is well formed, but not a usable configuration.
    #[error("{path}: {}", list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!(
        "{} problem{}{}",
        lines.len(),
        if lines.len() == 1 { "" } else { "s" },
        lines.concat()
    )
}

impl Config {
    /// Reads a file. Paths in it are relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(&text, path)
    }

    /// Reads a text as if it stood in this file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let malformed = |message: String| ConfigError::Malformed {
            path: path.to_owned(),
            message,
        };
        let deserializer = toml::Deserializer::parse(text).map_err(|error| malformed(error.to_string()))?;
        let raw: raw::File = serde_path_to_error::deserialize(deserializer)
            .map_err(|error| malformed(format!("{}: {}", error.path(), error.inner().message())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut checker = Checker {
            problems: Vec::new(),
            folder: folder.to_owned(),
        };
        let config = checker.config(raw);
        match (config, checker.problems) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(ConfigError::Invalid {
                path: path.to_owned(),
                problems,
            }),
        }
    }

    /// The partner whose certificate carries this identity.
    pub fn partner_of(&self, principal: &Principal) -> Option<&PartnerName> {
        self.partners
            .iter()
            .find(|(_, partner)| partner.identity == *principal)
            .map(|(name, _)| name)
    }
}

/// Checks what TOML cannot, and gathers all problems before it gives up.
struct Checker {
    problems: Vec<Problem>,
    folder: PathBuf,
}

impl Checker {
    fn config(&mut self, raw: raw::File) -> Option<Config> {
        let listen = self.parse(
            "listen",
            &raw.listen,
            "an address and a port: 127.0.0.1:7000",
            str::parse,
        );
        let metrics = raw.metrics.listen.as_deref().and_then(|listen| {
            let allowed = "an address and a port: 127.0.0.1:9464";
            self.parse("metrics.listen", listen, allowed, str::parse)
        });
        let partners = self.partners(&raw);
        let corridors = self.corridors(&raw, &partners);
        let rates = self.rates(raw.rates);
        let timing = self.timing(&raw.timing);
        let policy = Policy {
            voting_ladder_ms: self.ladder("timing.voting_ladder_ms", raw.timing.voting_ladder_ms),
            delivery_ladder_ms: self.ladder("timing.delivery_ladder_ms", raw.timing.delivery_ladder_ms),
            jitter_percent: self.within("timing.jitter_percent", raw.timing.jitter_percent, 0, 100) as u8,
        };
        if raw.trust_domain.is_empty() {
            self.add("trust_domain", "\"\"", "a name such as causeway.dev");
        }
        Some(Config {
            listen: listen?,
            store: self.path(&raw.store),
            trust_domain: raw.trust_domain,
            tls: TlsFiles {
                ca: self.path(&raw.tls.ca),
                cert: self.path(&raw.tls.cert),
                key: self.path(&raw.tls.key),
            },
            rates: rates?,
            timing,
            policy,
            redeliveries_per_second: self.within(
                "timing.redeliveries_per_second",
                raw.timing.redeliveries_per_second,
                1,
                1_000_000,
            ) as u32,
            limits: Limits {
                message_bytes: self.within("limits.message_bytes", raw.limits.message_bytes, 1_024, 16 << 20) as usize,
                connections: self.within("limits.connections", raw.limits.connections, 1, 1_000_000) as usize,
                streams_per_connection: self.within(
                    "limits.streams_per_connection",
                    raw.limits.streams_per_connection,
                    1,
                    1_000_000,
                ) as u32,
                calls_per_partner: self.within("limits.calls_per_partner", raw.limits.calls_per_partner, 1, 100_000)
                    as usize,
                handshake: self.millis("limits.handshake_ms", raw.limits.handshake_ms, 100),
            },
            metrics,
            partners,
            corridors,
        })
    }

    fn partners(&mut self, raw: &raw::File) -> BTreeMap<PartnerName, Partner> {
        let mut partners: BTreeMap<PartnerName, Partner> = BTreeMap::new();
        if raw.partner.is_empty() {
            self.add("partner", "none", "at least one [[partner]]");
        }
        for (index, partner) in raw.partner.iter().enumerate() {
            let key = |field: &str| format!("partner[{index}].{field}");
            let name = self.parse(&key("name"), &partner.name, PartnerName::ALLOWED, PartnerName::parse);
            let identity = self.parse(
                &key("identity"),
                &partner.identity,
                "spiffe://TRUST-DOMAIN/partner/NAME",
                Principal::parse,
            );
            if let Some(identity) = &identity {
                if identity.role() != Role::Partner || identity.trust_domain() != raw.trust_domain {
                    let allowed = format!("spiffe://{}/partner/NAME", raw.trust_domain);
                    self.add(&key("identity"), &format!("{:?}", partner.identity), &allowed);
                }
                if partners.values().any(|other| other.identity == *identity) {
                    self.add(
                        &key("identity"),
                        &format!("{:?}", partner.identity),
                        "an identity of its own",
                    );
                }
            }
            if !partner.endpoint.starts_with("https://") {
                self.add(
                    &key("endpoint"),
                    &format!("{:?}", partner.endpoint),
                    "https://HOST:PORT",
                );
            }
            let currencies: BTreeSet<_> = partner
                .currencies
                .iter()
                .filter_map(|code| self.parse(&key("currencies"), code, "codes of ISO 4217", Currency::parse))
                .collect();
            if partner.currencies.is_empty() {
                self.add(&key("currencies"), "[]", "at least one code of ISO 4217");
            }
            if let (Some(name), Some(identity)) = (name, identity) {
                let entry = Partner {
                    identity,
                    endpoint: partner.endpoint.clone(),
                    currencies,
                };
                if partners.insert(name, entry).is_some() {
                    self.add(&key("name"), &format!("{:?}", partner.name), "a name of its own");
                }
            }
        }
        partners
    }

    fn corridors(
        &mut self,
        raw: &raw::File,
        partners: &BTreeMap<PartnerName, Partner>,
    ) -> BTreeMap<Corridor, CorridorTerms> {
        let mut corridors = BTreeMap::new();
        for (index, corridor) in raw.corridor.iter().enumerate() {
            let key = |field: &str| format!("corridor[{index}].{field}");
            let source = self.end(&key("from"), &corridor.from, partners);
            let target = self.end(&key("to"), &corridor.to, partners);
            let margin = self.parse(
                &key("margin"),
                &corridor.margin,
                "a fraction from 0 to below 1",
                Margin::parse,
            );
            let (Some((source_partner, source)), Some((target_partner, target)), Some(margin)) =
                (source, target, margin)
            else {
                continue;
            };
            let amount = |checker: &mut Self, field: &str, text: &str| {
                checker.parse(&key(field), text, &format!("an amount in {source}"), |text| {
                    Amount::parse(source, text)
                })
            };
            let fee = amount(self, "fee", &corridor.fee);
            let send_min = corridor
                .send_min
                .as_ref()
                .and_then(|text| amount(self, "send_min", text));
            let send_max = corridor
                .send_max
                .as_ref()
                .and_then(|text| amount(self, "send_max", text));
            if let (Some(min), Some(max)) = (send_min, send_max)
                && min.minor() > max.minor()
            {
                self.add(&key("send_max"), &max.to_string(), &format!("at least send_min, {min}"));
            }
            let initiators: BTreeSet<_> = match &corridor.initiators {
                None => [source_partner.clone()].into(),
                Some(names) => names
                    .iter()
                    .filter_map(|name| self.known_partner(&key("initiators"), name, partners))
                    .collect(),
            };
            let quote_ttl_ms = self.within(&key("quote_ttl_ms"), corridor.quote_ttl_ms, 1_000, 86_400_000);
            let Some(fee) = fee else { continue };
            let pricing = CorridorPricing {
                margin,
                fee,
                quote_ttl_ms,
                send_max,
                send_min,
            };
            let name = Corridor {
                source_partner: source_partner.to_string(),
                source,
                target_partner: target_partner.to_string(),
                target,
            };
            if corridors.insert(name, CorridorTerms { pricing, initiators }).is_some() {
                let found = format!("{} -> {}", corridor.from, corridor.to);
                self.add(&format!("corridor[{index}]"), &found, "each corridor once");
            }
        }
        corridors
    }

    /// One end of a corridor: `apple-pay/USD`.
    fn end(
        &mut self,
        key: &str,
        text: &str,
        partners: &BTreeMap<PartnerName, Partner>,
    ) -> Option<(PartnerName, Currency)> {
        let Some((name, code)) = text.split_once('/') else {
            self.add(key, &format!("{text:?}"), "PARTNER/CURRENCY: \"apple-pay/USD\"");
            return None;
        };
        let name = self.known_partner(key, name, partners)?;
        let currency = self.parse(key, code, "a code of ISO 4217 after the slash", Currency::parse)?;
        if !partners[&name].currencies.contains(&currency) {
            let allowed: Vec<_> = partners[&name]
                .currencies
                .iter()
                .map(|currency| currency.code())
                .collect();
            self.add(
                key,
                &format!("{text:?}"),
                &format!("a currency of {name}: {}", allowed.join(", ")),
            );
            return None;
        }
        Some((name, currency))
    }

    fn known_partner(
        &mut self,
        key: &str,
        text: &str,
        partners: &BTreeMap<PartnerName, Partner>,
    ) -> Option<PartnerName> {
        let name = self.parse(key, text, PartnerName::ALLOWED, PartnerName::parse)?;
        if !partners.contains_key(&name) {
            let names: Vec<_> = partners.keys().map(PartnerName::as_str).collect();
            self.add(
                key,
                &format!("{text:?}"),
                &format!("a configured partner: {}", names.join(", ")),
            );
            return None;
        }
        Some(name)
    }

    fn rates(&mut self, raw: raw::Rates) -> Option<Rates> {
        const DATE: &[time::format_description::BorrowedFormatItem<'_>] =
            time::macros::format_description!("[year]-[month]-[day]");
        let date = match &raw.date {
            None => None,
            Some(text) => Some(self.parse("rates.date", text, "a date: 2014-10-28", |text| Date::parse(text, DATE))?),
        };
        let mut unused = |present: bool, key: &str| {
            if present {
                self.problems.push(Problem {
                    key: format!("rates.{key}"),
                    found: "a value".into(),
                    allowed: format!("nothing with source = {:?}", raw.source),
                });
            }
        };
        let source = match raw.source.as_str() {
            "sample" => {
                unused(raw.path.is_some(), "path");
                unused(raw.url.is_some(), "url");
                unused(raw.ca.is_some(), "ca");
                RateSource::Sample { date }
            }
            "ecb-csv" => {
                unused(raw.url.is_some(), "url");
                unused(raw.ca.is_some(), "ca");
                RateSource::CsvFile {
                    path: self.required_path("rates.path", raw.path.as_deref())?,
                    date,
                }
            }
            "ecb-xml" => {
                unused(date.is_some(), "date");
                unused(raw.url.is_some(), "url");
                unused(raw.ca.is_some(), "ca");
                RateSource::XmlFile {
                    path: self.required_path("rates.path", raw.path.as_deref())?,
                }
            }
            "ecb-https" => {
                unused(date.is_some(), "date");
                unused(raw.path.is_some(), "path");
                let Some(url) = raw.url.clone().filter(|url| url.starts_with("https://")) else {
                    let found = format!("{:?}", raw.url.unwrap_or_default());
                    self.add("rates.url", &found, "https://HOST/FILE.csv or .xml");
                    return None;
                };
                RateSource::Https {
                    url,
                    ca: raw.ca.as_deref().map(|path| self.path(path)),
                }
            }
            other => {
                self.add(
                    "rates.source",
                    &format!("{other:?}"),
                    "sample, ecb-csv, ecb-xml, ecb-https",
                );
                return None;
            }
        };
        let deviation_max = self.parse(
            "rates.deviation_max",
            &raw.deviation_max,
            "a fraction above 0: \"0.1\"",
            Decimal::from_str_exact,
        )?;
        if deviation_max <= Decimal::ZERO {
            self.add("rates.deviation_max", &raw.deviation_max, "a fraction above 0: \"0.1\"");
        }
        let expire_after = self.millis("rates.expire_after_ms", raw.expire_after_ms, 1);
        let refresh_after = self.millis("rates.refresh_after_ms", raw.refresh_after_ms, 1);
        if refresh_after > expire_after {
            let allowed = format!("at most expire_after_ms, {}", raw.expire_after_ms);
            self.add("rates.refresh_after_ms", &raw.refresh_after_ms.to_string(), &allowed);
        }
        Some(Rates {
            source,
            expire_after,
            refresh_after,
            stale_after: self.millis("rates.stale_after_ms", raw.stale_after_ms, 1),
            deviation_max,
        })
    }

    fn timing(&mut self, raw: &raw::Timing) -> Timing {
        let timing = Timing {
            timeouts: Timeouts {
                command: self.millis("timing.command_ms", raw.command_ms, 10),
                inquiry: self.millis("timing.inquiry_ms", raw.inquiry_ms, 10),
            },
            voting: self.millis("timing.voting_ms", raw.voting_ms, 10),
            voting_min: self.millis("timing.voting_min_ms", raw.voting_min_ms, 1),
            hold: self.millis("timing.hold_ms", raw.hold_ms, 1_000),
            answer_margin: self.millis("timing.answer_margin_ms", raw.answer_margin_ms, 1),
            answer: self.millis("timing.answer_ms", raw.answer_ms, 100),
            drain: self.millis("timing.drain_ms", raw.drain_ms, 0),
            recovery_interval: self.millis("timing.recovery_interval_ms", raw.recovery_interval_ms, 100),
        };
        if timing.voting_min > timing.voting {
            let allowed = format!("at most voting_ms, {}", raw.voting_ms);
            self.add("timing.voting_min_ms", &raw.voting_min_ms.to_string(), &allowed);
        }
        timing
    }

    fn ladder(&mut self, key: &str, rungs_ms: Vec<i64>) -> Vec<i64> {
        if rungs_ms.is_empty() || rungs_ms.len() > 32 {
            self.add(key, &format!("{} rungs", rungs_ms.len()), "1 to 32 rungs");
        }
        for rung_ms in &rungs_ms {
            self.within(key, *rung_ms, 10, 86_400_000);
        }
        rungs_ms
    }

    fn millis(&mut self, key: &str, value_ms: i64, min_ms: i64) -> Duration {
        // A year: longer is a slip of the pen.
        Duration::from_millis(self.within(key, value_ms, min_ms, 31_536_000_000) as u64)
    }

    fn within(&mut self, key: &str, value: i64, min: i64, max: i64) -> i64 {
        if !(min..=max).contains(&value) {
            self.add(key, &value.to_string(), &format!("{min} to {max}"));
        }
        value.clamp(min, max)
    }

    fn required_path(&mut self, key: &str, path: Option<&Path>) -> Option<PathBuf> {
        if path.is_none() {
            self.add(key, "nothing", "the path of a file");
        }
        path.map(|path| self.path(path))
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    fn parse<T, E: fmt::Display>(
        &mut self,
        key: &str,
        text: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(key, &format!("{text:?} ({error})"), allowed);
                None
            }
        }
    }

    fn add(&mut self, key: &str, found: &str, allowed: &str) {
        self.problems.push(Problem {
            key: key.into(),
            found: found.into(),
            allowed: allowed.into(),
        });
    }
}

#[cfg(test)]
mod tests;
