//! Rewrites the published vectors: `cargo run -p littoral-wire --example vectors`.
//!
//! With a folder as argument it writes them there as the fuzz targets' first inputs instead, one folder per target.

#[path = "../vectors/vectors.rs"]
mod vectors;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let corpus = std::env::args_os().nth(1);
    for file in vectors::files() {
        let Some(corpus) = &corpus else {
            std::fs::write(published.join(file.name).with_extension("txt"), file.text())?;
            continue;
        };
        // What must be refused begins with the name of the decoder that must refuse it.
        for (index, vector) in file.vectors.iter().enumerate() {
            let target =
                if file.name == "refused" { vector.says.split(':').next().unwrap_or("message") } else { file.name };
            let folder = Path::new(corpus).join(target);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(format!("{}-{index}", file.name)), &vector.bytes)?;
        }
    }
    Ok(())
}
