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
            TransportError::InvalidAddress { expected, got } => {
                Failure::new("not an address", "an address", expected, got)
            }
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
            TransportError::Proxy { proxy, target, got } => {
                Failure::new("no way through the proxy", proxy, format!("`200` to CONNECT {target}"), got)
            }
            TransportError::NotListening { id, .. } | TransportError::TransportClosed { id, .. } => {
                Failure::new("no connection", id.to_string(), "an open transport", what)
            }
            TransportError::Handshake { at, .. }
            | TransportError::Timeout { at, .. }
            | TransportError::FrameTooLarge { at, .. }
            | TransportError::BadClosing { at, .. }
            | TransportError::Closed { at, .. }
            | TransportError::Lost { at, .. } => Failure::new("the connection broke", at, "an answer", what),
        }
    }
}

impl From<SessionError> for Failure {
    fn from(e: SessionError) -> Self {
        match e {
            SessionError::Transport(e) => e.into(),
            SessionError::Hello { at, why } => Failure::new("no conversation", at, "a machine of this release", why),
            SessionError::Malformed { at, got } => {
                Failure::new("no conversation", at, "a message of this release", got)
            }
            SessionError::Silent { at, limit_s } => {
                Failure::new("no answer", at, format!("one within {limit_s} s"), "none")
            }
            SessionError::HungUp { at, reason } => Failure::new("no answer", at, "one", format!("a goodbye: {reason}")),
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
            KeyError::NotAKey { path, got } => {
                let place = path.display().to_string();
                Failure::new("the key was not used", place, "64 hexadecimal digits", format!("{got} bytes of others"))
                    .hint("restore the file from a copy: a key cannot be made again")
            }
            KeyError::File { path, source } => {
                Failure::new("the key was not used", path.display().to_string(), "a key file", source)
            }
            KeyError::Random(e) => Failure::new("no key was made", "the operating system", "random bytes", e),
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
            StoreError::Newer { path, known, got } => {
                let expected = format!("a schema of at most {known}");
                Failure::new("the store is of a newer release", path.display().to_string(), expected, got)
                    .hint("install the release that wrote it")
            }
            StoreError::DiskFull { path } => {
                Failure::new("the disk is full", path.display().to_string(), "room to write", "none left")
            }
            StoreError::Disk { path, why } => {
                Failure::new("the store cannot be used", path.display().to_string(), "a folder to write in", why)
            }
            StoreError::Database { at, why, passes } => {
                let failure =
                    Failure::new("the shared store cannot be used", at, "a database and a bucket that answer", why);
                match passes {
                    true => failure.hint("start it again: nothing that was promised is lost"),
                    false => failure.hint("look at [shared] in cloud.toml"),
                }
            }
            StoreError::NotLeased { .. }
            | StoreError::Fenced { .. }
            | StoreError::Held { .. }
            | StoreError::Object(_)
            | StoreError::Closed => Failure::new(
                "the store cannot be used",
                "the state folder",
                "this process alone, and whole files",
                what,
            ),
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
            DeployError::Host(_) => Failure::new("the role ended", "this machine", "a run until it is stopped", what)
                .hint("start it again: what it had promised is stored"),
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
            OperatorError::TooLong { max, got } => {
                Failure::new("the command was not sent", "its text", format!("at most {max} bytes"), got)
            }
            OperatorError::AnswerTooLong { max, got } => {
                Failure::new("no answer that can be read", "the cloud's reply", format!("at most {max} bytes"), got)
            }
            OperatorError::Malformed { expected, got } => {
                Failure::new("no answer that can be read", "the cloud's reply", expected, got)
            }
            OperatorError::Chunk(e) => {
                Failure::new("the model did not arrive", "a chunk of it", "the bytes that its manifest names", e)
            }
            OperatorError::Gone { index } => {
                Failure::new("the model did not arrive", format!("chunk {index}"), "one that the cloud has", "none")
                    .hint("a newer version has taken its place: ask again")
            }
            OperatorError::Random(e) => Failure::new("no command was sent", "the operating system", "random bytes", e),
            OperatorError::Write(e) => Failure::new("the model was not written", "the file", "room to write", e),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(e: ReplayError) -> Self {
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
            ReplayError::Device { version, device, fault } => {
                let place = format!("version {version}, device {device}");
                Failure::new("the record cannot be repeated", place, "the device's part as it was", fault)
            }
            ReplayError::Apply { version, fault } => {
                let expected = "a sum that makes the next version";
                Failure::new("the record cannot be repeated", format!("version {version}"), expected, fault)
            }
            ReplayError::Sum { version, device, why } => {
                let place = format!("version {version}, device {device}");
                Failure::new("the record cannot be repeated", place, "an update that fits into the sum", why)
            }
            ReplayError::Object(e) => {
                Failure::new("the record cannot be repeated", "the temporary folder", "whole files", e)
            }
        }
    }
}
