//! The three files. Each field is documented in its sample; here stand types and what is allowed.

use super::{Config, socket_address};
use crate::data::{Sources, limits};
use crate::job::Conditions;
use crate::store::{BucketOptions, PgPlace};
use crate::transport::{Address, AutoOptions, Mode, NodeId, Proxy, ProxyLogin, QuicOptions, TcpOptions};
use littoral_fed::check_in::CheckIn;
use littoral_wire::message::{OFFERS_MAX, UPSTREAMS_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Half of what edges are told of whom to dial.
const REPLICAS_MAX: usize = UPSTREAMS_MAX / 2;
/// A renewal has to fit several times.
const LEASE_MS_MIN: u64 = 500;
/// The longest message takes 5.3 MB, and one must not drop the link that it waits on.
const QUEUE_MB_MIN: u64 = 8;
/// As in [`littoral_wire::message::Name`].
const DATA_NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudConfig {
    pub dir: PathBuf,
    pub name: String,
    pub listen: String,
    pub advertise: String,
    pub threads: usize,
    pub log: String,
    pub shared: Shared,
    pub check_in: CheckIn,
    pub network: Network,
    pub limits: Limits,
    /// A language model beside it: the flags of `littoral serve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<toml::Table>,
}

/// What the replicas of a cloud share; without a database the cloud is one process, with all in its folder.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shared {
    pub database: String,
    pub bucket: String,
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    /// `host:port` of every replica.
    pub replicas: Vec<String>,
    pub lease_ms: u64,
    pub shard_sums: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    pub dir: PathBuf,
    pub name: String,
    pub listen: String,
    pub advertise: String,
    /// `key@host:port`.
    pub cloud: String,
    /// `host:port` of the cloud's other replicas.
    pub replicas: Vec<String>,
    pub threads: usize,
    pub log: String,
    pub check_in: CheckIn,
    pub network: Network,
    pub limits: Limits,
    /// A language model beside it: the flags of `littoral serve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<toml::Table>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceConfig {
    pub dir: PathBuf,
    pub name: String,
    /// The cloud's key.
    pub cloud: String,
    /// The key that signs rosters of devices.
    pub roster: String,
    /// The least that sums must be masked against.
    pub masks: MasksName,
    /// Fewest updates in a masked sum that this device takes part in.
    pub group_min: u32,
    pub upstreams: Vec<String>,
    pub threads: usize,
    pub log: String,
    pub network: Network,
    pub limits: DeviceLimits,
    pub conditions: ConditionsConfig,
    /// A language model beside it: the flags of `littoral serve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<toml::Table>,
    pub data: Sources,
}

/// What a device asks of the sums that it takes part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasksName {
    /// As the job says.
    #[default]
    Job,
    /// Masks at least against a cloud that follows the protocol.
    Honest,
    /// Masks against a cloud that lies.
    Active,
}

/// How a device knows in what state its machine is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConditionsConfig {
    /// A program and its arguments, run in the file's folder; empty: as the system tells.
    pub command: String,
    /// The machine is idle below this load of the last minute for each core.
    pub idle_load: f64,
    /// The rest: what holds where it cannot be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charging: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmetered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
}

impl Default for ConditionsConfig {
    fn default() -> Self {
        Self { command: String::new(), idle_load: 0.75, charging: None, idle: None, unmetered: None, memory_mb: None }
    }
}

impl ConditionsConfig {
    /// What holds where it cannot be found out.
    pub fn assumed(&self) -> Conditions {
        let Self { charging, idle, unmetered, memory_mb, .. } = *self;
        Conditions { charging, idle, unmetered, memory_mb }
    }
}

/// How a machine dials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub transport: TransportName,
    pub proxy: String,
    pub proxy_login: String,
    pub relay: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportName {
    #[default]
    Auto,
    Quic,
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub links_max: usize,
    pub links_per_peer_max: usize,
    pub queue_mb_max: usize,
    pub stall_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceLimits {
    pub queue_mb_max: usize,
    pub stall_ms: u64,
    pub file_mb_max: u64,
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            dir: ".".into(),
            name: "cloud".into(),
            listen: "127.0.0.1:7400".into(),
            advertise: String::new(),
            threads: 0,
            log: "info".into(),
            shared: Shared::default(),
            check_in: CheckIn::default(),
            network: Network::default(),
            limits: Limits::default(),
            serve: None,
        }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            database: String::new(),
            bucket: String::new(),
            endpoint: String::new(),
            region: String::new(),
            access_key: String::new(),
            secret_key: String::new(),
            replicas: Vec::new(),
            lease_ms: 5_000,
            shard_sums: 64,
        }
    }
}

/// Without what opens the database and the bucket.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, replicas, lease_ms, shard_sums, .. } = self;
        write!(
            f,
            "Shared {{ bucket: {bucket:?}, replicas: {replicas:?}, lease_ms: {lease_ms}, shard_sums: {shard_sums} }}"
        )
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            dir: ".".into(),
            name: String::new(),
            listen: "127.0.0.1:7400".into(),
            advertise: String::new(),
            cloud: String::new(),
            replicas: Vec::new(),
            threads: 0,
            log: "info".into(),
            check_in: CheckIn::default(),
            network: Network::default(),
            limits: Limits::default(),
            serve: None,
        }
    }
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            dir: ".".into(),
            name: String::new(),
            cloud: String::new(),
            roster: String::new(),
            masks: MasksName::Job,
            group_min: 3,
            upstreams: Vec::new(),
            threads: 1,
            log: "info".into(),
            network: Network::default(),
            limits: DeviceLimits::default(),
            conditions: ConditionsConfig::default(),
            serve: None,
            data: Sources::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { links_max: 10_000, links_per_peer_max: 4, queue_mb_max: 64, stall_ms: 30_000 }
    }
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self { queue_mb_max: 64, stall_ms: 30_000, file_mb_max: limits::FILE_BYTES_MAX / 1_000_000 }
    }
}

/// Field, what is allowed, what was found.
type Wrong = (&'static str, String, String);

impl Config for CloudConfig {
    const SAMPLE_TOML: &'static str = include_str!("cloud.toml");
    const FILE_NAME: &'static str = "cloud.toml";

    fn dir_mut(&mut self) -> &mut PathBuf {
        &mut self.dir
    }

    fn check(&self) -> Result<(), Wrong> {
        name(&self.name)?;
        log(&self.log)?;
        listen(&self.listen, &self.advertise)?;
        self.shared.check()?;
        check_in(&self.check_in)?;
        self.limits.check()?;
        self.network.check(!self.shared.database.is_empty())
    }
}

impl Config for EdgeConfig {
    const SAMPLE_TOML: &'static str = include_str!("edge.toml");
    const FILE_NAME: &'static str = "edge.toml";

    fn dir_mut(&mut self) -> &mut PathBuf {
        &mut self.dir
    }

    fn check(&self) -> Result<(), Wrong> {
        name(&self.name)?;
        log(&self.log)?;
        listen(&self.listen, &self.advertise)?;
        if !self.cloud.is_empty() {
            address("cloud", &self.cloud)?;
        }
        self.replicas.iter().try_for_each(|replica| place("replicas", replica))?;
        check_in(&self.check_in)?;
        self.limits.check()?;
        self.network.check(!self.replicas.is_empty())
    }
}

fn check_in(check_in: &CheckIn) -> Result<(), Wrong> {
    let place = |field| if field == "stay_ms" { "check_in.stay_ms" } else { "check_in.every_ms" };
    check_in.wrong().map_or(Ok(()), |(field, allowed, got)| Err((place(field), allowed, got.to_string())))
}

impl Config for DeviceConfig {
    const SAMPLE_TOML: &'static str = include_str!("device.toml");
    const FILE_NAME: &'static str = "device.toml";

    fn dir_mut(&mut self) -> &mut PathBuf {
        &mut self.dir
    }

    fn check(&self) -> Result<(), Wrong> {
        name(&self.name)?;
        log(&self.log)?;
        if !self.cloud.is_empty() && self.cloud.parse::<NodeId>().is_err() {
            return Err(("cloud", "a key of 64 hexadecimal digits".into(), self.cloud.clone()));
        }
        if !self.roster.is_empty() && self.roster.parse::<NodeId>().is_err() {
            return Err(("roster", "a key of 64 hexadecimal digits".into(), self.roster.clone()));
        }
        self.upstreams.iter().try_for_each(|upstream| address("upstreams", upstream))?;
        at_least("group_min", 2, self.group_min.into())?;
        at_least("limits.queue_mb_max", QUEUE_MB_MIN, self.limits.queue_mb_max as u64)?;
        at_least("limits.stall_ms", 1, self.limits.stall_ms)?;
        at_least("limits.file_mb_max", 1, self.limits.file_mb_max)?;
        let idle_load = self.conditions.idle_load;
        if !(idle_load > 0.0 && idle_load <= 100.0) {
            return Err(("conditions.idle_load", "a number above 0, at most 100".into(), idle_load.to_string()));
        }
        if self.data.len() > OFFERS_MAX {
            return Err(("data", format!("at most {OFFERS_MAX} data sets"), self.data.len().to_string()));
        }
        for (name, source) in &self.data {
            if name.len() > DATA_NAME_BYTES_MAX {
                let expected = format!("names of at most {DATA_NAME_BYTES_MAX} bytes");
                return Err(("data", expected, format!("{} bytes", name.len())));
            }
            source.check(name).map_err(|e| ("data", format!("{}: {}", e.field, e.allowed), e.value))?;
        }
        self.network.check(false)
    }
}

impl Shared {
    fn check(&self) -> Result<(), Wrong> {
        if self.database.is_empty() {
            return match self.bucket.is_empty() && self.replicas.is_empty() {
                true => Ok(()),
                false => Err(("shared.database", "the database that replicas share".into(), "none".into())),
            };
        }
        // The value may hold a password: it is not repeated.
        PgPlace::parse(&self.database).map_err(|_| {
            let expected = "postgres://user:password@host:port/database".into();
            ("shared.database", expected, "something else".to_owned())
        })?;
        if !self.bucket.starts_with("s3://") && !self.bucket.starts_with("file:///") {
            return Err(("shared.bucket", "s3://bucket/prefix or file:///folder".into(), format!("{:?}", self.bucket)));
        }
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            return Err(("shared.secret_key", "both keys, or none of them".into(), "one".into()));
        }
        if self.replicas.len() > REPLICAS_MAX {
            let expected = format!("at most {REPLICAS_MAX} replicas");
            return Err(("shared.replicas", expected, self.replicas.len().to_string()));
        }
        self.replicas.iter().try_for_each(|replica| place("shared.replicas", replica))?;
        if self.shard_sums == 1 {
            return Err(("shared.shard_sums", "at least 2, or 0".into(), "1".into()));
        }
        at_least("shared.lease_ms", LEASE_MS_MIN, self.lease_ms)
    }

    /// Where objects are.
    pub fn bucket_options(&self) -> BucketOptions {
        BucketOptions {
            url: self.bucket.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), Wrong> {
        at_least("limits.links_max", 1, self.links_max as u64)?;
        at_least("limits.links_per_peer_max", 1, self.links_per_peer_max as u64)?;
        at_least("limits.queue_mb_max", QUEUE_MB_MIN, self.queue_mb_max as u64)?;
        at_least("limits.stall_ms", 1, self.stall_ms)
    }
}

impl DeviceLimits {
    /// For the readers of data files.
    pub fn of_data(&self) -> crate::data::Limits {
        crate::data::Limits { file_bytes: self.file_mb_max.saturating_mul(1_000_000), ..crate::data::Limits::default() }
    }
}

impl Network {
    /// `replicas`: the cloud has several, under one key.
    fn check(&self, replicas: bool) -> Result<(), Wrong> {
        if !self.proxy.is_empty() && self.proxy.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(("network.proxy", "host:port".into(), self.proxy.clone()));
        }
        if !self.proxy_login.is_empty() && !self.proxy_login.contains(':') {
            // The value may be half a password: it is not repeated.
            return Err(("network.proxy_login", "user:password".into(), "a text without a colon".into()));
        }
        if !self.relay.is_empty() && !self.relay.starts_with("http") {
            return Err(("network.relay", "a URL such as https://relay.example".into(), self.relay.clone()));
        }
        if replicas && !self.relay.is_empty() {
            let expected = "none with replicas: they have one key, and a relay tells machines apart by their keys";
            return Err(("network.relay", expected.into(), self.relay.clone()));
        }
        Ok(())
    }

    pub fn mode(&self) -> Mode {
        match self.transport {
            TransportName::Auto => Mode::Auto,
            TransportName::Quic => Mode::Quic,
            TransportName::Tcp => Mode::Tcp,
        }
    }

    /// What the transports take.
    pub fn options(&self) -> AutoOptions {
        let login = self
            .proxy_login
            .split_once(':')
            .map(|(user, password)| ProxyLogin { user: user.into(), password: password.into() });
        let proxy = (!self.proxy.is_empty()).then(|| Proxy { host_port: self.proxy.clone(), login });
        let relay = (!self.relay.is_empty()).then(|| self.relay.clone());
        AutoOptions {
            mode: self.mode(),
            quic: QuicOptions { relay, ..QuicOptions::default() },
            tcp: TcpOptions { proxy, ..TcpOptions::default() },
            ..AutoOptions::default()
        }
    }
}

fn name(name: &str) -> Result<(), Wrong> {
    if name.len() > 64 || name.chars().any(char::is_control) {
        return Err(("name", "at most 64 bytes without control characters".into(), format!("{name:?}")));
    }
    Ok(())
}

fn log(level: &str) -> Result<(), Wrong> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    match LEVELS.contains(&level) {
        true => Ok(()),
        false => Err(("log", "error, warn, info, debug or trace".into(), format!("{level:?}"))),
    }
}

fn listen(listen: &str, advertise: &str) -> Result<(), Wrong> {
    let Some(at) = socket_address(listen) else {
        let expected = "an IP address and a port such as 127.0.0.1:7400";
        return Err(("listen", expected.into(), format!("{listen:?}")));
    };
    if at.ip().is_unspecified() && advertise.is_empty() {
        let expected = format!("a host name or address at which others reach this machine, since listen is {listen}");
        return Err(("advertise", expected, "nothing".into()));
    }
    if !advertise.is_empty() {
        // With or without a port.
        let zero = "0".repeat(64);
        let whole = [format!("{zero}@{advertise}"), format!("{zero}@{advertise}:1")];
        if whole.iter().all(|text| text.parse::<Address>().is_err()) {
            return Err(("advertise", "host or host:port".into(), format!("{advertise:?}")));
        }
    }
    Ok(())
}

fn address(field: &'static str, text: &str) -> Result<(), Wrong> {
    match text.parse::<Address>() {
        Ok(_) => Ok(()),
        Err(_) => Err((field, "key@host:port".into(), format!("{text:?}"))),
    }
}

fn place(field: &'static str, text: &str) -> Result<(), Wrong> {
    match format!("{}@{text}", "0".repeat(64)).parse::<Address>() {
        Ok(_) => Ok(()),
        Err(_) => Err((field, "host:port".into(), format!("{text:?}"))),
    }
}

fn at_least(field: &'static str, least: u64, value: u64) -> Result<(), Wrong> {
    match value >= least {
        true => Ok(()),
        false => Err((field, format!("at least {least}"), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_defaults() {
        assert_eq!(CloudConfig::parse(CloudConfig::SAMPLE_TOML, "").unwrap(), CloudConfig::default());
        assert_eq!(EdgeConfig::parse(EdgeConfig::SAMPLE_TOML, "").unwrap(), EdgeConfig::default());
        assert_eq!(DeviceConfig::parse(DeviceConfig::SAMPLE_TOML, "").unwrap(), DeviceConfig::default());
    }

    /// Every field of the default stands in the sample, so that the sample documents all of them.
    #[test]
    fn samples_have_every_field() {
        fn keys(value: &toml::Table, at: &str, out: &mut Vec<String>) {
            for (key, value) in value {
                match value {
                    toml::Value::Table(table) => keys(table, &format!("{at}{key}."), out),
                    _ => out.push(format!("{at}{key}")),
                }
            }
        }
        fn check<C: Config + Serialize>() {
            let (mut written, mut known) = (Vec::new(), Vec::new());
            keys(&C::SAMPLE_TOML.parse().unwrap(), "", &mut written);
            keys(&toml::Table::try_from(C::default()).unwrap(), "", &mut known);
            written.sort_unstable();
            known.sort_unstable();
            assert_eq!(written, known);
        }
        check::<CloudConfig>();
        check::<EdgeConfig>();
        check::<DeviceConfig>();
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let place = |toml: &str| {
            let error = DeviceConfig::parse(toml, "d.toml").unwrap_err();
            (error.line, error.field.clone(), error.expected.clone(), error.got)
        };
        let (line, field, expected, got) = place("name = \"a\"\nnetwrk = 1\n");
        assert_eq!((line, field.as_str(), got.as_str()), (2, "netwrk", "unknown field netwrk"));
        assert!(expected.contains("network"), "{expected}");
        let (line, field, expected, got) = place("\nthreads = \"two\"\n");
        assert_eq!((line, field.as_str()), (2, "threads"));
        assert_eq!((expected.as_str(), got.as_str()), ("a whole number of at least 0", "invalid type: string \"two\""));
        let (line, field, ..) = place("[network]\n\nproxy = \"here\"\n");
        assert_eq!((line, field.as_str()), (3, "network.proxy"));
        let (line, field, ..) = place("[data.x]\nfiles = [\"a.csv\"]\ndelimeter = \";\"\n");
        assert_eq!((line, field.as_str()), (3, "data.x.delimeter"));
    }

    #[test]
    fn an_error_is_one_line() {
        for toml in ["\0name = [\"", "\"a\\nb\" = 1", "[network]\nproxy = \"a\\u001b[2J\"", "cloud = \"\\r\""] {
            let error = DeviceConfig::parse(toml, "d.toml").unwrap_err();
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn an_open_door_needs_a_name() {
        let refused = CloudConfig::parse("listen = \"0.0.0.0:7400\"", "c").unwrap_err();
        assert_eq!(refused.field, "advertise");
        for advertise in ["cloud.example", "cloud.example:7401", "10.0.0.7"] {
            let toml = format!("listen = \"0.0.0.0:7400\"\nadvertise = \"{advertise}\"");
            assert!(CloudConfig::parse(&toml, "c").is_ok(), "{advertise}");
        }
    }

    #[test]
    fn replicas_and_a_relay_do_not_go_together() {
        let relay = "[network]\nrelay = \"https://relay.example\"\n";
        assert!(EdgeConfig::parse(relay, "e").is_ok() && CloudConfig::parse(relay, "c").is_ok());
        let shared = "[shared]\ndatabase = \"postgres://a@db.example/a\"\nbucket = \"file:///b\"\n";
        assert!(CloudConfig::parse(shared, "c").is_ok());
        assert_eq!(CloudConfig::parse(&format!("{shared}{relay}"), "c").unwrap_err().field, "network.relay");
        let replicas = "replicas = [\"cloud-1.example:7400\"]\n";
        assert_eq!(EdgeConfig::parse(&format!("{replicas}{relay}"), "e").unwrap_err().field, "network.relay");
    }

    #[test]
    fn a_half_password_is_not_repeated() {
        let error = CloudConfig::parse("[network]\nproxy_login = \"s3cret\"", "c").unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
    }
}
