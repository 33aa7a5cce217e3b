//! Models of devices' own, through real works: what is kept, what is sent, what is evaluated, what a file has.

use super::*;
use crate::deploy::safetensors;
use littoral_fed::algorithm::perfedavg::hessian_vector;
use std::io::Cursor;

/// A small network over six numbers, of which the last layer has 15 parameters.
fn own_job(algorithm: &str, more: &str) -> JobSpec {
    let text = job("{ name = \"fedavg\" }", 6, MINI, 3, UNIFORM).text().clone();
    let mut text = toml::to_string(&text).unwrap().parse::<toml::Table>().unwrap();
    text.insert("algorithm".into(), toml::from_str::<toml::Table>(algorithm).unwrap().into());
    text.insert(
        "model".into(),
        toml::from_str::<toml::Table>("kind = \"mlp\"\nhidden = [4]\nactivation = \"tanh\"").unwrap().into(),
    );
    let more = toml::from_str::<toml::Table>(more).unwrap();
    text.extend(more);
    JobSpec::parse(&toml::to_string(&text).unwrap()).unwrap()
}

impl Run {
    fn with_own(
        &self,
        work: Kind,
        device: usize,
        personal: Option<&Manifest>,
        data: &Rows,
    ) -> (Manifest, Option<Manifest>, bool) {
        let task = Task { spec: self.spec.clone(), population: self.population }.encode();
        let work = Work::Local {
            steps_max: 0,
            entropy: Entropy::new([0; 32]),
            collection: collection(work, self.version),
            task: task.into(),
            model: self.model.clone(),
            before: self.before.clone(),
            state: None,
            personal: personal.cloned(),
            learnt: None,
            device: NodeId([device as u8; 32]),
            name: format!("device-{device}"),
        };
        match run(&work, &self.shelf, data).unwrap() {
            Output::Local { update, personal, note, .. } => (update, personal, note.anew),
            other => panic!("{other:?}"),
        }
    }

    fn numbers(&self, object: &Manifest) -> Vec<f32> {
        version::reals(&self.shelf.bytes(object)).collect()
    }
}

#[test]
fn what_a_device_keeps_is_in_no_plan_and_comes_back_bit_for_bit() {
    let mut it = Run::new(own_job("name = \"fedper\"", ""), 2);
    let (home, params) = (it.spec.home().clone(), it.spec.model().layout().len());
    assert_eq!((params, home.own_len(), it.spec.version().params), (6 * 4 + 4 + 15, 15, 28));
    assert_eq!(it.spec.own_segments(), ["fc2.weight", "fc2.bias"]);
    assert_eq!(it.spec.plan(Kind::Train).sections()[0].len, 28);
    let first = it.spec.model().init(it.spec.seed());
    assert_eq!(it.read().w, home.shared_of(&first));

    let data = [table(0, 6, 12), table(1, 6, 15)];
    let mut own: [Option<Manifest>; 2] = [None, None];
    for _ in 0..3 {
        let w = it.read().w;
        let mut updates = Vec::new();
        for (device, data) in data.iter().enumerate() {
            let (update, kept, anew) = it.with_own(Kind::Train, device, own[device].as_ref(), data);
            assert!(!anew);
            // The same again: an attempt that came to nothing leaves no trace.
            assert_eq!(
                it.with_own(Kind::Train, device, own[device].as_ref(), data),
                (update.clone(), kept.clone(), false)
            );
            // All by hand: both parts together, trained as one model.
            let begun = own[device].as_ref().map_or(home.own_of(&first), |own| it.numbers(own));
            let mut whole = home.whole(&w, &begun).unwrap();
            let view = View::new(Arc::clone(&data.examples), data.train.clone()).unwrap();
            let mut worker = Worker::new(it.spec.model(), 4);
            let seed = local::order_seed(it.spec.seed(), it.version, &format!("device-{device}"));
            let descent = Descent { epochs: 2, batch: 4, learning_rate: 0.1, seed };
            worker.descend(it.spec.model(), &mut whole, &view, &descent).unwrap();
            let kept = kept.unwrap();
            assert_eq!(it.numbers(&kept), home.own_of(&whole), "version {}", it.version);
            own[device] = Some(kept);
            updates.push(update);
        }
        let totals = it.advance(Kind::Train, updates, 2);
        assert_eq!(totals.distribution.unwrap().devices(), 2);
    }

    // Lost, cut short, or of another job: it begins anew, and says so; with nothing to lose it does not.
    let fresh = it.with_own(Kind::Train, 0, None, &data[0]);
    let lost = Manifest::of(&[7; 60]).unwrap();
    let short = it.shelf.put(&[0; 56]);
    for gone in [&lost, &short] {
        let (update, kept, anew) = it.with_own(Kind::Train, 0, Some(gone), &data[0]);
        assert_eq!((&update, &kept, anew), (&fresh.0, &fresh.1, true));
    }

    // The file: the whole model, the head as it was at first.
    let mut file = Vec::new();
    safetensors(&it.spec, &mut Cursor::new(it.shelf.bytes(&it.model)), &mut file).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let text: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    assert_eq!(text["__metadata__"]["personal"], "fc2.weight fc2.bias");
    assert_eq!(text["fc2.bias"]["data_offsets"], serde_json::json!([4 * 40, 4 * 43]));
    let weights: Vec<f32> = version::reals(&file[8 + header..][..4 * params]).collect();
    assert_eq!(weights, home.whole(&it.read().w, &home.own_of(&first)).unwrap());
    assert_eq!(file.len() - 8 - header, 4 * (params + 12), "means and deviations of six inputs behind");
}

/// In an evaluation each device answers with the model that it would use.
#[test]
fn what_is_evaluated_is_the_devices_own_model() {
    let data = table(1, 6, 15);
    let right = |it: &Run, w: &[f32]| {
        let view = View::new(Arc::clone(&data.examples), data.held_out.clone()).unwrap();
        Worker::new(it.spec.model(), 16).evaluate(it.spec.model(), w, &view).unwrap()
    };
    for (algorithm, alpha) in [("name = \"ditto\"\nlambda = 0.0", 0.0), ("name = \"perfedavg\"\nalpha = 2.0", 2.0)] {
        let it = Run::new(own_job(algorithm, ""), 1);
        let w = it.read().w;
        let (_, kept, _) = it.with_own(Kind::Train, 1, None, &data);
        let model = match &kept {
            // Local training, from the version it began with.
            Some(kept) => it.numbers(kept),
            None => {
                let view = View::new(Arc::clone(&data.examples), data.train.clone()).unwrap();
                let mut room = Room { worker: Worker::new(it.spec.model(), 16), gradient: Vec::new() };
                let seed = local::order_seed(it.spec.seed(), 0, "device-1");
                let mut training = Training::new(it.spec.model(), &view, &it.spec.text().local, seed, &mut room);
                let mut slope = vec![0.0; w.len()];
                use littoral_fed::learner::{Batch as Rows, Learner};
                training.gradient(&w, Rows::Next, &mut slope);
                w.iter().zip(slope).map(|(w, g)| w - alpha * g).collect()
            }
        };
        let (update, none, _) = it.with_own(Kind::Evaluate, 1, kept.as_ref(), &data);
        assert_eq!(none, None, "an evaluation changes nothing");
        let mut it = it;
        let totals = it.advance(Kind::Evaluate, vec![update], 1);
        let (own, version) = (right(&it, &model), right(&it, &w));
        assert_eq!((totals.rows, totals.correct), (5, own.correct), "{algorithm}");
        assert!((totals.loss_sum - own.loss_sum).abs() < 1e-6 && (own.loss_sum - version.loss_sum).abs() > 1e-3);
        let spread = totals.distribution.unwrap();
        assert_eq!(
            (spread.devices(), spread.mean()),
            (1, Some((own.correct as f64 / 5.0 * 1073741824.0).round() / 1073741824.0))
        );
    }
}

/// Through the data loader: both gradients of the difference are of the same rows.
#[test]
fn the_product_of_hessian_and_vector_is_that_of_exact_gradients() {
    let it = Run::new(own_job("name = \"perfedavg\"", ""), 1);
    let (model, data) = (it.spec.model(), table(1, 6, 15));
    let view = View::new(Arc::clone(&data.examples), data.train.clone()).unwrap();
    let mut room = Room { worker: Worker::new(model, 16), gradient: Vec::new() };
    let mut training = Training::new(model, &view, &it.spec.text().local, 9, &mut room);
    let w = model.init(3);
    let v: Vec<f32> = (0..w.len()).map(noise).collect();
    let product = hessian_vector(&w, &v, &mut training);

    // The first batch by the same seed, in f64, with a step so small that what is left of the difference is far below f32.
    let mut worker = Worker::<f64>::new(model, 16);
    worker.epoch.shuffle(&view, 9, 0);
    let rows = worker.epoch.batches(4).next().unwrap().to_vec();
    worker.batch.fill(&view, &rows).unwrap();
    let mut slope = |sign: f64| {
        let at: Vec<f64> = w.iter().zip(&v).map(|(w, v)| f64::from(*w) + sign * 1e-5 * f64::from(*v)).collect();
        let mut slope = vec![0.0; at.len()];
        littoral_model::gradient(model, &at, &worker.batch, &mut worker.scratch, &mut slope);
        slope
    };
    let (up, down) = (slope(1.0), slope(-1.0));
    let exact: Vec<f64> = up.iter().zip(down).map(|(up, down)| (up - down) / 2e-5).collect();
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let off: Vec<f64> = exact.iter().zip(&product).map(|(exact, got)| exact - f64::from(*got)).collect();
    // δ ‖v‖ is about 0.02: the cubic term leaves some 1e-4 of it, f32 about as much.
    assert!(norm(&off) < 2e-3 * norm(&exact) && norm(&exact) > 0.1, "{} of {}", norm(&off), norm(&exact));
}

#[test]
fn what_does_not_go_together_is_refused_with_the_reason() {
    let refused = |algorithm: &str, model: &str, more: &str| {
        let mut text = job("{ name = \"fedavg\" }", 6, MINI, 3, UNIFORM).text().clone();
        text.algorithm = toml::from_str(algorithm).unwrap();
        text.model = toml::from_str(model).unwrap();
        let more: toml::Table = toml::from_str(more).unwrap();
        let mut all = toml::to_string(&text).unwrap().parse::<toml::Table>().unwrap();
        all.extend(more);
        JobSpec::parse(&toml::to_string(&all).unwrap()).map(|_| ()).map_err(|e| format!("{}: {}", e.place, e.expected))
    };
    const MLP: &str = "kind = \"mlp\"\nhidden = [4]";
    const DP: &str = "[differential_privacy]\nclip = 1.0\nnoise_multiplier = 5.0\nepsilon = 500.0\n";
    for (algorithm, model, more, place, told) in [
        ("name = \"fedbn\"", MLP, "", "model.kind", "cnn with norm"),
        ("name = \"fedper\"", "kind = \"softmax\"", "", "model.kind", "two layers or more"),
        ("name = \"fedrep\"\nlayers = 2", MLP, "", "algorithm.layers", "1 to 1"),
        ("name = \"fedrep\"\nhead_steps = 0", MLP, "", "algorithm.head_steps", "1 to 1000000"),
        ("name = \"ditto\"\nlambda = -1.0", MLP, "", "algorithm.lambda", "0 is local training"),
        ("name = \"ditto\"", MLP, "[pace]\nstaleness_max = 4", "pace.staleness_max", "trains its own part"),
        (
            "name = \"ditto\"",
            MLP,
            "[data]\nset = \"t\"\nheld_out = 0.0\nstandardise = false\n[data.schema]\nlabel = { name = \"l\", classes = [\"a\", \"b\"] }\n\
             fields = [{ name = \"x\" }]\n[differential_privacy]\nmechanism = \"example-gaussian\"\nclip = 1.0\nnoise_multiplier = 5.0\n\
             epsilon = 500.0\nsampling_rate = 0.5",
            "algorithm.name",
            "one training",
        ),
        (
            "name = \"fedavg\"",
            MLP,
            &format!("evaluation = {{ distribution = true }}\n{DP}mechanism = \"central\""),
            "evaluation.distribution",
            "not told",
        ),
    ] {
        let got = refused(algorithm, model, more).unwrap_err();
        assert!(got.starts_with(place) && got.contains(told), "{algorithm} {more}: {got}");
    }
    // Beside a residual, masks, and noise on what is shared.
    for more in
        ["compression = { uplink = { name = \"top-k\" } }", "[secure_aggregation]\nadversary = 0.2\ngroup_min = 2"]
    {
        assert_eq!(refused("name = \"fedper\"", MLP, more), Ok(()), "{more}");
    }
    let wide = own_job("name = \"fedper\"", "compression = { uplink = { name = \"powersgd\", rank = 1 } }");
    assert_eq!(wide.residual_step(), None);
}
