//! The file as it is written: names and defaults, nothing checked.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub listen: String,
    pub store: PathBuf,
    #[serde(default = "trust_domain")]
    pub trust_domain: String,
    pub tls: Tls,
    pub rates: Rates,
    #[serde(default)]
    pub timing: Timing,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub metrics: Metrics,
    #[serde(default)]
    pub partner: Vec<Partner>,
    #[serde(default)]
    pub corridor: Vec<Corridor>,
}

fn trust_domain() -> String {
    "causeway.dev".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    pub source: String,
    pub path: Option<PathBuf>,
    pub url: Option<String>,
    pub ca: Option<PathBuf>,
    pub date: Option<String>,
    #[serde(default = "hour_ms")]
    pub expire_after_ms: i64,
    #[serde(default = "half_hour_ms")]
    pub refresh_after_ms: i64,
    #[serde(default = "six_days_ms")]
    pub stale_after_ms: i64,
    #[serde(default = "tenth")]
    pub deviation_max: String,
}

fn hour_ms() -> i64 {
    3_600_000
}

fn half_hour_ms() -> i64 {
    1_800_000
}

/// From Thursday's rates to Tuesday's, over Easter, and a day to notice.
fn six_days_ms() -> i64 {
    6 * 86_400_000
}

fn tenth() -> String {
    "0.1".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    pub command_ms: i64,
    pub inquiry_ms: i64,
    pub voting_ms: i64,
    pub voting_min_ms: i64,
    pub hold_ms: i64,
    pub answer_margin_ms: i64,
    pub answer_ms: i64,
    pub drain_ms: i64,
    pub recovery_interval_ms: i64,
    pub voting_ladder_ms: Vec<i64>,
    pub delivery_ladder_ms: Vec<i64>,
    pub jitter_percent: i64,
    pub redeliveries_per_second: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            command_ms: 8_000,
            inquiry_ms: 5_000,
            voting_ms: 15_000,
            voting_min_ms: 500,
            hold_ms: 600_000,
            answer_margin_ms: 200,
            answer_ms: 30_000,
            drain_ms: 10_000,
            recovery_interval_ms: 30_000,
            voting_ladder_ms: vec![200, 400, 800, 1_600],
            delivery_ladder_ms: vec![4_000, 4_000, 30_000, 60_000, 60_000, 60_000, 300_000],
            jitter_percent: 20,
            redeliveries_per_second: 500,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub message_bytes: i64,
    pub connections: i64,
    pub streams_per_connection: i64,
    pub calls_per_partner: i64,
    pub handshake_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            connections: 10_000,
            streams_per_connection: 10_000,
            calls_per_partner: 2_048,
            handshake_ms: 10_000,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    pub listen: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partner {
    pub name: String,
    pub identity: String,
    pub endpoint: String,
    pub currencies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corridor {
    pub from: String,
    pub to: String,
    #[serde(default = "zero")]
    pub margin: String,
    #[serde(default = "zero")]
    pub fee: String,
    pub send_min: Option<String>,
    pub send_max: Option<String>,
    #[serde(default = "minute_ms")]
    pub quote_ttl_ms: i64,
    pub initiators: Option<Vec<String>>,
}

fn zero() -> String {
    "0".into()
}

fn minute_ms() -> i64 {
    60_000
}
