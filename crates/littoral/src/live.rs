//! The live fleet, measured: this machine as the head, and machines that run `littoral stage`.

use crate::llm;
use crate::memory;
use crate::output::Failure;
use littoral_infer::split::measured::{self, Measured};
use littoral_infer::split::plan::{Fleet, PlanError};
use littoral_node::split::{Rates, survey};
use littoral_node::transport::{Address, Identity};
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::Profile;
use std::path::{Path, PathBuf};

/// What the head is called in plans.
const HEAD: &str = "head";

pub struct Live {
    pub head: Profile,
    /// In the order in which they were given; or why one was not measured.
    pub machines: Vec<(Address, Result<Measured, String>)>,
}

impl Live {
    /// `digest`: BLAKE3 of the model's file. The head first, then one machine after the other. Must run inside a runtime.
    pub async fn measure(
        model: &Path,
        digest: [u8; 32],
        identity: &Identity,
        stages: &[Address],
        pool: &Pool,
    ) -> Result<Self, Failure> {
        let memory_bytes = memory::available_bytes();
        let rates = Rates::of_layers(&llm::map(model)?, memory_bytes, pool);
        let rates =
            rates.map_err(|e| Failure::new("this machine was not measured", "the head", "layers to time", e))?;
        let head = Profile {
            name: HEAD.into(),
            host: memory::host(),
            memory_bytes,
            // It packs no layers beforehand.
            disk_free_bytes: 0,
            disk_read_bytes_per_s: 0,
            read_bytes_per_s: rates.read_bytes_per_s,
            prefill_flops_per_s: rates.prefill_flops_per_s,
            timed_bytes: rates.timed_bytes,
        };
        let found = survey::survey(identity, stages, digest).await?;
        Ok(Self { head, machines: stages.iter().cloned().zip(found).collect() })
    }

    /// Takes out those that can have no layers: what each calls itself, and why.
    pub fn take_out(&mut self) -> Vec<(String, &'static str)> {
        let mut out = Vec::new();
        self.machines.retain(|(_, found)| {
            let why = found.as_ref().ok().and_then(|found| Some((found.profile.name.to_string(), found.out()?)));
            let stays = why.is_none();
            out.extend(why);
            stays
        });
        out
    }

    /// All of them, which must have been measured.
    pub fn fleet(&self) -> Result<Fleet, Failure> {
        let each = self.machines.iter().map(|(address, found)| {
            found.clone().map_err(|why| {
                Failure::new("the fleet was not measured", address.to_string(), "a stage that answers", why)
                    .hint("each machine runs `littoral stage --allow KEY` with the key of this one")
            })
        });
        let measured: Vec<Measured> = each.collect::<Result<_, _>>()?;
        measured::fleet(&self.head, &measured).map_err(|e: PlanError| {
            let (place, expected, got) = e.parts();
            Failure::new("the fleet was not measured", place, expected, got)
        })
    }
}

/// The folder with this machine's key, by which stages know it.
pub fn folder(dir: Option<&Path>) -> Result<PathBuf, Failure> {
    match dir {
        Some(dir) => Ok(dir.to_owned()),
        None => Ok(crate::sources::home()?.join("serve")),
    }
}
