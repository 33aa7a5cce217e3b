//! Models that the cloud gives to devices, through real works: what is mixed, what is remembered, and what no tree and no cut changes.

use super::*;
use littoral_fed::algorithm::fedamp::{self, FedAmp};
use littoral_fed::open::open_section;
use littoral_fed::robust::{Block, Pairs};
use littoral_fed::round::{Given, Place};

const AMP: FedAmp = FedAmp { alpha: 0.3, sigma: 1.0, lambda: 0.1 };

fn amp_job() -> JobSpec {
    job("{ name = \"fedamp\", alpha = 0.3, sigma = 1.0, lambda = 0.1 }", 6, MINI, 3, UNIFORM)
}

fn name(device: usize) -> String {
    format!("device-{device}")
}

/// A round of these devices: their lists, where each one's update is, and their names; what each learnt, w_i.
struct Round {
    lists: Vec<Manifest>,
    order: Vec<Place>,
    names: Vec<String>,
    learnt: BTreeMap<String, Vec<f32>>,
}

/// `cut`: lists of so many updates, against the order of names.
fn round(it: &mut Run, given: &Given, devices: &[usize], cut: usize) -> Round {
    let version = it.model.clone();
    let plan = it.spec.plan(Kind::Train).clone();
    let (mut updates, mut learnt) = (Vec::new(), BTreeMap::new());
    for &device in devices {
        it.model = given.get(&name(device)).unwrap_or(&version).clone();
        let mut w = it.read().w;
        let (update, _) = it.update(Kind::Train, device, None, &table(device, 6, 12));
        let bytes = it.shelf.bytes(&update);
        let mut words = vec![0; w.len()];
        open_section(&plan, 0, 0..w.len(), &bytes[plan.section_bytes(0, 0..w.len())], &mut words).unwrap();
        let sent: Vec<i32> = words.iter().map(|word| *word as i32).collect();
        fedamp::learnt(&mut w, 0, &sent, plan.step(0)).unwrap();
        learnt.insert(name(device), w);
        updates.push(bytes);
    }
    it.model = version;
    let mut backwards: Vec<usize> = (0..devices.len()).collect();
    backwards.reverse();
    let lists = backwards
        .chunks(cut)
        .map(|rows| it.shelf.put(&rows.iter().flat_map(|row| updates[*row].clone()).collect::<Vec<u8>>()));
    let lists = lists.collect();
    let place = |at: usize| Place { partial: (at / cut) as u32, row: (at % cut) as u32 };
    let order = (0..devices.len()).map(|row| place(devices.len() - 1 - row)).collect();
    Round { lists, order, names: devices.iter().map(|device| name(*device)).collect(), learnt }
}

fn apply(it: &Run, given: &Given, round: &Round) -> Result<Output, WorkFault> {
    let work = Work::Apply {
        began: None,
        entropy: Entropy::new([0; 32]),
        spec: Arc::new(it.spec.clone()),
        collection: collection(Kind::Train, it.version),
        model: it.model.clone(),
        before: Chain::default(),
        state: it.state.clone(),
        partials: round.lists.clone(),
        order: round.order.clone(),
        names: round.names.clone(),
        given: given.clone(),
        devices: round.names.len() as u32,
        population: it.population,
        opening: None,
    };
    run(&work, &it.shelf, &table(0, 1, 1))
}

#[test]
fn each_device_is_given_the_mixture_of_all_that_were_ever_counted() {
    let mut it = Run::new(amp_job(), 4);
    let mut given = Given::new();
    let mut models: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    // Device 1 is away in the second round, and device 3 comes in it.
    for (version, devices) in [(0, vec![0, 1, 2]), (1, vec![0, 2, 3]), (2, vec![1, 3])] {
        it.version = version;
        let round = round(&mut it, &given, &devices, 2);
        models.extend(round.learnt.clone());
        let Output::Applied { model, state, given: made, totals, .. } = apply(&it, &given, &round).unwrap() else {
            panic!()
        };
        assert_eq!((totals.devices, totals.saturated), (devices.len() as u64, 0));

        let rows: Vec<f32> = models.values().flatten().copied().collect();
        let params = it.spec.version().params;
        let block = Block::new(&rows, params);
        let mut pairs = Pairs::new(models.len());
        pairs.add(&block);
        let mixture = AMP.mixture(&pairs);
        let mut expected = vec![0.0; params];
        assert!(made.keys().eq(models.keys()), "{:?}", made.keys());
        (it.model, it.state) = (model.clone(), state);
        fedamp::mean(&block, &mut expected);
        assert_eq!(it.read().w, expected);
        for (device, (name, object)) in made.iter().enumerate() {
            mixture.model(device, &block, &mut expected);
            it.model = object.clone();
            assert_eq!(it.read().w, expected, "{name}, version {version}");
        }
        (it.model, given) = (model, made);
    }
    // All differ: nobody is given the version, or another's.
    let mut objects: Vec<ObjectId> = given.values().chain([&it.model]).map(Manifest::id).collect();
    objects.sort_unstable();
    objects.dedup();
    assert_eq!(objects.len(), 5);
}

#[test]
fn no_tree_leaves_a_trace_and_wrong_states_are_refused() {
    let mut it = Run::new(amp_job(), 3);
    let given = Given::new();
    let made = [1, 2, 3].map(|cut| {
        let round = round(&mut it, &given, &[0, 1, 2], cut);
        match apply(&it, &given, &round).unwrap() {
            Output::Applied { model, state, given, .. } => (model, state.unwrap(), given),
            other => panic!("{other:?}"),
        }
    });
    assert!(made.iter().all(|one| *one == made[0]));

    let good = it.shelf.bytes(&made[0].1);
    let round = round(&mut it, &given, &[0, 1], 2);
    for bad in [&good[..good.len() - 4], &[255; 8], &[0; 3]] {
        it.state = Some(it.shelf.put(bad));
        assert!(apply(&it, &given, &round).is_err());
    }
    it.state = Some(made[0].1.clone());
    let missing = Round { names: vec![name(0)], ..round };
    assert!(matches!(apply(&it, &given, &missing), Err(WorkFault::Declined(_))));
}

#[test]
fn who_was_counted_longest_ago_is_forgotten() {
    let all = [("a", 3), ("b", 1), ("c", 2), ("d", 2)].map(|(name, last)| (name.to_owned(), last));
    let names = |most| {
        let kept = crate::work::given::newest(all.clone().into(), most);
        kept.into_iter().map(|(name, _)| name).collect::<String>()
    };
    assert_eq!([4, 3, 2, 1].map(names), ["abcd", "acd", "ac", "a"]);
}
