//! A role that runs, and how it is stopped.

use super::DeployError;
use crate::config::{DeviceLimits, Limits};
use crate::host::{self, Handle, HostError, OnReport, PeerBytes, Traffic};
use crate::role::{Report, Role};
use crate::store::{Collected, DirectoryLock, FileObjects};
use littoral_wire::NodeId;
use std::sync::Arc;

/// A running cloud, edge or device.
pub struct Running {
    pub id: NodeId,
    pub name: String,
    /// `host:port` at which others reach it; devices have none.
    pub address: Option<String>,
    pub(super) handle: Handle,
    /// The folder, where no store holds it.
    pub(super) _lock: Option<DirectoryLock>,
}

impl Running {
    /// Runs until `stop` is ready or the store fails for good; then says goodbye and returns.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> Result<(), DeployError> {
        tokio::select! {
            ended = self.handle.ended() => return Ok(ended?),
            () = stop => {}
        }
        Ok(self.handle.stop().await?)
    }

    pub async fn stop(self) -> Result<(), HostError> {
        self.handle.stop().await
    }

    /// The counters themselves, which outlive the run.
    pub fn traffic(&self) -> Arc<Traffic> {
        self.handle.traffic()
    }

    /// Bytes that all connections moved so far.
    pub fn bytes(&self) -> PeerBytes {
        self.handle.bytes_total()
    }
}

/// Reports as lines of the log.
pub fn log_report() -> OnReport {
    Arc::new(|report| match report {
        Report::Warning { what } => tracing::warn!("{what}"),
        Report::Note { what } => tracing::info!("{what}"),
        Report::Version { collection, version, included, line, .. } => {
            let percent = |accuracy: f64| format!(", accuracy {accuracy:.4}");
            tracing::info!(
                "job {}: version {version} of {} devices in {} ms{}",
                collection.job,
                included.len(),
                line.took_ms,
                line.accuracy.map_or(String::new(), percent),
            );
        }
        Report::Settled { collection, included } => {
            let word = if included { "included" } else { "not included" };
            tracing::info!("job {}: version {}: our update was {word}", collection.job, collection.version);
        }
        Report::Aborted { collection, why } => {
            tracing::warn!("job {}: version {} starts again: {why}", collection.job, collection.version);
        }
        Report::Finished { job, why } => tracing::info!("job {job} is at its end: {why}"),
    })
}

/// What a crash left in the folder and the role does not need goes, before the role starts. A disk that refuses is no
/// reason not to start.
pub(super) fn collect(objects: &FileObjects, role: &dyn Role, on_report: &OnReport) {
    match objects.collect(|object| role.needs(object)) {
        Ok(Collected { dropped: 0, left: 0 }) => {}
        Ok(Collected { dropped, left }) => {
            let what = format!(
                "objects of the last run that nothing refers to: {dropped} were dropped, {left} that had partly arrived \
                 stay until the next start"
            );
            on_report(Report::Note { what });
        }
        Err(e) => on_report(Report::Warning { what: format!("objects that nothing refers to were not dropped: {e}") }),
    }
}

/// The host's settings. `threads` 0: one per core. `holder`: who leases jobs; devices and edges lease none.
pub(super) fn host_settings(threads: usize, limits: &Limits, holder: Option<String>) -> host::Settings {
    let default = host::Settings::default();
    host::Settings {
        threads: if threads == 0 { default.threads } else { threads },
        links_max: limits.links_max,
        links_per_peer_max: limits.links_per_peer_max,
        queue_bytes_max: limits.queue_mb_max.saturating_mul(1_000_000),
        stall_ms: limits.stall_ms,
        holder,
        ..default
    }
}

impl DeviceLimits {
    /// A device accepts nothing; the rest is as on other machines.
    pub(super) fn of_links(&self) -> Limits {
        Limits { queue_mb_max: self.queue_mb_max, stall_ms: self.stall_ms, ..Limits::default() }
    }
}
