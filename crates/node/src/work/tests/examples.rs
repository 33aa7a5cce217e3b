//! Jobs that protect single examples: what such a job says, and what a device does with it.

use super::*;
use crate::job::JobError;
use crate::job::privacy::sentences;
use littoral_fed::dp::Viewer;
use littoral_fed::open::open_header;

/// Six numbers per row; rounds of 2 / 0.25 = 8 steps.
fn text(private: &str, model: &str) -> String {
    format!(
        r#"
        name = "private"
        seed = 5
        model = {model}
        algorithm = {{ name = "fedavg" }}
        local = {{ epochs = 2, batch = 5, optimiser = {{ name = "sgd", learning_rate = 0.1, momentum = 0.5 }} }}
        cohort = {{ target = 2 }}
        rounds = {{ count = 3 }}
        [differential_privacy]
        mechanism = "example-gaussian"
        {private}
        [data]
        set = "t"
        standardise = false
        held_out = 0.0
        [data.schema]
        label = {{ name = "l", classes = ["a", "b", "c"] }}
        fields = [{{ name = "a" }}, {{ name = "b" }}, {{ name = "c" }}, {{ name = "d" }}]
        "#
    )
}

const PRIVATE: &str = "clip = 0.5\nnoise_multiplier = 2.0\nepsilon = 20.0\nsampling_rate = 0.25";
const SOFTMAX: &str = "{ kind = \"softmax\" }";

fn job(private: &str) -> Result<JobSpec, JobError> {
    JobSpec::parse(&text(private, SOFTMAX))
}

#[test]
fn one_example_is_protected_from_all_viewers() {
    let spec = job(PRIVATE).unwrap();
    let guarantees = spec.guarantees();
    let viewers: Vec<Viewer> = guarantees.iter().map(|g| g.viewer).collect();
    assert_eq!(viewers, [Viewer::Model, Viewer::Edge, Viewer::Cloud]);
    // 3 rounds of 8 steps; edges and cloud may see three attempts at each.
    let epsilon = |steps| spec.example_noise().unwrap().grid.epsilon(0.25, steps, 1e-5).ok();
    let told: Vec<_> = guarantees.iter().map(|g| g.epsilon).collect();
    assert_eq!(told, [epsilon(24), epsilon(72), epsilon(72)]);
    assert!(epsilon(24) < epsilon(72));
    // A device that takes part at most twice is in two versions at most.
    let capped = job(&format!("{PRIVATE}\nparticipations_max = 2")).unwrap();
    let told: Vec<_> = capped.guarantees().iter().map(|g| g.epsilon).collect();
    assert_eq!(told, [epsilon(16); 3]);
    let told = sentences(spec.text(), guarantees);
    assert!(
        told.starts_with("What is seen hardly depends on one example of one device: whoever gets the models (ε = ")
    );
    assert!(told.contains("the device is not what is protected"), "{told}");
}

#[test]
fn a_job_whose_examples_cannot_be_private_is_refused_by_field() {
    let place = |private: &str| job(private).and_then(JobSpec::within_epsilon).unwrap_err().place;
    let with = |from: &str, to: &str| place(&PRIVATE.replace(from, to));
    assert_eq!(with("sampling_rate = 0.25", ""), "differential_privacy.sampling_rate");
    assert_eq!(with("0.25", "0.0"), "differential_privacy.sampling_rate");
    assert_eq!(with("clip = 0.5", "clip = 0.0"), "differential_privacy.clip");
    assert_eq!(with("20.0", "0.5"), "differential_privacy.epsilon");
    assert_eq!(place(&format!("{PRIVATE}\nattempts_max = 0")), "differential_privacy.attempts_max");
    for other in ["adaptive_clip = {}", "bands = 2", "restart_rounds = 3"] {
        let field = other.split(' ').next().unwrap();
        assert_eq!(place(&format!("{PRIVATE}\n{other}")), format!("differential_privacy.{field}"));
    }
    let held_out = text(PRIVATE, SOFTMAX).replace("held_out = 0.0", "held_out = 0.1");
    assert_eq!(JobSpec::parse(&held_out).unwrap_err().place, "data.held_out");
    assert_eq!(place(&format!("{PRIVATE}\nsampling = {{ poisson = 0.5 }}")), "differential_privacy.sampling");
    let refused = |from: &str, to: &str| JobSpec::parse(&text(PRIVATE, SOFTMAX).replace(from, to)).unwrap_err().place;
    assert_eq!(refused("batch = 5", "batch = 0"), "local.batch");
    assert_eq!(refused("standardise = false", ""), "data.standardise");
    assert_eq!(refused("\"fedavg\"", "\"scaffold\""), "algorithm.name");
    // A rate that only samples of examples have.
    assert_eq!(refused("example-gaussian", "central"), "differential_privacy.sampling_rate");
    let compressed = format!("{}\n[compression]\nuplink = {{ name = \"random-k\" }}", text(PRIVATE, SOFTMAX));
    assert_eq!(JobSpec::parse(&compressed).unwrap_err().place, "compression");
    let cnn = "{ kind = \"cnn\", image = [2, 2, 1], channels = [2], kernel = 3, pool = 1, norm = \"batch\" }";
    let norm = JobSpec::parse(&text(PRIVATE, cnn)).unwrap_err();
    assert_eq!(norm.place, "model.norm");
    assert!(norm.got.contains("norm1"), "{norm}");
    assert!(JobSpec::parse(&text(PRIVATE, &cnn.replace("batch", "group"))).is_ok());
}

/// What a device's update is, after training with this entropy.
fn update(run: &Run, entropy: u8, rows: &Rows) -> (Vec<u8>, LocalNote) {
    match attempt(run, entropy, rows, collection(Kind::Train, 0)).unwrap() {
        Output::Local { update, note, .. } => (run.shelf.bytes(&update), note),
        other => panic!("{other:?}"),
    }
}

fn attempt(run: &Run, entropy: u8, rows: &Rows, collection: Collection) -> Result<Output, WorkFault> {
    let task = Task { spec: run.spec.clone(), population: 2 }.encode();
    let work = Work::Local {
        steps_max: 0,
        entropy: Entropy::new([entropy; 32]),
        collection,
        task: task.into(),
        model: run.model.clone(),
        before: run.before.clone(),
        state: None,
        personal: None,
        learnt: None,
        device: NodeId([1; 32]),
        name: "device-1".into(),
    };
    super::run(&work, &run.shelf, rows)
}

/// Each training is a further release: none happens that is not in the account.
#[test]
fn a_device_trains_as_often_as_was_accounted_for() {
    let run = Run::new(job(&format!("{PRIVATE}\nattempts_max = 2")).unwrap(), 2);
    let rows = table(1, 4, 40);
    let of =
        |version, tried| attempt(&run, 9, &rows, Collection { version, attempt: tried, ..collection(Kind::Train, 0) });
    assert!(of(0, 0).is_ok() && of(0, 1).is_ok() && of(2, 1).is_ok());
    let WorkFault::Declined(why) = of(0, 2).unwrap_err() else { panic!() };
    assert!(why.contains("at most 2 attempts") && why.contains("got attempt 3"), "{why}");
    // Three rounds begin at versions 0 to 2.
    let WorkFault::Declined(why) = of(3, 0).unwrap_err() else { panic!() };
    assert!(why.contains("below 3"), "{why}");
}

#[test]
fn how_many_rows_there_are_shows_nowhere() {
    let run = Run::new(job(PRIVATE).unwrap(), 2);
    let plan = run.spec.plan(Kind::Train);
    let mut seen = Vec::new();
    for train in [0, 1, 40, 700] {
        let (bytes, note) = update(&run, 9, &table(1, 4, train));
        assert_eq!(note.steps, 8);
        let mut sum = Partial::empty(plan.format());
        sum.absorb(NodeId([1; 32]), &bytes).unwrap();
        let header = open_header(plan, 1, &sum.bytes().unwrap()[..plan.header_bytes()]).unwrap();
        // Weight 1; no loss; no counts of held-out rows.
        assert_eq!((header.weight_sum, header.loss), (1, None));
        assert!(header.wholes.iter().all(|whole| *whole == 0));
        seen.push(bytes);
    }
    assert!(seen.iter().all(|bytes| bytes.len() == seen[0].len()));
    let rows = table(1, 4, 40);
    assert_eq!(update(&run, 9, &rows).0, seen[2], "the same work, the same bytes");
    assert_ne!(update(&run, 8, &rows).0, seen[2], "other samples and noise");
}

#[test]
fn more_rows_than_roundings_are_accounted_for_are_declined() {
    let run = Run::new(job(PRIVATE).unwrap(), 2);
    let result = attempt(&run, 9, &table(1, 4, (1 << 20) + 1), collection(Kind::Train, 0));
    let WorkFault::Declined(why) = result.unwrap_err() else { panic!() };
    assert!(why.contains("at most 1048576 training rows") && why.contains("got 1048577"), "{why}");
}

/// With hardly any noise and everybody in every sample it is gradient descent with clipped gradients.
#[test]
fn without_noise_it_is_descent_along_clipped_gradients() {
    let quiet = "clip = 0.3\nnoise_multiplier = 0.001\nepsilon = 1e9\nsampling_rate = 1.0";
    let toml = text(quiet, SOFTMAX).replace("momentum = 0.5", "momentum = 0.0").replace("batch = 5", "batch = 37");
    let spec = JobSpec::parse(&toml).unwrap();
    let mut it = Run::new(spec, 1);
    let rows = table(1, 4, 37);
    let mut w: Vec<f64> = it.read().w.iter().map(|w| f64::from(*w)).collect();
    let model = it.spec.model().clone();
    let view = View::new(Arc::clone(&rows.examples), rows.train.clone()).unwrap();
    let (mut batch, mut scratch) = (Batch::new(&model, 1), Scratch::new(&model, 1));
    for _ in 0..2 {
        let mut sum = vec![0.0; w.len()];
        for row in view.rows() {
            let mut one = vec![0.0; w.len()];
            batch.fill(&view, &[*row]).unwrap();
            littoral_model::gradient(&model, &w, &batch, &mut scratch, &mut one);
            let norm = one.iter().map(|g: &f64| g * g).sum::<f64>().sqrt();
            sum.iter_mut().zip(&one).for_each(|(sum, g)| *sum += g * (0.3 / norm).min(1.0));
        }
        w.iter_mut().zip(&sum).for_each(|(w, sum)| *w -= 0.1 * sum / 37.0);
    }
    let (update, _) = it.update(Kind::Train, 1, None, &rows);
    let (other, _) = it.update(Kind::Train, 1, None, &rows);
    it.advance(Kind::Train, vec![it.shelf.put(it.sum(Kind::Train, &[&update, &other]).bytes().unwrap())], 2);
    for (found, wanted) in it.read().w.iter().zip(&w) {
        // Noise of 0.001 · 0.3 · 0.1 / 37 per step, and clipping's margin of 2^-14 of a step of at most 0.03 · 2.
        assert!((f64::from(*found) - wanted).abs() < 2e-5, "{found} {wanted}");
    }
}
