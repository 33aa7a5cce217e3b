//! The model down the link: what a device has, whichever way it came to it, and what that cost.

use super::*;
use crate::job::Line;
use littoral_fed::compress::downlink::Image;

/// The large job, its model told as the text says.
fn told(downlink: &str, more: impl Fn(&mut crate::job::JobText)) -> (Run, Vec<Rows>) {
    let (spec, data) = large_job("{ name = \"fedavgm\" }");
    let mut text = spec.text().clone();
    text.compression = toml::from_str(&format!("downlink = {{ {downlink} }}")).unwrap();
    more(&mut text);
    (Run::new(JobSpec::check(text).unwrap(), 9), data)
}

impl Run {
    fn train(&mut self, data: &[Rows]) -> Totals {
        let updates: Vec<Manifest> =
            data.iter().enumerate().map(|(device, rows)| self.update(Kind::Train, device, None, rows).0).collect();
        self.advance(Kind::Train, updates, data.len() as u32)
    }

    /// What the cloud keeps to itself.
    fn exact(&self) -> Vec<f32> {
        let (layout, bytes) = (self.spec.version(), self.shelf.bytes(self.state.as_ref().unwrap()));
        let block = |block| version::reals(&bytes[layout.at(&block, 0, layout.state_vectors())]).collect::<Vec<_>>();
        layout.blocks().flat_map(block).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_road_to_a_version_ends_at_the_same_bits_and_is_short() {
    for (recipe, fewer) in [("name = \"delta\"", 4.0), ("name = \"delta\", bits = 8", 2.5), ("name = \"half\"", 1.99)] {
        let (mut it, data) = told(recipe, |_| {});
        let (mut followed, mut whole, mut longest, mut apart) = (0, 0, 0, 0f32);
        let mut image: Option<Image> = None;
        for _ in 0..16 {
            // A device that follows applies the newest change to what it has.
            let newest = it.shelf.bytes(&it.model);
            image = Some(match (image, it.before.is_empty()) {
                (Some(mut image), false) => {
                    image.apply(&newest[32..]).unwrap();
                    image
                }
                (_, _) => Image::of_whole(&newest, it.spec.version().params).unwrap(),
            });
            // One that is new reads the whole chain.
            let (new, exact) = (it.read().w, it.exact());
            assert_eq!(bits(&image.as_ref().unwrap().values()), bits(&new));
            let line = Line::new(&it.train(&data), 0, 0);
            followed += line.downlink_bytes.unwrap();
            whole = whole.max(line.downlink_bytes_new.unwrap());
            longest = longest.max(it.before.len());
            // As near as the recipe can tell: a seventh of the largest step of 256 weights, or half a bit of 11.
            apart = exact.iter().zip(&new).map(|(exact, new)| (exact - new).abs()).fold(apart, f32::max);
        }
        assert!(apart > 0.0 && apart < 0.01, "{recipe}: {apart}");
        let uncompressed = 16.0 * it.spec.version().model_bytes() as f64;
        let ratio = uncompressed / followed as f64;
        assert!(ratio >= fewer, "{recipe}: {ratio}");
        // Twice a whole one, and a change more, at most.
        assert!(whole as usize <= 5 * it.spec.version().params, "{recipe}: {whole}");
        assert!((longest > 0) == recipe.contains("delta"));

        // What is taken out is what devices have.
        let parts: Vec<Vec<u8>> = it.before.iter().chain([&it.model]).map(|object| it.shelf.bytes(object)).collect();
        let bytes = expand(&it.spec, &parts).unwrap();
        assert_eq!(bytes.len(), it.spec.version().model_bytes());
        assert_eq!(bits(&version::reals(&bytes).collect::<Vec<_>>()), bits(&it.read().w));
    }
}

/// The cloud goes on from the exact weights: errors of what was told do not add up.
#[test]
fn a_job_learns_as_it_does_without() {
    let (mut plain, data) = told("name = \"delta\"", |text| text.compression = None);
    let (mut it, _) = told("name = \"delta\"", |_| {});
    let start = plain.read().w;
    for _ in 0..8 {
        plain.train(&data);
        it.train(&data);
    }
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let (end, moved) = (plain.read().w, distance(&plain.read().w, &start));
    // Devices start a little beside; a tenth of the way would show in any accuracy.
    assert!(distance(&it.exact(), &end) < 0.1 * moved, "{} of {moved}", distance(&it.exact(), &end));
}

#[test]
fn statistics_and_a_basis_come_along() {
    let narrow = |text: &mut crate::job::JobText| {
        text.compression.as_mut().unwrap().uplink =
            Some(toml::from_str("name = \"powersgd\"\nrank = 2\nsent_range = 4.0").unwrap());
    };
    let (mut it, data) = told("name = \"delta\"", narrow);
    let first = it.read().basis;
    it.train(&data);
    let second = it.read().basis;
    assert!(first.is_some() && second.is_some() && first != second);

    let mut text = job("{ name = \"fedavg\" }", 4, MINI, 2, UNIFORM).text().clone();
    text.data.standardise = true;
    text.compression = toml::from_str("downlink = { name = \"delta\" }").unwrap();
    let mut it = Run::new(JobSpec::check(text).unwrap(), 2);
    let data = [table(0, 4, 9), table(1, 4, 9)];
    let exact = it.exact();
    let updates = [0, 1].map(|device| it.update(Kind::Statistics, device, None, &data[device]).0);
    it.advance(Kind::Statistics, updates.into(), 2);
    let version = it.read();
    assert!(version.standardise.is_some_and(|standardise| standardise.mean().iter().any(|&mean| mean != 0.0)));
    assert_eq!(bits(&it.exact()), bits(&exact));
    it.train(&data);
    assert!(it.read().standardise.is_some_and(|standardise| standardise.mean().iter().any(|&mean| mean != 0.0)));
}

#[test]
fn a_chain_that_is_none_is_refused() {
    let (mut it, data) = told("name = \"delta\"", |_| {});
    for _ in 0..3 {
        it.train(&data);
    }
    let good = it.before.clone().into_vec();
    assert_eq!(good.len(), 3);
    let mut told = |before: Vec<Manifest>| {
        it.before = Chain::new(before).unwrap();
        it.local(Kind::Train, 0, None, &data[0]).unwrap_err()
    };
    for (before, why) in [
        (vec![good[0].clone(), good[2].clone()], "changes another object"),
        (vec![good[0].clone(), good[2].clone(), good[1].clone()], "changes another object"),
        (good[1..].to_vec(), "bytes"),
        (Vec::new(), "bytes"),
    ] {
        let refused = told(before);
        assert!(matches!(&refused, WorkFault::Declined(said) if said.contains(why)), "{refused}");
    }
    // What is not here may come later.
    let gone = Manifest::of(&vec![1; good[0].bytes() as usize]).unwrap();
    assert!(matches!(told(vec![gone, good[1].clone(), good[2].clone()]), WorkFault::Failed(_)));
}
