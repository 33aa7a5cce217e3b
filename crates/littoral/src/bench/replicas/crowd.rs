//! Many devices in one process, each with a folder, a key, a store and a socket of its own: the role that `littoral device`
//! runs, started as it starts it.

use super::broken;
use crate::output::{Failure, talk};
use crate::serve::end_of_input;
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::deploy::{Running, start_device};
use littoral_node::role::Report;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Devices that start at a time.
const AT_A_TIME: usize = 16;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A file with the devices' folders, one a line.
    folders: PathBuf,
}

/// Runs them until standard input ends.
pub fn run(args: &Args) -> Result<(), Failure> {
    let folders = fs::read_to_string(&args.folders).map_err(|e| broken(&e))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| broken(&e))?.block_on(async {
        let mut folders = folders.lines().map(PathBuf::from);
        let (mut starting, mut running): (JoinSet<Result<Running, Failure>>, _) = (JoinSet::new(), Vec::new());
        loop {
            while starting.len() < AT_A_TIME
                && let Some(folder) = folders.next()
            {
                starting.spawn(start(folder));
            }
            let Some(started) = starting.join_next().await else { break };
            running.push(started.map_err(|e| broken(&e))??);
        }
        talk(&format!("{} devices run", running.len()));
        end_of_input().await;
        let mut stopping = JoinSet::new();
        running.into_iter().for_each(|device| drop(stopping.spawn(device.stop())));
        while let Some(stopped) = stopping.join_next().await {
            stopped.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
        }
        Ok(())
    })
}

async fn start(folder: PathBuf) -> Result<Running, Failure> {
    let (config, base) = DeviceConfig::load(None, Some(&folder))?;
    let on_report = Arc::new(|report| {
        if let Report::Warning { what } = report {
            talk(&what);
        }
    });
    Ok(start_device(&config, &base, on_report).await?)
}
