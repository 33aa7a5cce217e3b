//! `littoral job model`: the current model as a file.

use crate::input::runtime;
use crate::output::{self, Failure};
use crate::reach::Reach;
use littoral_node::deploy::{safetensors, whole};
use littoral_node::job::JobSpec;
use littoral_node::role::cloud::command::Command as Order;
use littoral_wire::JobId;
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Fetches beside `file`, checks, writes, and only then puts it in place.
pub fn export(job: u64, file: &Path, reach: &Reach, json: bool) -> Result<(), Failure> {
    let (fetched, unfinished) = (file.with_extension("fetched"), file.with_extension("unfinished"));
    let done = export_by_way_of(job, file, &fetched, &unfinished, reach);
    for leftover in [fetched, unfinished] {
        let _ = fs::remove_file(leftover);
    }
    let (version, model) = done?;
    let shown = file.display().to_string();
    if json {
        output::object(&json!({"job": job, "version": version, "model": model, "file": shown}));
    } else {
        output::line(&format!("{shown}: version {version} of job {job}"));
    }
    Ok(())
}

fn export_by_way_of(
    job: u64,
    file: &Path,
    fetched: &Path,
    unfinished: &Path,
    reach: &Reach,
) -> Result<(u64, String), Failure> {
    let not_written =
        |e: &dyn std::fmt::Display| Failure::new("the model was not written", file.display().to_string(), "a file", e);
    let (reply, version, model) = runtime()?.block_on(async {
        let mut operator = reach.dial().await?;
        let reply = operator.ask(&Order::JobShow { job }).await?;
        let (version, manifest, before) = operator.model(JobId(job)).await?;
        let mut out = BufWriter::new(File::create(fetched).map_err(|e| not_written(&e))?);
        let spec = JobSpec::parse(reply["spec"].as_str().unwrap_or_default())?;
        if spec.downlink().is_some() {
            let mut parts = Vec::new();
            for object in before.iter().chain([&manifest]) {
                let mut part = Vec::new();
                operator.fetch(object, &mut part).await?;
                parts.push(part);
            }
            out.write_all(&whole(&spec, parts).map_err(|e| not_written(&e))?).map_err(|e| not_written(&e))?;
        } else {
            operator.fetch(&manifest, &mut out).await?;
        }
        out.flush().map_err(|e| not_written(&e))?;
        operator.close().await;
        Ok::<_, Failure>((reply, version, manifest.id()))
    })?;
    let spec = JobSpec::parse(reply["spec"].as_str().unwrap_or_default())?;
    let mut object = File::open(fetched).map_err(|e| not_written(&e))?;
    let mut out = BufWriter::new(File::create(unfinished).map_err(|e| not_written(&e))?);
    safetensors(&spec, &mut object, &mut out).map_err(|e| not_written(&e))?;
    out.flush().map_err(|e| not_written(&e))?;
    fs::rename(unfinished, file).map_err(|e| not_written(&e))?;
    Ok((version, model.to_string()))
}
