//! A range of a model's layers: immutable weights, and the forward pass of some sequences through them.
//!
//! A whole model is the stage of all its layers with both [`Ends`]. Split over machines, each has a stage and the
//! [`State`] of its layers only. One of them has the ends: it makes vectors of ids, and logits of the vectors that the last
//! one gives back ([`Stage::logits_of`]), so that text, seeds and constraints need not travel.
//!
//! Several sequences go through in one pass over the weights. The bits of a token depend on its sequence only.

use super::config::{Config, Gate, Rope};
use super::layer::Layer;
use super::state::{State, StateError};
use littoral_tensor::attention::{CacheType, Look, QUERIES_MAX, Queries, attend};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Matrix, Panels, multiply};
use littoral_tensor::vectors::{add, gelu_gate, rms_norm, rms_norm_in_place, rotate, scale, silu_gate, soft_cap};
use std::ops::Range;
use std::sync::Arc;

/// Some layers that follow one another, or none, and perhaps the ends.
#[derive(Debug)]
pub struct Stage {
    pub(super) config: Config,
    pub(super) range: Range<usize>,
    pub(super) layers: Vec<Layer>,
    pub(super) ends: Option<Ends>,
}

/// Where ids become vectors, and vectors logits.
#[derive(Debug)]
pub(super) struct Ends {
    /// Vocabulary x width.
    pub embedding: Arc<Matrix>,
    /// Of the vectors that become logits: width.
    pub norm: Vec<f32>,
    /// Vocabulary x width; often the embedding.
    pub output: Arc<Matrix>,
}

/// What comes in for one sequence.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// To a stage with the ends that begins with the first layer.
    Ids(&'a [u32]),
    /// To any: the vectors of its tokens, one after the other.
    Vectors(&'a [f32]),
}

/// The logits that are wanted of a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    None,
    Last,
    /// Of so many last tokens, or of all if there are fewer.
    Tail(usize),
    All,
}

impl Wanted {
    /// How many of so many tokens.
    pub fn of(self, tokens: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Last => tokens.min(1),
            Self::Tail(last) => tokens.min(last),
            Self::All => tokens,
        }
    }
}

/// One sequence's part of a pass.
#[derive(Debug)]
pub struct Part<'a> {
    pub state: &'a mut State,
    pub input: Input<'a>,
    pub wanted: Wanted,
}

/// Room to work in, kept from pass to pass.
#[derive(Debug)]
pub struct Scratch {
    panels: Panels,
    x: Vec<f32>,
    normed: Vec<f32>,
    qkv: Vec<f32>,
    raw: Vec<f32>,
    attended: Vec<f32>,
    product: Vec<f32>,
    gated: Vec<f32>,
    logits: Vec<f32>,
}

impl Scratch {
    pub fn new(instructions: Instructions) -> Self {
        Self {
            panels: Panels::new(instructions),
            x: Vec::new(),
            normed: Vec::new(),
            qkv: Vec::new(),
            raw: Vec::new(),
            attended: Vec::new(),
            product: Vec::new(),
            gated: Vec::new(),
            logits: Vec::new(),
        }
    }
}

/// What came out, of all parts in order.
#[derive(Debug)]
pub struct Output<'a> {
    /// Of a whole model: logits of the wanted tokens, `vocabulary` each. Else empty.
    pub logits: &'a [f32],
    /// Vectors of all tokens, `width` each.
    pub vectors: &'a [f32],
}

/// Angles of each token's position.
struct Turns {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Turns {
    /// In f64 with a software sine and cosine, so that all machines get the same.
    fn of(rope: &Rope, positions: impl Iterator<Item = usize>) -> Self {
        let frequencies = rope.frequencies();
        let length = rope.yarn.as_ref().map_or(1.0, |yarn| yarn.length);
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            for frequency in &frequencies {
                let (s, c) = libm::sincos(position as f64 / f64::from(rope.scale) * frequency);
                cos.push((length * c) as f32);
                sin.push((length * s) as f32);
            }
        }
        Self { cos, sin, half: frequencies.len() }
    }

    fn at(&self, token: usize) -> (&[f32], &[f32]) {
        let range = token * self.half..(token + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Makes a buffer of `len`; what was in it is of no use.
fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl Stage {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn layers(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Has it all layers and both ends?
    pub fn is_whole(&self) -> bool {
        self.ends.is_some() && self.range == (0..self.config.layers)
    }

    /// The weights of the norm before the logits, `width`, if it has the ends. What a text's vector is made of are the
    /// vectors that the last layer gives, normed with them.
    pub fn output_norm(&self) -> Option<&[f32]> {
        self.ends.as_ref().map(|ends| ends.norm.as_slice())
    }

    /// A state of no position for the layers of this stage, which keeps keys and values in that type.
    ///
    /// # Errors
    /// The type does not fit the width of heads; f16 fits any.
    pub fn state(&self, cache_type: CacheType) -> Result<State, StateError> {
        State::empty(self.layers.len(), self.config.kv_heads, self.config.head_width, cache_type)
    }

    /// Bytes of all matrices in memory.
    pub fn bytes(&self) -> usize {
        let of_layer =
            |l: &Layer| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down].map(Matrix::bytes).iter().sum::<usize>();
        let ends = self.ends.as_ref().map_or(0, |ends| ends.output.bytes());
        self.layers.iter().map(of_layer).sum::<usize>() + ends + self.lookup_bytes()
    }

    /// Of those, the bytes of a matrix that is looked up only: an embedding that is not the output.
    pub fn lookup_bytes(&self) -> usize {
        let apart = self.ends.as_ref().filter(|ends| !Arc::ptr_eq(&ends.embedding, &ends.output));
        apart.map_or(0, |ends| ends.embedding.bytes())
    }

    /// One pass of all parts' tokens. Their states advance.
    ///
    /// # Panics
    /// If an id is not of the vocabulary, ids come to a stage without the ends, or vectors are not whole.
    pub fn forward<'s>(&self, parts: &mut [Part<'_>], scratch: &'s mut Scratch, pool: &Pool) -> Output<'s> {
        let (config, width) = (&self.config, self.config.width);
        // Of each part: its first token and how many.
        let mut spans = Vec::with_capacity(parts.len());
        let mut tokens = 0;
        for part in parts.iter_mut() {
            let count = match part.input {
                Input::Ids(ids) => ids.len(),
                Input::Vectors(vectors) => vectors.len() / width,
            };
            part.state.reserve(count);
            spans.push(tokens..tokens + count);
            tokens += count;
        }
        let x = room(&mut scratch.x, tokens * width);
        for (part, span) in parts.iter().zip(&spans) {
            let rows = &mut x[span.start * width..span.end * width];
            match part.input {
                Input::Ids(ids) => self.embed(ids, rows),
                Input::Vectors(vectors) => rows.copy_from_slice(vectors),
            }
        }

        let positions =
            || parts.iter().zip(&spans).flat_map(|(part, span)| (0..span.len()).map(|i| part.state.positions() + i));
        let turns = Turns::of(&config.rope, positions());
        let turns_window = if config.window > 0 { Some(Turns::of(&config.rope_window, positions())) } else { None };
        for (index, layer) in self.layers.iter().enumerate() {
            let windowed = config.windowed(self.range.start + index);
            let turns = if windowed { turns_window.as_ref().unwrap_or(&turns) } else { &turns };
            self.attention(index, layer, windowed, turns, parts, &spans, scratch, pool);
            self.feed_forward(layer, tokens, scratch, pool);
        }
        for (part, span) in parts.iter_mut().zip(&spans) {
            part.state.advance(span.len());
        }
        let wanted = if self.is_whole() { self.logits(parts, &spans, scratch, pool) } else { 0 };
        Output { logits: &scratch.logits[..wanted * config.vocabulary], vectors: &scratch.x[..tokens * width] }
    }

    fn embed(&self, ids: &[u32], rows: &mut [f32]) {
        let embedding = &self.ends.as_ref().expect("a stage with the ends takes ids").embedding;
        for (id, row) in ids.iter().zip(rows.chunks_exact_mut(self.config.width)) {
            embedding.row(*id as usize, row);
            if self.config.embedding_scale != 1.0 {
                scale(row, self.config.embedding_scale);
            }
        }
    }

    /// `x += o(attention(norm(x)))`.
    #[allow(clippy::too_many_arguments)] // What one layer's attention needs of a pass.
    fn attention(
        &self,
        index: usize,
        layer: &Layer,
        windowed: bool,
        turns: &Turns,
        parts: &mut [Part<'_>],
        spans: &[Range<usize>],
        scratch: &mut Scratch,
        pool: &Pool,
    ) {
        let config = &self.config;
        let (width, head_width) = (config.width, config.head_width);
        let tokens = spans.last().map_or(0, |span| span.end);
        norm_all(&scratch.x, &layer.attention_norm, config.epsilon, tokens, &mut scratch.normed, pool);

        let matrices = [&layer.q, &layer.k, &layer.v];
        product(&matrices, &scratch.normed[..tokens * width], &mut scratch.panels, &mut scratch.qkv, pool);
        let (k_at, v_at) = (layer.q.padded_rows(), layer.q.padded_rows() + layer.k.padded_rows());
        let stride = v_at + layer.v.padded_rows();
        let (q_rows, kv_rows) = (config.heads * head_width, config.kv_heads * head_width);

        let mut rows: Vec<(usize, &mut [f32])> =
            scratch.qkv[..tokens * stride].chunks_exact_mut(stride).enumerate().collect();
        pool.each(&mut rows, grain_of(tokens), |(token, row)| {
            for (at, bias) in [(0, &layer.q_bias), (k_at, &layer.k_bias), (v_at, &layer.v_bias)] {
                if !bias.is_empty() {
                    add(&mut row[at..at + bias.len()], bias);
                }
            }
            let (cos, sin) = turns.at(*token);
            for (at, rows, norm) in [(0, q_rows, &layer.q_norm), (k_at, kv_rows, &layer.k_norm)] {
                for head in row[at..at + rows].chunks_exact_mut(head_width) {
                    if !norm.is_empty() {
                        rms_norm_in_place(head, norm, config.epsilon);
                    }
                    rotate(head, cos, sin, config.rope.pairs);
                }
            }
        });
        for (part, span) in parts.iter_mut().zip(spans) {
            for (i, token) in span.clone().enumerate() {
                let row = &scratch.qkv[token * stride..][..stride];
                let position = part.state.positions() + i;
                part.state.store(index, position, &row[k_at..k_at + kv_rows], &row[v_at..v_at + kv_rows]);
            }
        }

        let look = Look {
            width: head_width,
            scale: config.attention_scale,
            window: if windowed { config.window } else { 0 },
            cap: config.attention_cap,
        };
        // A piece is some tokens of a sequence and one head; together they write [piece][token][element].
        let raw = room(&mut scratch.raw, tokens * q_rows);
        let (mut pieces, mut rest) = (Vec::new(), &mut raw[..]);
        for (part, span) in spans.iter().enumerate() {
            for first in span.clone().step_by(QUERIES_MAX) {
                let count = (span.end - first).min(QUERIES_MAX);
                for head in 0..config.heads {
                    let (out, after) = rest.split_at_mut(count * head_width);
                    pieces.push((Piece { part, first, count, head }, out));
                    rest = after;
                }
            }
        }
        let (qkv, group) = (&scratch.qkv, config.heads / config.kv_heads);
        let instructions = scratch.panels.instructions();
        let parts: Vec<(&State, usize)> = parts.iter().zip(spans).map(|(p, span)| (&*p.state, span.start)).collect();
        let grain = pieces.len().div_ceil(4 * pool.threads());
        pool.each(&mut pieces, grain, |(piece, out)| {
            let (state, start) = parts[piece.part];
            let queries = Queries {
                position: state.positions() + piece.first - start,
                count: piece.count,
                elements: &qkv[piece.first * stride + piece.head * head_width..],
                stride,
            };
            attend(instructions, &look, state.head(index, piece.head / group), queries, out, &mut Vec::new());
        });
        // To [token][head][element].
        drop(pieces);
        let chunk_of = |span: &Range<usize>, token: usize| {
            let first = token - (token - span.start) % QUERIES_MAX;
            (first, (span.end - first).min(QUERIES_MAX))
        };
        let chunks: Vec<_> = spans.iter().flat_map(|span| span.clone().map(|token| chunk_of(span, token))).collect();
        let raw = &scratch.raw;
        let attended = room(&mut scratch.attended, tokens * q_rows);
        let mut rows: Vec<(usize, &mut [f32])> = attended.chunks_exact_mut(q_rows).enumerate().collect();
        pool.each(&mut rows, grain_of(tokens), |(token, row)| {
            let (first, count) = chunks[*token];
            for (head, out) in row.chunks_exact_mut(head_width).enumerate() {
                let at = first * q_rows + (head * count + *token - first) * head_width;
                out.copy_from_slice(&raw[at..at + head_width]);
            }
        });

        product(&[&layer.o], &attended[..tokens * q_rows], &mut scratch.panels, &mut scratch.product, pool);
        self.add_to_x(&layer.after_attention_norm, tokens, layer.o.padded_rows(), scratch, pool);
    }

    /// `x += down(gate(norm(x)) up(norm(x)))`.
    fn feed_forward(&self, layer: &Layer, tokens: usize, scratch: &mut Scratch, pool: &Pool) {
        let config = &self.config;
        norm_all(&scratch.x, &layer.feed_norm, config.epsilon, tokens, &mut scratch.normed, pool);
        let normed = &scratch.normed[..tokens * config.width];
        product(&[&layer.gate, &layer.up], normed, &mut scratch.panels, &mut scratch.product, pool);
        let (inner, up_at) = (config.inner, layer.gate.padded_rows());
        let stride = up_at + layer.up.padded_rows();
        let gated = room(&mut scratch.gated, tokens * inner);
        let product_of = &scratch.product;
        let mut rows: Vec<(usize, &mut [f32])> = gated.chunks_exact_mut(inner).enumerate().collect();
        pool.each(&mut rows, grain_of(tokens), |(token, out)| {
            let row = &product_of[*token * stride..][..stride];
            let (gate, up) = (&row[..inner], &row[up_at..up_at + inner]);
            match config.gate {
                Gate::Silu => silu_gate(gate, up, out),
                Gate::Gelu => gelu_gate(gate, up, out),
            }
        });
        product(&[&layer.down], gated, &mut scratch.panels, &mut scratch.product, pool);
        self.add_to_x(&layer.after_feed_norm, tokens, layer.down.padded_rows(), scratch, pool);
    }

    /// Adds the last product to `x`, normed before where the architecture says so.
    fn add_to_x(&self, norm: &[f32], tokens: usize, stride: usize, scratch: &mut Scratch, pool: &Pool) {
        let width = self.config.width;
        let rows = scratch.product.chunks_exact_mut(stride).zip(scratch.x.chunks_exact_mut(width));
        let mut rows: Vec<(&mut [f32], &mut [f32])> = rows.take(tokens).collect();
        pool.each(&mut rows, grain_of(tokens), |(row, x)| {
            let row = &mut row[..width];
            if !norm.is_empty() {
                rms_norm_in_place(row, norm, self.config.epsilon);
            }
            add(x, row);
        });
    }

    /// The logits of vectors that the last layer gave, `width` each; `vocabulary` for each of them.
    ///
    /// # Panics
    /// If this stage has no ends, or vectors are not whole.
    pub fn logits_of<'s>(&self, vectors: &[f32], scratch: &'s mut Scratch, pool: &Pool) -> &'s [f32] {
        let (width, tokens) = (self.config.width, vectors.len() / self.config.width);
        assert_eq!(vectors.len(), tokens * width, "vectors of {width}");
        room(&mut scratch.x, tokens * width).copy_from_slice(vectors);
        let all: Vec<usize> = (0..tokens).collect();
        self.logits_at(&all, scratch, pool);
        &scratch.logits[..tokens * self.config.vocabulary]
    }

    /// Logits of the wanted tokens; how many those are.
    fn logits(&self, parts: &[Part<'_>], spans: &[Range<usize>], scratch: &mut Scratch, pool: &Pool) -> usize {
        let tail = |(part, span): (&Part<'_>, &Range<usize>)| span.end - part.wanted.of(span.len())..span.end;
        let wanted: Vec<usize> = parts.iter().zip(spans).flat_map(tail).collect();
        self.logits_at(&wanted, scratch, pool);
        wanted.len()
    }

    /// Logits of these tokens of `x`, one after the other.
    fn logits_at(&self, wanted: &[usize], scratch: &mut Scratch, pool: &Pool) {
        if wanted.is_empty() {
            return;
        }
        let Ends { norm, output, .. } = self.ends.as_ref().expect("a stage with the ends gives logits");
        let (width, vocabulary) = (self.config.width, self.config.vocabulary);
        let normed = room(&mut scratch.normed, wanted.len() * width);
        for (token, out) in wanted.iter().zip(normed.chunks_exact_mut(width)) {
            rms_norm(&scratch.x[token * width..][..width], norm, self.config.epsilon, out);
        }
        let padded = output.padded_rows();
        product(&[output], normed, &mut scratch.panels, &mut scratch.logits, pool);
        if padded != vocabulary {
            for token in 1..wanted.len() {
                scratch.logits.copy_within(token * padded..token * padded + vocabulary, token * vocabulary);
            }
        }
        if self.config.logit_cap > 0.0 {
            soft_cap(&mut scratch.logits[..wanted.len() * vocabulary], self.config.logit_cap);
        }
    }
}

/// Some queries of one head.
#[derive(Clone, Copy, Debug)]
struct Piece {
    part: usize,
    first: usize,
    count: usize,
    head: usize,
}

/// Tokens that a thread takes at once; a few are not worth sharing.
fn grain_of(tokens: usize) -> usize {
    if tokens < 8 { tokens } else { 4 }
}

/// `normed = norm(x)` for all tokens.
fn norm_all(x: &[f32], weight: &[f32], epsilon: f32, tokens: usize, normed: &mut Vec<f32>, pool: &Pool) {
    let width = weight.len();
    let normed = room(normed, tokens * width);
    let mut rows: Vec<(&[f32], &mut [f32])> = x.chunks_exact(width).zip(normed.chunks_exact_mut(width)).collect();
    pool.each(&mut rows, grain_of(tokens), |(x, out)| rms_norm(x, weight, epsilon, out));
}

/// Products of all matrices with `x`, as [`multiply`] lays them out.
fn product(matrices: &[&Matrix], x: &[f32], panels: &mut Panels, out: &mut Vec<f32>, pool: &Pool) {
    let columns = matrices[0].columns();
    let tokens = x.len() / columns;
    panels.renew(tokens, columns);
    matrices.iter().for_each(|matrix| panels.prepare(matrix.kind(), x, pool));
    let stride: usize = matrices.iter().map(|matrix| matrix.padded_rows()).sum();
    multiply(matrices, panels, room(out, tokens * stride), pool);
}
