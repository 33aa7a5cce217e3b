//! What the probe says of vectors that travel in fewer bits.

use littoral_infer::model::Model;
use littoral_infer::split::certify::{Certificate, certify};
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::Activations;

mod tiny;

const LAYERS: usize = 6;

fn probe(activations: Activations, machines: usize) -> Certificate {
    let (file, pool) = (tiny::file(LAYERS as u32), Pool::new(1));
    let ends = Model::load_ends(&file, &pool, &mut |_| ()).unwrap();
    certify(&ends, &mut |range| Model::load_layers(&file, range, &pool), activations, machines, &pool).unwrap()
}

#[test]
fn fewer_bits_cost_more_and_all_bits_nothing() {
    for machines in [0, 1, 3] {
        let exact = probe(Activations::F32, machines);
        assert_eq!((exact.divergence_max, exact.same, exact.hops), (0.0, exact.tokens, machines + 1));
        let [half, eighth] = [Activations::F16, Activations::Int8].map(|of| probe(of, machines));
        assert!(0.0 < half.divergence_mean && half.divergence_mean < eighth.divergence_mean, "{half} {eighth}");
        assert!(half.holds(), "{half}");
    }
}
