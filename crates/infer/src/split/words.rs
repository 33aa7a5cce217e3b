//! Between passes here and passes on the wire.

use super::encoding;
use crate::pass::{Fork, Pass, Piece, Slot};
use littoral_model::lm::Wanted;
use littoral_wire::bounded::{Blob, List, OverBound};
use littoral_wire::pipeline::{self, Activations};
use thiserror::Error;

/// Why a pass from elsewhere is not run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    #[error("a pass of {tokens} tokens: {expected} bytes of vectors expected, got {got}")]
    Vectors { tokens: usize, expected: usize, got: usize },
    #[error(
        "a piece of sequence {slot}: 1 to {most} tokens of which at most all are wanted expected, got {tokens} and {wanted}"
    )]
    Piece { slot: u64, most: usize, tokens: u32, wanted: u32 },
    #[error("positions of sequence {slot}: at most {most} expected, got {got}")]
    Positions { slot: u64, most: usize, got: u64 },
}

/// Which of the vectors travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Those {
    All,
    Wanted,
}

/// # Errors
/// It does not fit into one message.
pub fn tell(
    epoch: u32,
    number: u64,
    pass: &Pass,
    times_us: Vec<u32>,
    activations: Activations,
    vectors: &[f32],
) -> Result<pipeline::Pass, OverBound> {
    let piece = |piece: &Piece| pipeline::Piece {
        slot: piece.slot.0,
        start: piece.start as u32,
        tokens: piece.tokens as u32,
        wanted: piece.wanted.of(piece.tokens) as u32,
    };
    let fork = |fork: &Fork| pipeline::Fork { from: fork.from.0, to: fork.to.0, positions: fork.positions as u32 };
    Ok(pipeline::Pass {
        epoch,
        number,
        forks: List::new(pass.forks.iter().map(fork).collect())?,
        freed: List::new(pass.freed.iter().map(|slot| slot.0).collect())?,
        pieces: List::new(pass.pieces.iter().map(piece).collect())?,
        times_us: List::new(times_us)?,
        vectors: Blob::new(encoding::encode(activations, vectors))?,
    })
}

/// The pass, and its vectors of `width` elements. `context`: the positions that a sequence may have.
pub fn hear(
    said: &pipeline::Pass,
    those: Those,
    activations: Activations,
    width: usize,
    context: usize,
) -> Result<(Pass, Vec<f32>), Unfit> {
    let mut pieces = Vec::with_capacity(said.pieces.len());
    for piece in said.pieces.iter() {
        let (slot, tokens, wanted) = (piece.slot, piece.tokens, piece.wanted);
        if tokens == 0 || tokens as usize > context || wanted > tokens {
            return Err(Unfit::Piece { slot, most: context, tokens, wanted });
        }
        let end = u64::from(piece.start) + u64::from(tokens);
        if end > context as u64 {
            return Err(Unfit::Positions { slot, most: context, got: end });
        }
        let wanted = if wanted == 0 { Wanted::None } else { Wanted::Tail(wanted as usize) };
        pieces.push(Piece { slot: Slot(slot), start: piece.start as usize, tokens: tokens as usize, wanted });
    }
    let mut forks = Vec::with_capacity(said.forks.len());
    for fork in said.forks.iter() {
        if fork.positions as usize > context {
            return Err(Unfit::Positions { slot: fork.from, most: context, got: fork.positions.into() });
        }
        forks.push(Fork { from: Slot(fork.from), to: Slot(fork.to), positions: fork.positions as usize });
    }
    let pass = Pass { forks, freed: said.freed.iter().map(|slot| Slot(*slot)).collect(), pieces };
    let tokens = if those == Those::All { pass.tokens() } else { pass.wanted() };
    let vectors = encoding::decode(activations, &said.vectors, tokens * width).ok_or_else(|| Unfit::Vectors {
        tokens,
        expected: encoding::bytes(activations, tokens * width),
        got: said.vectors.len(),
    })?;
    Ok((pass, vectors))
}
