//! The errors of the packages below, in the four parts that are printed, with what to do next.

use crate::output::Failure;
use littoral_node::config::ConfigError;
use littoral_node::deploy::replay::ReplayError;
use littoral_node::deploy::{DeployError, SessionError};
use littoral_node::host::keys::KeyError;
use littoral_node::job::JobError;
use littoral_node::operator::OperatorError;
use littoral_node::store::StoreError;
use littoral_node::transport::TransportError;

pub fn of_usage(usage: &clap::Error) -> Failure {
    use clap::error::{ContextKind, ContextValue};
    let part = |kind| match usage.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    let place = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].map(part).concat();
    let got = part(ContextKind::InvalidValue);
    let expected = match [ContextKind::ValidValue, ContextKind::ValidSubcommand].map(part).concat() {
        none if none.is_empty() => "usage as in --help".to_owned(),
        values => values,
    };
    let first = usage.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Failure::new("wrong usage", place, expected, if got.is_empty() { first } else { got })
}

impl From<ConfigError> for Failure {
    fn from(e: ConfigError) -> Self {
        Failure::new("the configuration was refused", e.place(), e.expected, e.got)
            .hint("`littoral cloud|edge|device --sample` prints a commented sample")
    }
}

impl From<JobError> for Failure {
    fn from(e: JobError) -> Self {
        Failure::new("the job was refused", e.place, e.expected, e.got)
            .hint("`littoral job sample` prints a commented job that runs")
    }
}

impl From<TransportError> for Failure {
    fn from(e: TransportError) -> Self {
        let what = e.to_string();
        match e {
            TransportError::InvalidAddress { expected, got } => Failure::new("not an address", "", expected, got),
            TransportError::Bind { kind, at, got } => {
                Failure::new("nothing listens", format!("{at} ({kind})"), "an address that is free", got)
                    .hint("give another port with `listen`, or port 0 for a free one")
            }
            TransportError::WrongPeer { at, expected, got, .. } => {
                Failure::new("another machine answers there", at, format!("the key {expected}"), got)
            }
            TransportError::Unreachable { address, got, .. } => {
                Failure::new("no connection", address.to_string(), "an answer", got).hint("is it running?")
            }
            TransportError::NoWay { address, tcp, .. } => {
                Failure::new("no connection", address.to_string(), "an answer over TCP or QUIC", tcp)
                    .hint("is it running, and does a firewall let its port through?")
            }
            _ => Failure { what, ..Failure::default() },
        }
    }
}

impl From<SessionError> for Failure {
    fn from(e: SessionError) -> Self {
        match e {
            SessionError::Transport(e) => e.into(),
            SessionError::Hello { at, why } => Failure::new("no conversation", at, "", why),
            SessionError::Malformed { at, got } => {
                Failure::new("no conversation", at, "a message of this release", got)
            }
            SessionError::Silent { at, limit_s } => {
                Failure::new("no answer", at, format!("one within {limit_s} s"), "none")
            }
            SessionError::HungUp { at, reason } => Failure::new("the other side hung up", at, "", reason),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(e: KeyError) -> Self {
        match e {
            KeyError::OpenToOthers { path, got } => {
                let place = path.display().to_string();
                Failure::new("the key was not used", &place, "mode 600", format!("mode {got:03o}"))
                    .hint(format!("others may have read it; if not: chmod 600 {place}"))
            }
            other => Failure { what: other.to_string(), ..Failure::default() },
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        let what = e.to_string();
        match e {
            StoreError::InUse { dir, pid } => {
                let place = dir.display().to_string();
                Failure::new("the folder is in use", place, "a folder of its own", format!("process {pid}"))
                    .hint("stop that process, or give --dir")
            }
            StoreError::Corrupt { path, why } => {
                Failure::new("the store is damaged", path.display().to_string(), "an intact database", why)
                    .hint("it was left as it is: restore a copy, or start in an empty folder")
            }
            _ => Failure { what, ..Failure::default() },
        }
    }
}

impl From<DeployError> for Failure {
    fn from(e: DeployError) -> Self {
        let what = e.to_string();
        match e {
            DeployError::Store(e) => e.into(),
            DeployError::Key(e) => e.into(),
            DeployError::Transport(e) => e.into(),
            DeployError::Session(e) => e.into(),
            DeployError::Host(_) => Failure { what, ..Failure::default() },
            DeployError::Denied { what, place, expected, got } => Failure::new(what, place, expected, got),
            DeployError::NotEnrolled { dir } => {
                let expected = "an enrolment, or `cloud` and `upstreams` in the configuration";
                Failure::new("this machine is not enrolled", dir.display().to_string(), expected, "none")
                    .hint("ask for a ticket (`littoral fleet ticket --role device`) and run `littoral join TICKET`")
            }
            DeployError::NotWhole { dir, missing, beside } => {
                let (place, expected) = (dir.display().to_string(), format!("{missing} beside {beside}"));
                Failure::new("this state folder is not whole", place, expected, "none: it was lost").hint(
                    "restore the folder from a copy; or start anew in an empty one, a device or an edge with a new ticket",
                )
            }
            DeployError::File { path, expected, got } => {
                Failure::new("a file cannot be used", path.display().to_string(), expected, got)
            }
            DeployError::Field { field, expected, got } => {
                Failure::new("the configuration was refused", field, expected, got)
            }
        }
    }
}

impl From<OperatorError> for Failure {
    fn from(e: OperatorError) -> Self {
        match e {
            OperatorError::Session(e) => e.into(),
            OperatorError::Refused { what, place, expected, got } => Failure::new(what, place, expected, got),
            other => Failure { what: other.to_string(), ..Failure::default() },
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(e: ReplayError) -> Self {
        let what = e.to_string();
        match e {
            ReplayError::Record { place, expected, got } => {
                Failure::new("the record cannot be repeated", place, expected, got)
            }
            ReplayError::NoDevice { version, device } => {
                let expected = "a folder with its device.toml";
                Failure::new(
                    "the record cannot be repeated",
                    format!("version {version}, device {device}"),
                    expected,
                    "none",
                )
            }
            _ => Failure { what, ..Failure::default() },
        }
    }
}
