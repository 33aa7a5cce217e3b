//! `littoral key`: the public key of a machine's folder, which others are told with `--allow` before the machine is started.

use crate::output::Failure;
use crate::{live, output, stage};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder of the machine, as its `--dir` will be; by default that of `littoral serve`. A key is made if it has none.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let dir = live::folder(args.dir.as_deref())?;
    let key = stage::identity(&dir)?.id().to_string();
    match as_json {
        true => output::object(&json!({"key": key, "dir": dir.display().to_string()})),
        false => output::line(&key),
    }
    Ok(())
}
