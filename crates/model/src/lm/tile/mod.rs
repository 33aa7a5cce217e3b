//! A tile: one layer of a model in one file, as the kernels read it.
//!
//! A machine of a split has the layers that it computes, and perhaps its neighbour's, as tiles. A tile is made from a stage,
//! travels as any bytes do, and is used where it lies: [`Tile::read`] of a mapped file copies the few vectors and looks at
//! nothing else. Equal layers have equal tiles, byte for byte, on whichever machine they were made, so that the hash of a
//! tile is its name.
//!
//! ```text
//! "LIT-TILE", version                     8 bytes, u32
//! kernels, numbers of the model, layer    header.rs
//! 9 x vector:  elements, offset           u32 (0: none), u64
//! 7 x matrix:  kind, rows, columns, offset    u32 as in GGUF, u32, u32, u64
//! the vectors, f32; then the matrices, strips of sixteen rows; each from a multiple of 64 on, zeros between
//! ```
//! Numbers are little-endian. Shapes and offsets follow from the numbers before; they are written for other readers, and
//! refused if they say anything else, so that no two files are one tile.
//!
//! Not here: whether bytes are those that somebody meant (their hash says so), and where files are.

mod header;
#[cfg(test)]
mod tests;

use super::check::ConfigError;
use super::config::Config;
use super::layer::Layer;
use super::stage::Stage;
use header::{Fields, put_f32s, put_u32};
use littoral_tensor::quant::{Arena, Kind, Matrix, MatrixError, Shared};
use std::io;
use std::ops::Range;
use thiserror::Error;

const ALIGNMENT: usize = 64;
const TABLE_BYTES: usize = 9 * (4 + 8) + 7 * (4 + 4 + 4 + 8);

/// Why bytes are no tile that runs here, or tiles no stage.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TileError {
    #[error("tile: at least {expected} bytes expected, got {got}")]
    Short { expected: usize, got: usize },
    #[error("tile, {field}: {expected} expected, got {got}")]
    Field { field: String, expected: String, got: String },
    #[error("tile, {0}")]
    Config(#[from] ConfigError),
    #[error("tile, {name}: {error}")]
    Matrix { name: &'static str, error: MatrixError },
}

impl TileError {
    fn field(field: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Self::Field { field: field.to_string(), expected: expected.to_string(), got: got.to_string() }
    }
}

/// One layer, and the numbers of the model that it is of.
#[derive(Debug)]
pub struct Tile {
    config: Config,
    index: usize,
    layer: Layer,
}

impl Tile {
    /// Writes layer `index` of the model, which the stage has.
    ///
    /// # Panics
    /// If the stage does not have it.
    pub fn write(stage: &Stage, index: usize, out: &mut impl io::Write) -> io::Result<()> {
        let (layer, vectors, kinds) = parts(stage, index);
        let (header, places) = header(&stage.config, index, &vectors, &kinds);
        out.write_all(&header)?;
        let mut at = header.len();
        let mut put = |place: &Range<usize>, bytes: &[u8]| -> io::Result<()> {
            out.write_all(&[0; ALIGNMENT][..place.start - at])?;
            at = place.end;
            out.write_all(bytes)
        };
        let (of_vectors, of_matrices) = places.split_at(vectors.len());
        for (place, vector) in of_vectors.iter().zip(layer.vectors()) {
            let mut bytes = Vec::with_capacity(place.len());
            put_f32s(vector, &mut bytes);
            put(place, &bytes)?;
        }
        of_matrices.iter().zip(layer.matrices()).try_for_each(|(place, matrix)| put(place, matrix.packed()))
    }

    /// Bytes that [`Self::write`] writes. Panics as it does.
    pub fn bytes_of(stage: &Stage, index: usize) -> usize {
        let (_, vectors, kinds) = parts(stage, index);
        let (_, places) = header(&stage.config, index, &vectors, &kinds);
        places.last().map_or(0, |place| place.end)
    }

    /// The layer in these bytes, all of a file. Matrices stay where they are, from a multiple of 64 on if the file does.
    pub fn read(bytes: &Shared) -> Result<Self, TileError> {
        let mut fields = Fields::of(bytes);
        let (config, index) = fields.start()?;
        let mut table = fields.clone();
        let mut vectors = [0; 9];
        for ((name, expected, always), len) in vectors_of(&config).into_iter().zip(&mut vectors) {
            *len = table.usize()?;
            table.u64()?;
            if *len != expected && (always || *len > 0) {
                let expected = format!("{expected} elements{}", if always { "" } else { ", or none" });
                return Err(TileError::field(name, expected, *len));
            }
        }
        let mut kinds = [Kind::F32; 7];
        for ((name, ..), kind) in matrices_of(&config).into_iter().zip(&mut kinds) {
            let code = table.u32()?;
            *kind = Kind::of_code(code).ok_or_else(|| TileError::field(name, "a kind of weights", code))?;
            table.bytes(4 + 4 + 8)?;
        }
        for ((name, rows, columns), kind) in matrices_of(&config).into_iter().zip(kinds) {
            Matrix::packed_bytes(kind, rows, columns).map_err(|error| TileError::Matrix { name, error })?;
        }
        let (expected, places) = header(&config, index, &vectors, &kinds);
        let got = &bytes[..table.at()];
        if let Some(at) = (0..got.len()).find(|at| got.get(*at) != expected.get(*at)) {
            return Err(TileError::field("header", format!("{} at byte {at}", expected[at]), got[at]));
        }
        let end = places.last().map_or(0, |place| place.end);
        if bytes.len() != end {
            return Err(TileError::field("file", format!("{end} bytes"), bytes.len()));
        }
        let starts = places.iter().map(|place| place.start);
        let ends = [got.len()].into_iter().chain(places.iter().map(|place| place.end));
        if let Some(at) = ends.zip(starts).flat_map(|(end, start)| end..start).find(|at| bytes[*at] != 0) {
            return Err(TileError::field("padding", format!("0 at byte {at}"), bytes[at]));
        }
        Ok(Self { layer: layer(&config, bytes, &places, &kinds)?, config, index })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which layer of the model.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The same layer in the arena's memory: what it was read from is not needed any more.
    pub fn copy_into(mut self, arena: &mut Arena) -> Result<Self, TileError> {
        let Layer { q, k, v, o, gate, up, down, .. } = &mut self.layer;
        for ((name, ..), matrix) in matrices_of(&self.config).into_iter().zip([q, k, v, o, gate, up, down]) {
            *matrix = matrix.copy_into(arena).map_err(|error| TileError::Matrix { name, error })?;
        }
        Ok(self)
    }
}

impl Stage {
    /// A stage without the ends of tiles that follow one another: those of `range`, in order.
    ///
    /// # Errors
    /// There are none, others, or models with other numbers. Whether weights are of one model the tiles' names say.
    pub fn from_tiles(range: Range<usize>, tiles: Vec<Tile>) -> Result<Self, TileError> {
        let stage = format!("stage of layers {} to {}", range.start, range.end);
        let Some(first) = tiles.first().filter(|_| tiles.len() == range.len()) else {
            let expected = format!("{} tiles, at least 1", range.len());
            return Err(TileError::field(stage, expected, tiles.len()));
        };
        let config = first.config.clone();
        for (index, tile) in range.clone().zip(&tiles) {
            if tile.index != index {
                return Err(TileError::field(stage, format!("layer {index}"), format!("layer {}", tile.index)));
            }
            if tile.config != config {
                let expected = format!("numbers of the model as in layer {}", range.start);
                return Err(TileError::field(stage, expected, format!("others in layer {index}")));
            }
        }
        let layers = tiles.into_iter().map(|tile| tile.layer).collect();
        Ok(Self { config, range, layers, ends: None })
    }
}

/// A layer with what says how it lies.
fn parts(stage: &Stage, index: usize) -> (&Layer, [usize; 9], [Kind; 7]) {
    assert!(stage.range.contains(&index), "layer {index} of a stage of {:?}", stage.range);
    let layer = &stage.layers[index - stage.range.start];
    (layer, layer.vectors().map(<[f32]>::len), layer.matrices().map(Matrix::kind))
}

/// Everything before the first vector, and where vectors and matrices lie. Places that are no numbers end at [`usize::MAX`],
/// where no file does.
fn header(config: &Config, index: usize, vectors: &[usize; 9], kinds: &[Kind; 7]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut out = header::start(config, index);
    let mut end = out.len() + TABLE_BYTES;
    let mut places = Vec::with_capacity(16);
    let mut place = |bytes: usize, out: &mut Vec<u8>| {
        let start = end.checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX);
        end = start.saturating_add(bytes);
        out.extend((start as u64).to_le_bytes());
        places.push(start..end);
    };
    for len in vectors {
        put_u32(*len, &mut out);
        place(4 * len, &mut out);
    }
    for ((_, rows, columns), kind) in matrices_of(config).into_iter().zip(kinds) {
        out.extend(kind.code().to_le_bytes());
        put_u32(rows, &mut out);
        put_u32(columns, &mut out);
        place(Matrix::packed_bytes(*kind, rows, columns).unwrap_or(usize::MAX), &mut out);
    }
    (out, places)
}

/// Names, elements, and whether each layer has it: in the order of [`Layer::vectors`].
fn vectors_of(config: &Config) -> [(&'static str, usize, bool); 9] {
    let Config { width, head_width, .. } = *config;
    let (q_rows, kv_rows) = (config.heads * head_width, config.kv_heads * head_width);
    [
        ("attn_norm", width, true),
        ("attn_q bias", q_rows, false),
        ("attn_k bias", kv_rows, false),
        ("attn_v bias", kv_rows, false),
        ("attn_q_norm", head_width, false),
        ("attn_k_norm", head_width, false),
        ("post_attention_norm", width, false),
        ("ffn_norm", width, true),
        ("post_ffw_norm", width, false),
    ]
}

/// Names, rows and columns in the order of [`Layer::matrices`].
fn matrices_of(config: &Config) -> [(&'static str, usize, usize); 7] {
    let Config { width, inner, .. } = *config;
    let (q_rows, kv_rows) = (config.heads * config.head_width, config.kv_heads * config.head_width);
    [
        ("attn_q", q_rows, width),
        ("attn_k", kv_rows, width),
        ("attn_v", kv_rows, width),
        ("attn_output", width, q_rows),
        ("ffn_gate", inner, width),
        ("ffn_up", inner, width),
        ("ffn_down", width, inner),
    ]
}

impl Layer {
    fn vectors(&self) -> [&[f32]; 9] {
        let Self { attention_norm, q_bias, k_bias, v_bias, q_norm, k_norm, .. } = self;
        let (after_attention, feed, after_feed) = (&self.after_attention_norm, &self.feed_norm, &self.after_feed_norm);
        [attention_norm, q_bias, k_bias, v_bias, q_norm, k_norm, after_attention, feed, after_feed].map(Vec::as_slice)
    }

    fn matrices(&self) -> [&Matrix; 7] {
        let Self { q, k, v, o, gate, up, down, .. } = self;
        [q, k, v, o, gate, up, down]
    }
}

/// What lies at the places, which are within the bytes.
fn layer(config: &Config, bytes: &Shared, places: &[Range<usize>], kinds: &[Kind; 7]) -> Result<Layer, TileError> {
    let mut vectors = places.iter().map(|place| Fields::of(&bytes[place.clone()]).f32s());
    let mut vector = || vectors.next().expect("nine places of vectors");
    let [attention_norm, q_bias, k_bias, v_bias] = std::array::from_fn(|_| vector());
    let [q_norm, k_norm, after_attention_norm, feed_norm, after_feed_norm] = std::array::from_fn(|_| vector());
    let mut matrices = matrices_of(config).into_iter().zip(kinds).zip(&places[9..]);
    let mut matrix = || {
        let (((name, rows, columns), kind), place) = matrices.next().expect("seven places of matrices");
        let strips = bytes.part(place.clone()).expect("a place within the bytes");
        Matrix::from_packed(*kind, rows, columns, strips).map_err(|error| TileError::Matrix { name, error })
    };
    let [q, k, v, o] = [matrix()?, matrix()?, matrix()?, matrix()?];
    let [gate, up, down] = [matrix()?, matrix()?, matrix()?];
    Ok(Layer {
        attention_norm,
        q,
        k,
        v,
        q_bias,
        k_bias,
        v_bias,
        q_norm,
        k_norm,
        o,
        after_attention_norm,
        feed_norm,
        gate,
        up,
        down,
        after_feed_norm,
    })
}
