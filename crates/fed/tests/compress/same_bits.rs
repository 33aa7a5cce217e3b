//! The same seed gives the same bits on every machine: hashes of what was sent, as they were written down once.

use super::*;
use littoral_fed::compress::powersgd::Matrix;
use littoral_fed::compress::{Compressor, Linear, Recipe};

/// The first eight digits of the hash of what a recipe sends of one vector, and of what comes back.
fn hashes(toml: &str) -> String {
    let recipe: Recipe = toml::from_str(toml).unwrap();
    let x = uneven(9000, 1);
    let mut hasher = blake3::Hasher::new();
    let mut put = |values: &[f32]| values.iter().for_each(|v| _ = hasher.update(&v.to_bits().to_le_bytes()));
    match recipe.build(9000, &[Matrix { start: 0, rows: 90, columns: 100 }]).unwrap() {
        Compressor::Coded(codec) => {
            let mut bytes = Vec::new();
            codec.encode(&x, &seed(1), &mut bytes).unwrap();
            put(&decoded(&*codec, 9000, &bytes).unwrap());
            hasher.update(&bytes);
        }
        Compressor::Linear(linear) => {
            let sent = linear.forward(&x, &seed(1));
            put(&sent);
            put(&linear.backward(&sent, 9000, &seed(1)));
        }
        Compressor::Alternating(shape) => {
            let basis = shape.basis_at_first(&seed(1));
            let sent = shape.with(&basis).forward(&x, &seed(1));
            put(&sent);
            put(&shape.with(&basis).backward(&sent, 9000, &seed(1)));
            let mut bytes = Vec::new();
            shape.put_basis(&shape.basis_next(&basis, &sent, &seed(2)).unwrap(), &mut bytes);
            hasher.update(&bytes);
        }
        Compressor::TwoSums(powersgd) => {
            let q = powersgd.q_at_first(&seed(1));
            let basis = powersgd.basis(&powersgd.first(&x, &q).unwrap()).unwrap();
            let second = powersgd.second(&x, &basis).unwrap();
            put(&powersgd.approximate(&basis, &second).unwrap());
            put(&powersgd.q_next(&second, &seed(2)));
        }
    }
    hasher.finalize().to_hex()[..8].into()
}

#[test]
fn nothing_depends_on_the_machine() {
    for (toml, expected) in [
        ("name = \"eden\"", "56e38c3c"),
        ("name = \"eden\"\nbits = 4", "d7bd3f34"),
        ("name = \"quantise\"", "de41b946"),
        ("name = \"quantise\"\nbits = 8\nentropy = false", "4a6fed50"),
        ("name = \"top-k\"", "ab1b7ab5"),
        ("name = \"sign\"", "db2fe4b8"),
        ("name = \"random-k\"", "6fedd365"),
        ("name = \"rotation\"", "771dc6fb"),
        ("name = \"powersgd\"", "36afa89c"),
        ("name = \"powersgd\"\nsums = 2", "58cb39a1"),
    ] {
        assert_eq!(hashes(toml), expected, "{toml}");
    }
}
