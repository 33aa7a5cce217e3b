//! Robust rules against closed forms and their papers' properties: what a minority of liars can and cannot do.

use littoral_fed::plan::{Plan, Resolution, Section, Weighting};
use littoral_fed::robust::inspect::{Inspection, Malformed};
use littoral_fed::robust::{RobustSpec, Rule, RuleName, sum_of};
use littoral_fed::seal::Raw;
use littoral_tensor::fixed;
use proptest::collection::vec;
use proptest::prelude::*;

fn spec(rule: RuleName) -> RobustSpec {
    RobustSpec { rule, ..RobustSpec::default() }
}

fn rule(spec: RobustSpec, devices: usize) -> Box<dyn Rule> {
    spec.build(devices as u32, devices as u32).unwrap().unwrap()
}

/// Every rule, bearing as many liars of `devices` as it can.
fn all(devices: usize) -> Vec<(Box<dyn Rule>, usize)> {
    let n = devices as u32;
    let with = |spec: RobustSpec, borne: u32| (rule(spec, devices), borne as usize);
    let byzantine = (n - 3) / 2;
    vec![
        with(spec(RuleName::Median), (n - 1) / 2),
        with(RobustSpec { trim: Some((n - 1) / 2), ..spec(RuleName::TrimmedMean) }, (n - 1) / 2),
        with(RobustSpec { byzantine: Some(byzantine), ..spec(RuleName::Krum) }, byzantine),
        with(RobustSpec { byzantine: Some(byzantine), ..spec(RuleName::MultiKrum) }, byzantine),
        with(RobustSpec { byzantine: Some((n - 3) / 4), ..spec(RuleName::Bulyan) }, (n - 3) / 4),
        with(RobustSpec { iterations: Some(8), ..spec(RuleName::GeometricMedian) }, (n - 1) / 2),
    ]
}

/// What the rule says for each coordinate: its sum over the number of devices.
fn value(rule: &dyn Rule, rows: &[Vec<i32>]) -> Vec<f64> {
    sum_of(rule, rows, 1.0, 8).unwrap().iter().map(|sum| sum / rows.len() as f64).collect()
}

#[test]
fn closed_forms() {
    let column = |values: &[i32]| values.iter().map(|value| vec![*value]).collect::<Vec<_>>();
    let said = |spec: RobustSpec, values: &[i32]| value(&*rule(spec, values.len()), &column(values))[0];
    assert_eq!(said(spec(RuleName::Median), &[9, 1, 5]), 5.0);
    assert_eq!(said(spec(RuleName::Median), &[9, 1, 5, 6]), 5.5);
    assert_eq!(said(spec(RuleName::Median), &[i32::MIN, i32::MAX]), -0.5);
    let trimmed = |trim, values: &[i32]| said(RobustSpec { trim: Some(trim), ..spec(RuleName::TrimmedMean) }, values);
    assert_eq!(trimmed(1, &[100, 1, 2, 6, -90]), 3.0);
    assert_eq!(trimmed(2, &[100, 1, 2, 6, -90]), 2.0);
    // f = 1 of 5: each counts the squares to its two nearest. 0: 1 + 4, 1: 1 + 1, 2: 1 + 4, 10: 1 + 64, 11: 1 + 81.
    let krum = |select, values: &[i32]| {
        said(RobustSpec { byzantine: Some(1), select: Some(select), ..spec(RuleName::MultiKrum) }, values)
    };
    assert_eq!((krum(1, &[10, 0, 2, 11, 1]), krum(2, &[10, 0, 2, 11, 1])), (1.0, 0.5));
    // f = 1 of 7: five are chosen, and of them the three nearest their median are averaged.
    let bulyan = RobustSpec { byzantine: Some(1), ..spec(RuleName::Bulyan) };
    assert_eq!(said(bulyan, &[0, 1, 2, 3, 4, 5, 1000]), 2.0);
    // On a line the geometric median is the middle value.
    let weiszfeld = RobustSpec { iterations: Some(100), ..spec(RuleName::GeometricMedian) };
    assert!((said(weiszfeld, &[0, 10, 1000]) - 10.0).abs() < 1e-3);
    // Of a triangle without wide angles, Fermat's point: here on the axis, at 20 / √3 above the base.
    let corners = [vec![-20, 0], vec![20, 0], vec![0, 60]];
    let fermat = value(&*rule(weiszfeld_of(100), 3), &corners);
    assert!(fermat[0].abs() < 1e-6 && (fermat[1] - 20.0 / 3f64.sqrt()).abs() < 1e-6, "{fermat:?}");
}

fn weiszfeld_of(iterations: u32) -> RobustSpec {
    RobustSpec { iterations: Some(iterations), ..spec(RuleName::GeometricMedian) }
}

fn rows(devices: std::ops::Range<usize>, most: i32) -> impl Strategy<Value = Vec<Vec<i32>>> {
    (devices, 1..21usize).prop_flat_map(move |(devices, len)| vec(vec(-most..=most, len..=len), devices..=devices))
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    /// Nothing to trim, nobody who lies: the sum, to the bit.
    #[test]
    fn without_liars_to_bear_it_is_the_mean(rows in rows(3..9, i32::MAX)) {
        let sum: Vec<f64> =
            (0..rows[0].len()).map(|k| rows.iter().map(|row| i64::from(row[k])).sum::<i64>() as f64).collect();
        for spec in [
            RobustSpec { trim: Some(0), ..spec(RuleName::TrimmedMean) },
            RobustSpec { byzantine: Some(0), ..spec(RuleName::Bulyan) },
        ] {
            let rule = rule(spec, rows.len());
            prop_assert_eq!(bits(&sum_of(&*rule, &rows, 1.0, 8).unwrap()), bits(&sum));
        }
    }

    /// How a section is cut into blocks leaves no trace. Nor does the order of rows, which is that of names whoever was
    /// first, but in Weiszfeld's sums of floats and where scores are equal: Bulyan's last choices are among those.
    #[test]
    fn no_bit_depends_on_blocks_or_order(rows in rows(7..12, 1 << 30), by in 1..6usize) {
        let mut turned = rows.clone();
        turned.rotate_left(by);
        let distinct = rows.iter().collect::<std::collections::BTreeSet<_>>().len() == rows.len();
        for (rule, _) in all(rows.len()) {
            let whole = bits(&sum_of(&*rule, &rows, 1.0, 1 << 20).unwrap());
            prop_assert_eq!(&bits(&sum_of(&*rule, &rows, 1.0, 8).unwrap()), &whole, "{:?}", rule);
            let ordered = matches!(rule.name(), RuleName::GeometricMedian | RuleName::Bulyan);
            // Scores of distinct updates differ in general.
            if !ordered && distinct && rows[0].len() > 2 {
                prop_assert_eq!(&bits(&sum_of(&*rule, &turned, 1.0, 8).unwrap()), &whole, "{:?}", rule);
            }
        }
    }

    /// Each coordinate stays between honest values, whatever the liars send: those that look at coordinates or choose
    /// among vectors.
    #[test]
    fn liars_cannot_leave_what_honest_devices_span(
        rows in rows(7..14, 1000),
        lie in vec(prop_oneof![Just(i32::MIN), Just(i32::MAX), -1_000_000..1_000_000], 21),
    ) {
        for (rule, borne) in all(rows.len()) {
            if matches!(rule.name(), RuleName::GeometricMedian) {
                continue;
            }
            let mut rows = rows.clone();
            // Too far from everybody, or Krum might rightly take one for honest.
            let liars: Vec<Vec<i32>> = (0..borne)
                .map(|liar| (0..rows[0].len()).map(|k| lie[(k + liar) % lie.len()].saturating_mul(2) | 1 << 30).collect())
                .collect();
            rows.splice(..borne, liars);
            let honest = &rows[borne..];
            for (k, value) in value(&*rule, &rows).into_iter().enumerate() {
                let column = || honest.iter().map(|row| f64::from(row[k]));
                let (least, most) = (column().fold(f64::MAX, f64::min), column().fold(f64::MIN, f64::max));
                // Scaling rounds once.
                prop_assert!((least - 1e-6..=most + 1e-6).contains(&value), "{rule:?}: {value} not in {least}..={most}");
            }
        }
    }

    /// While fewer than half lie, the geometric median is near the honest ones: within 2 n_h / (n_h − n_l) times the
    /// farthest honest update from their mean (Lemma 2 of Pillutla et al., with room for what smoothing and finite steps
    /// leave). The mean goes wherever the liars want.
    #[test]
    fn geometric_median_breaks_down_at_half(rows in rows(9..14, 1000), lie in 1 << 20..1 << 30) {
        let liars = (rows.len() - 1) / 3;
        let mut rows = rows.clone();
        rows[..liars].iter_mut().for_each(|row| row.fill(lie));
        let (honest, n) = (&rows[liars..], rows.len() as f64);
        let centre: Vec<f64> = (0..rows[0].len())
            .map(|k| honest.iter().map(|row| f64::from(row[k])).sum::<f64>() / honest.len() as f64)
            .collect();
        let from_centre = |x: &[f64]| x.iter().zip(&centre).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let spread = honest.iter().map(|row| from_centre(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()));
        let spread = spread.fold(1.0, f64::max);
        let value = value(&*rule(weiszfeld_of(50), rows.len()), &rows);
        let bound = 2.0 * honest.len() as f64 / (n - 2.0 * liars as f64) * spread;
        prop_assert!(from_centre(&value) <= 1.5 * bound, "{} from the centre, {bound} allowed", from_centre(&value));
    }

    #[test]
    fn krum_never_selects_a_far_outlier(rows in rows(5..16, 1000), far in 1 << 16..1 << 30) {
        for f in 1..=(rows.len() - 3) / 2 {
            let mut rows = rows.clone();
            // Colluding: all the same, so that they are near each other.
            rows[..f].iter_mut().for_each(|row| row.fill(far));
            let krum = rule(RobustSpec { byzantine: Some(f as u32), ..spec(RuleName::Krum) }, rows.len());
            let value: Vec<i32> = value(&*krum, &rows).into_iter().map(|v| v.round() as i32).collect();
            prop_assert!(rows[f..].contains(&value), "f = {f}: {value:?}");
        }
    }

    /// Whatever comes, there is a verdict, and the same one however it was cut.
    #[test]
    fn any_bytes_get_a_verdict(bytes in vec(any::<u8>(), 0..400), exact: bool, cut in 1..64usize, len in 0..40usize) {
        let plan = plan(len, true);
        let mut bytes = bytes;
        if exact {
            bytes.resize(plan.format().bytes(), 0);
        }
        let mut inspection = Inspection::new(&plan, Some(1.0));
        let pushed = bytes.chunks(cut).try_for_each(|chunk| inspection.push(chunk));
        let verdict = pushed.and_then(|()| inspection.finish());
        prop_assert_eq!(verdict.is_ok(), Inspection::of(&plan, Some(1.0), &bytes).is_ok());
    }

    /// What devices seal passes, however it is cut; one word changed by an honest step or two passes too, and anything an
    /// honest plan cannot make does not.
    #[test]
    fn what_an_honest_device_makes_passes_inspection(
        delta in vec(-3.0f32..3.0, 1..50),
        examples in 0u64..2000,
        by_examples: bool,
        cut in 1..64usize,
    ) {
        let plan = plan(delta.len(), by_examples);
        let norm = delta.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
        let raw = Raw { examples, loss: 0.5, wholes: vec![7], sections: vec![delta] };
        let clip = (norm / 2.0).max(0.01);
        let sealed = raw.clone().clip(clip).unwrap().round(&plan).unwrap().pack().plain().to_vec();
        let mut inspection = Inspection::new(&plan, Some(clip));
        sealed.chunks(cut).try_for_each(|chunk| inspection.push(chunk)).unwrap();
        prop_assert_eq!(inspection.finish().unwrap(), &sealed[..plan.header_bytes()]);
        // Longer than the bound, unless it weighs nothing.
        let long = raw.unclipped().round(&plan).unwrap().pack().plain().to_vec();
        let refused = Inspection::of(&plan, Some(norm * 0.9), &long);
        let weightless = plan.weight(examples).value == 0;
        prop_assert!(weightless || norm < 0.1 || matches!(refused, Err(Malformed::Norm { .. })), "{refused:?}");
    }
}

fn plan(len: usize, by_examples: bool) -> Plan {
    let weighting = match by_examples {
        true => Weighting::ByExamples { examples_max: 1000, weight_max: 50 },
        false => Weighting::Uniform,
    };
    let section = Section { name: "delta", len, range: 4.0, weighted: true };
    Plan::new(20, weighting, Resolution::Levels(4096), vec![section], 1).unwrap()
}

#[test]
fn what_no_honest_device_makes_is_refused_by_name() {
    let plan = plan(13, true);
    let raw = Raw { examples: 500, loss: 0.5, wholes: vec![7], sections: vec![vec![1.0; 13]] };
    let sealed = raw.unclipped().round(&plan).unwrap().pack().plain().to_vec();
    let header = plan.header_bytes() / plan.bits() as usize * 8;
    let with = |word: usize, value: i64| {
        let mut words = vec![0; plan.format().words() as usize];
        fixed::unpack(&sealed, plan.bits(), &mut words).unwrap();
        words[word] = value;
        let mut packed = sealed.clone();
        fixed::pack(&words, plan.bits(), &mut packed).unwrap();
        Inspection::of(&plan, Some(10.0), &packed).map_err(|e| e.to_string())
    };
    assert!(with(0, 25).is_ok());
    for (word, value, told) in [
        (0, 51, "a weight is 0 to 50 in this job, the update says 51"),
        (0, -1, "the update says -1"),
        (header, 4097 * 25, "coordinate 0: at most 4096 steps times weight 25 expected, got 102425"),
        // No multiple of the weight.
        (header + 12, 26, "coordinate 12"),
        (header + 13, 1, "only fills a part up"),
    ] {
        let refused = with(word, value).unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
    let shorter = Inspection::of(&plan, None, &sealed[..sealed.len() - 1]);
    assert!(matches!(shorter, Err(Malformed::Length { .. })));
    let longer = [&sealed[..], &[0; 64]].concat();
    assert!(matches!(Inspection::of(&plan, None, &longer), Err(Malformed::Length { .. })));
    let told = Inspection::of(&plan, Some(3.0), &sealed).unwrap_err().to_string();
    assert_eq!(told, "update norm 3.6056 above norm_bound 3");
}
