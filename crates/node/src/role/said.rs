//! What was said already: a complaint that comes again and again is said once, and then counted.

use std::collections::BTreeMap;

/// The last complaint about each thing, and how often in a row it came.
#[derive(Debug)]
pub struct Said<Thing>(BTreeMap<Thing, (String, u64)>);

impl<Thing> Default for Said<Thing> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<Thing: Ord> Said<Thing> {
    /// What is to be said now: a new complaint as it is; the same one for the 10th, 100th, 1000th … time with its count.
    pub fn say(&mut self, about: Thing, complaint: String) -> Option<String> {
        let (last, times) = self.0.entry(about).or_default();
        if *last != complaint {
            (*last, *times) = (complaint, 0);
        }
        *times += 1;
        match *times {
            1 => Some(last.clone()),
            times if 10u64.pow(times.ilog10()) == times => Some(format!("{last} ({times} times by now)")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_said_once_and_then_counted() {
        let mut said = Said::default();
        let all: Vec<String> = (0..100).filter_map(|_| said.say(1, "no".into())).collect();
        assert_eq!(all, ["no", "no (10 times by now)", "no (100 times by now)"]);
        assert_eq!(said.say(2, "no".into()).as_deref(), Some("no"), "about another thing");
        assert_eq!(said.say(1, "never".into()).as_deref(), Some("never"));
        assert_eq!(said.say(1, "no".into()).as_deref(), Some("no"));
    }
}
