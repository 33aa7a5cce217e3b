//! Accounts against Google's dp-accounting: `oracles/dp_epsilon.csv`, written by `oracles/dp_epsilon.py`.

use littoral_privacy::account::{
    Accountant, Adjacency, Composition, Discretisation, Loss, Mechanism, Method, Sampling,
};

struct Row {
    mechanism: Mechanism,
    sampling: Sampling,
    steps: u64,
    delta: f64,
    method: Method,
    epsilon: f64,
    text: &'static str,
}

fn rows() -> Vec<Row> {
    include_str!("../../../oracles/dp_epsilon.csv").lines().skip(1).map(row).collect()
}

fn row(text: &'static str) -> Row {
    let fields: Vec<&str> = text.split(',').collect();
    let number = |i: usize| fields[i].parse::<f64>().unwrap();
    let (z, q) = (number(1), number(2));
    let mechanism = match fields[0] {
        "laplace" => Mechanism::Laplace { scale: z / std::f64::consts::SQRT_2 },
        "discrete-gaussian" => Mechanism::DiscreteGaussian { sigma: z, sensitivity: 1 },
        "skellam" => Mechanism::Skellam { variance: z * z, sensitivity: 1 },
        _ => Mechanism::Gaussian { noise_multiplier: z },
    };
    let fixed = fields[0] == "gaussian-fixed";
    let method = Method {
        accountant: if fields[5] == "rdp" { Accountant::Rdp } else { Accountant::Pld },
        adjacency: if fixed { Adjacency::ReplaceOne } else { Adjacency::AddRemove },
        ..Method::default()
    };
    Row {
        mechanism,
        sampling: if fixed { Sampling::Fixed { rate: q } } else { Sampling::Poisson { rate: q } },
        steps: fields[3].parse().unwrap(),
        delta: number(4),
        method,
        epsilon: number(6),
        text,
    }
}

fn epsilon(row: &Row, method: Method) -> f64 {
    let mut releases = Composition::new();
    let loss = Loss { mechanism: row.mechanism.clone(), sampling: row.sampling, count: row.steps };
    releases.add(loss).unwrap();
    releases.epsilon(row.delta, method).unwrap()
}

#[test]
fn renyi_epsilons_are_google_s() {
    for row in rows().iter().filter(|row| row.method.accountant == Accountant::Rdp) {
        let found = epsilon(row, row.method);
        // The same formulas on the same orders: rounding only.
        assert!((found / row.epsilon - 1.0).abs() < 1e-6, "{}: {found}", row.text);
    }
}

#[test]
fn loss_distributions_are_google_s() {
    for row in rows().iter().filter(|row| row.method.accountant == Accountant::Pld) {
        let found = epsilon(row, row.method);
        // Both are upper bounds on the same grid by the same rule; tails are cut at other places.
        assert!((found / row.epsilon - 1.0).abs() < 1e-3, "{}: {found}", row.text);
        let tight = epsilon(row, Method { discrete: Discretisation::Dots, ..row.method });
        assert!(tight <= found * (1.0 + 1e-9), "{}: {tight} {found}", row.text);
        // Rényi bounds are looser; they do not cross.
        let renyi = epsilon(row, Method { accountant: Accountant::Rdp, ..row.method });
        assert!(tight <= renyi * (1.0 + 1e-9), "{}: {tight} {renyi}", row.text);
    }
}
