//! Sums that are added up in parts.

use super::super::{Output, Work, run};
use super::{Shelf, *};
use littoral_tensor::fixed::add_packed;

struct Nothing;

impl LocalData for Nothing {
    fn rows(&self, _: &JobSpec) -> Result<Rows, String> {
        Err("none".into())
    }
}

#[test]
fn however_sums_are_cut_the_whole_has_the_same_bits() {
    for bits in [20, 64] {
        // Two blocks, and one that is shorter.
        let bytes = bits as usize * ((2 << 20) / bits as usize + 3);
        let shelf = Shelf::default();
        let sum = |n: u64| {
            let mut sum = vec![0; bytes];
            blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut sum);
            sum
        };
        let sums: Vec<Vec<u8>> = (0..5).map(sum).collect();
        let mut expected = vec![0; bytes];
        sums.iter().for_each(|sum| add_packed(&mut expected, sum, bits).unwrap());
        let merge = |sums: &[ObjectId]| {
            let work = Work::Merge { bits, bytes: bytes as u64, sums: sums.to_vec() };
            match run(&work, &shelf, &Nothing)? {
                Output::Merged { sum } => Ok(sum),
                other => Err(WorkFault::Declined(format!("{other:?}"))),
            }
        };
        let ids: Vec<ObjectId> = sums.iter().map(|sum| shelf.put(sum).id()).collect();
        for cut in [1, 2, 3, 5] {
            let parts: Vec<ObjectId> = ids.chunks(cut).map(|part| merge(part).unwrap().id()).collect();
            assert!(shelf.bytes(&merge(&parts).unwrap()) == expected, "{bits} bits, {cut} at a time");
        }
        // One that is not as long as the others.
        let short = shelf.put(&expected[..bytes - bits as usize]).id();
        assert!(matches!(merge(&[ids[0], short]), Err(WorkFault::Failed(_))));
    }
}
