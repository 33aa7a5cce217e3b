//! `littoral inspect FILE`: what a model file holds.
//!
//! Only the head of the file is read, whatever its size: the weights' bytes are not touched.

mod gguf;
mod report;
mod safetensors;

use crate::output::Failure;
use littoral_tensor::Mapped;
use report::Contents;
use std::fs::File;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A model file, GGUF or safetensors, or the name of a model that is here.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// List all tensors, too.
    #[arg(long)]
    tensors: bool,
}

pub fn run(args: Args, json: bool) -> Result<(), Failure> {
    let file = crate::named::here(&args.file)?.path;
    let bytes = mapped(&file)?;
    let contents = contents(&bytes).map_err(|fault| fault.of(&file))?;
    if json {
        contents.print_json(&file, bytes.len(), args.tensors);
    } else {
        contents.print(&file, bytes.len(), args.tensors);
    }
    Ok(())
}

/// A format is known by its first bytes, not by the file's name: that of safetensors is a length and then a JSON object.
fn contents(bytes: &[u8]) -> Result<Contents, Fault> {
    if !bytes.starts_with(b"GGUF") && bytes.get(8) == Some(&b'{') {
        return safetensors::contents(bytes);
    }
    gguf::contents(bytes).map_err(|e| {
        let (place, expected, got) = e.parts();
        Fault { place, expected, got }
    })
}

fn mapped(path: &Path) -> Result<Mapped, Failure> {
    let refused = |got: String| Failure::new("the file was not read", path.display().to_string(), "a model file", got);
    // Asked before it is opened: opening a pipe waits for somebody who writes.
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(found) if found.is_dir() => return Err(refused("a folder".to_owned())),
        Ok(_) => return Err(refused("a pipe or a device".to_owned())),
        Err(e) => return Err(refused(e.to_string())),
    }
    File::open(path).and_then(|file| Mapped::new(&file)).map_err(|e| refused(e.to_string()))
}

/// What is wrong within a file.
struct Fault {
    place: String,
    expected: String,
    got: String,
}

impl Fault {
    fn of(self, path: &Path) -> Failure {
        let place = format!("{}: {}", path.display(), self.place);
        Failure::new("the model file was refused", place, self.expected, self.got)
    }
}
