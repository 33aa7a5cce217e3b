//! What leaves a device is uniform over the ring, whatever its vector was.

use crate::world::{Shared, Walk, World};
use littoral_privacy::secagg::mask::{Sign, add_packed};
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::prg::Prg;

#[test]
fn every_residue_is_equally_likely() {
    for prg in [Prg::Aes128Ctr, Prg::ChaCha20] {
        for bits in [3u8, 7, 10] {
            let residues = 1usize << bits;
            let words = 512 * residues;
            let mut world = World::new(Parameters::of_counts(4, 1, 1, Threat::Honest).unwrap(), bits, words as u64);
            world.session.prg = prg;
            let walk = Walk::all(&world);
            let Shared { directory, inboxes, mut sharing } = walk.share().unwrap();
            let inbox = inboxes.inbox(&directory, walk.place(&directory, 2)).unwrap();
            let (_, masks) = sharing.remove(&2).unwrap().mask(&inbox).unwrap();
            // Nothing, and the top residue everywhere.
            for fill in [0, 0xff] {
                let mut vector = vec![fill; world.session.bytes as usize];
                let add = |at: u64, sign: Sign, mask: &[u8]| {
                    add_packed(&mut vector[at as usize..][..mask.len()], mask, bits, sign);
                };
                masks.for_each_block(0..masks.bytes(), add).unwrap();
                let mut counts = vec![0f64; residues];
                for i in 0..words {
                    let bit = |b: usize| usize::from(vector[b / 8] >> (b % 8) & 1);
                    let word = (0..bits as usize).fold(0, |word, b| word | bit(i * bits as usize + b) << b);
                    counts[word] += 1.0;
                }
                let chi: f64 = counts.iter().map(|count| (count - 512.0).powi(2) / 512.0).sum();
                // Mean and standard deviation of chi-square; 4.5 of them, keys are fixed.
                let freedom = residues as f64 - 1.0;
                let far = (chi - freedom) / (2.0 * freedom).sqrt();
                assert!(far.abs() < 4.5, "{prg:?} {bits} bits: {far}");
                // The top residue, and zero, by themselves: 512 expected, standard deviation 22.6.
                assert!((counts[residues - 1] - 512.0).abs() < 113.0 && (counts[0] - 512.0).abs() < 113.0);
            }
        }
    }
}
